"""The built book, walked page by page in headless Chromium: as wide as a desk, as narrow as a
phone, cut off from the network.

Runs on what `make book` left in book/_build/html; SIAMBOOK_SCREENSHOTS=folder keeps a picture of
every page at both widths.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

pytestmark = pytest.mark.browser

HTML = Path(__file__).parents[2] / "book" / "_build" / "html"
FRONT = "index.html"  # only leads on to the first page
PAGES = sorted(
    {str(path.relative_to(HTML)) for path in HTML.rglob("*.html") if "_static" not in path.parts}
    - {FRONT}
)
WIDTHS = [1280, 390]

FIGURES = """
return [...document.querySelectorAll('article img, article svg.figure, article canvas, article video')].map(e => ({
    source: (e.currentSrc || e.src || e.tagName).slice(-60),
    loaded: e.tagName !== 'IMG' || (e.complete && e.naturalWidth > 0),
    alt: (e.getAttribute('alt') || e.getAttribute('aria-label') || '').trim(),
    caption: (e.closest('figure')?.querySelector('figcaption')?.innerText || '').replace('#', '').trim(),
}))"""

# Elements of the page's text that reach beyond the window and that no ancestor lets the reader
# scroll to.
CUT_OFF = """
const width = document.documentElement.clientWidth
const scrolls = e => e && e !== document.body
    && (['auto', 'scroll'].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement))
return [...document.querySelectorAll('article *')]
    .filter(e => e.getBoundingClientRect().width > 1 && e.getBoundingClientRect().right > width + 1)
    .filter(e => !e.closest('.MathJax, mjx-container, [aria-hidden=true]') && !scrolls(e.parentElement) && !scrolls(e))
    .map(e => `${e.tagName.toLowerCase()}.${e.className}: ${(e.innerText || '').slice(0, 40)}`)"""

# Lines of text that are hard to tell from what lies behind them: contrast by WCAG 2 below the 3
# that it asks of large text.
FAINT = """
const channel = v => v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4
const parts = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number)
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b)
const ground = e => { // the colour behind an element: solid ones below, and translucent ones over them
    if (!e) return [255, 255, 255]
    const [r, g, b, a = 1] = parts(getComputedStyle(e).backgroundColor)
    if (a === 1) return [r, g, b]
    const under = ground(e.parentElement)
    return [r, g, b].map((v, i) => a * v + (1 - a) * under[i])
}
const contrast = e => {
    const [one, other] = [light(parts(getComputedStyle(e).color)), light(ground(e))].sort((a, b) => b - a)
    return (one + 0.05) / (other + 0.05)
}
return [...document.querySelectorAll('article *')]
    .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()) && e.offsetParent)
    .filter(e => !e.closest('svg, script, style, .MathJax, mjx-container, .headerlink, pre, .sd-d-none'))
    .filter(e => contrast(e) < 3).map(e => `${e.tagName.toLowerCase()}.${e.className}: ${e.innerText.slice(0, 40)}`)"""

# Themes change by fading: with this nothing fades, and colours are what they will be.
STILL = """
const style = document.createElement('style')
style.textContent = '*, *::before, *::after { transition: none !important; animation: none !important }'
document.head.append(style)"""

TARGETS = """
return [...document.querySelectorAll('a[href], img[src], script[src], link[href], source[src]')]
    .map(e => e.href || e.src).filter(url => url && !url.startsWith('data:'))"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The book served on this machine: search and scripts work as they do on a web server."""
    if not PAGES:
        pytest.skip("the book is not built: run `make book` first")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=str(HTML))
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(address: str) -> Iterator[Any]:
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is missing: install the `test` extra"
    )
    binary = (
        shutil.which("chromium")
        or shutil.which("chromium-browser")
        or shutil.which("google-chrome")
    )
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip(
            "no Chromium or chromedriver here: on Debian, apt-get install chromium chromium-driver"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    offline = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--hide-scrollbars",
        offline,
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(executable_path=driver)
    )
    chrome.set_script_timeout(300)  # of a busy machine
    yield chrome
    chrome.quit()


def set_window(browser: Any, width: int, height: int = 900) -> None:
    """A window of this many CSS pixels; a narrow one behaves as on a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def wait_for(ready: Callable[[], Any]) -> Any:
    """What it answers once that is something true; a minute at most."""
    for _ in range(600):
        if found := ready():
            return found
        time.sleep(0.1)
    pytest.fail("it did not come to that")


def open_page(browser: Any, url: str, width: int) -> None:
    browser.get_log("browser")  # forget what the page before said
    set_window(browser, width)
    browser.get(url)
    browser.execute_async_script(
        """const done = arguments[0]
        document.querySelectorAll('img[loading=lazy]').forEach(e => { e.loading = 'eager' })
        const pictures = [...document.images].filter(e => !e.complete).map(e => new Promise(r => { e.onload = e.onerror = r }))
        Promise.all([...pictures, document.fonts.ready, window.MathJax?.startup?.promise])
            .then(() => setTimeout(done, 100))"""
    )


def keep_picture(browser: Any, page: str, width: int) -> None:
    """The whole page as an image, if wanted; the window then goes back to its size."""
    folder = os.environ.get("SIAMBOOK_SCREENSHOTS")
    if not folder:
        return
    height = browser.execute_script("return document.documentElement.scrollHeight")
    set_window(browser, width, height)
    Path(folder).mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(Path(folder) / f"{page.replace('/', '-')[:-5]}-{width}.png"))
    set_window(browser, width)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_on_a_desk(browser: Any, address: str, page: str) -> None:
    """Nothing missing or cut off, links lead somewhere, and text can be read in both themes."""
    open_page(browser, address + page, WIDTHS[0])
    keep_picture(browser, page, WIDTHS[0])
    links = [url for url in set(browser.execute_script(TARGETS)) if url.startswith(address)]
    found = {
        "faults": faults(browser),
        "broken links": [url for url in links if not exists(url, address)],
    }
    browser.execute_script(STILL)
    for theme in ("light", "dark"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        found[f"faint when {theme}"] = browser.execute_script(FAINT)
    assert found == {name: [] for name in found}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_whole_on_a_phone(browser: Any, address: str, page: str) -> None:
    open_page(browser, address + page, WIDTHS[1])
    keep_picture(browser, page, WIDTHS[1])
    assert faults(browser) == []


def faults(browser: Any) -> list[str]:
    """What is wrong with the page that the browser shows, a sentence each."""
    found = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    for figure in browser.execute_script(FIGURES):
        source = figure["source"]
        if not figure["loaded"]:
            found.append(f"{source} does not load")
        # Sphinx fills in the file's name
        if not figure["alt"] or figure["alt"].endswith((".png", ".svg", ".jpg")):
            found.append(f"{source} has no alternative text")
        if not figure["caption"]:
            found.append(f"{source} has no caption")
    content, window = browser.execute_script(
        "const e = document.documentElement; return [e.scrollWidth, e.clientWidth]"
    )
    if content > window:
        found.append(f"the page is {content} pixels wide in a window of {window}")
    return found + [f"{element} is cut off" for element in browser.execute_script(CUT_OFF)]


def test_text_on_its_own_colour_is_seen(browser: Any) -> None:
    page = "<article style='background: %23ccd'><p style='color: %23dde'>faint</p><p style='color: %23000'>plain</p></article>"
    open_page(browser, f"data:text/html,{page}", 1280)
    assert browser.execute_script(FAINT) == ["p.: faint"]


DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
WIDE = "<div style='width: 2000px'>wide</div>"
FAULTS = {
    "no caption": f"<figure><img src='{DOT}' alt='a dot'></figure>",
    "no alternative text": "<figure><img src='x.png'><figcaption>A dot.</figcaption></figure>",
    "does not load": "<figure><img src='x.png' alt='a dot'><figcaption>A dot.</figcaption></figure>",
    "TypeError": "<script>undefined.x</script>",
    "pixels wide": WIDE,
    "cut off": f"<div style='overflow: hidden'>{WIDE}</div>",
}


@pytest.mark.parametrize(("fault", "content"), FAULTS.items())
def test_the_walk_sees_what_it_looks_for(browser: Any, fault: str, content: str) -> None:
    head = "<meta name=viewport content='width=device-width'>"
    open_page(browser, f"data:text/html,{head}<article>{content}</article>", 390)
    assert any(fault in found for found in faults(browser))


def test_the_walk_lets_a_table_scroll_in_its_box(browser: Any) -> None:
    table = f"<div style='overflow: auto'>{WIDE}</div>"
    open_page(browser, f"data:text/html,<article>{table}</article>", 1280)
    assert faults(browser) == []


def exists(url: str, address: str) -> bool:
    """Whether the file is there, and the anchor in it."""
    bare, _, anchor = url.partition("#")
    page = HTML / urllib.parse.unquote(urllib.parse.urlsplit(bare).path).lstrip("/")
    if page.is_dir():
        page = page / "index.html"
    if not page.is_file():
        return False
    return (
        not anchor
        or page.suffix != ".html"
        or f'id="{urllib.parse.unquote(anchor)}"' in page.read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("page", PAGES)
def test_figures_have_no_numbers_but_the_thesiss(page: str) -> None:
    assert 'class="caption-number"' not in (HTML / page).read_text(encoding="utf-8")


def test_the_front_page_leads_to_the_first_page(browser: Any, address: str) -> None:
    browser.get(address + FRONT)
    wait_for(lambda: browser.current_url == address + "notebooks/front.html")


def test_the_clip_of_the_front_page_plays(browser: Any, address: str) -> None:
    open_page(browser, address + "notebooks/front.html", WIDTHS[0])
    clip = "const clip = document.querySelector('figure.clip video'); return "
    wait_for(lambda: browser.execute_script(f"{clip} clip.currentTime > 0.5"))
    assert browser.execute_script(f"{clip} [clip.error, clip.paused]") == [None, False]


# -- The interactive figure ------------------------------------------------------------------------

DEPLOY = "notebooks/05_3_deploy.html"
# Centres of the marks that are seen, in pixels of the window
MARKS = """
return [...document.querySelectorAll('figure.chart .scatterlayer .points path')].map(e => e.getBoundingClientRect())
    .filter(r => r.width).map(r => [r.left + r.width / 2, r.top + r.height / 2])"""
LOADED = "return performance.getEntriesByType('resource').map(e => e.name)"


def open_chart(browser: Any, address: str, width: int) -> None:
    if not (HTML / "_static" / "plotly.min.js").is_file() or DEPLOY not in PAGES:
        pytest.skip("the book was built without plotly: install the `book` extra, run `make book`")
    open_page(browser, address + DEPLOY, width)
    wait_for(lambda: browser.execute_script(MARKS))
    browser.execute_script(
        "document.querySelector('figure.chart').scrollIntoView({behavior: 'instant'})"
    )


def point_at(browser: Any, x: float, y: float, kind: str = "mouseMoved") -> None:
    press = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **press})


def press(browser: Any, element: Any) -> None:
    """With the mouse, as a reader does."""
    box = browser.execute_script("return arguments[0].getBoundingClientRect()", element)
    click(browser, box["left"] + box["width"] / 2, box["top"] + box["height"] / 2)


def click(browser: Any, x: float, y: float) -> None:
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        point_at(browser, x, y, kind)
    time.sleep(1.0)  # a second press would be a double click


@pytest.mark.parametrize("width", WIDTHS)
def test_a_point_of_the_chart_tells_its_name(browser: Any, address: str, width: int) -> None:
    open_chart(browser, address, width)
    found = ""
    for x, y in browser.execute_script(MARKS):
        point_at(browser, x, y)
        time.sleep(0.2)
        found = browser.execute_script(
            "return document.querySelector('figure.chart .hoverlayer').textContent"
        )
        if found:
            break
    assert "EAO" in found and "FPS" in found
    assert any(name in found for name in ("PyTorch", "OpenVINO", "TensorRT"))


def test_filters_of_the_chart_hide_points(browser: Any, address: str) -> None:
    from selenium.webdriver.common.by import By

    open_chart(browser, address, WIDTHS[0])
    every = len(browser.execute_script(MARKS))
    counts = {}
    for button in browser.find_elements(By.CSS_SELECTOR, "figure.chart .updatemenu-button"):
        press(browser, button)
        counts[button.text] = len(browser.execute_script(MARKS))
    frameworks = [label for label in counts if label not in ("All", "Front")]
    assert counts["All"] == every and 0 < counts["Front"] < every
    assert sum(counts[label] for label in frameworks) == every
    press(browser, browser.find_element(By.CSS_SELECTOR, "figure.chart .updatemenu-button"))
    press(browser, browser.find_element(By.CSS_SELECTOR, "figure.chart .legendtoggle"))
    assert 0 < len(browser.execute_script(MARKS)) < every, "a backbone in the legend"


def test_the_chart_loads_nothing_from_elsewhere_and_follows_the_theme(
    browser: Any, address: str
) -> None:
    open_chart(browser, address, WIDTHS[0])
    loaded = browser.execute_script(LOADED)
    assert any(url.startswith(f"{address}_static/plotly.min.js") for url in loaded)
    assert [url for url in loaded if not url.startswith((address, "data:"))] == []
    ground = "return document.querySelector('figure.chart .bg').style.fill"
    ink = "return document.querySelector('figure.chart .xtick text').style.fill"
    seen = []
    for theme in ("light", "dark"):
        browser.execute_script("document.documentElement.dataset.theme = arguments[0]", theme)
        time.sleep(1.0)
        seen.append((browser.execute_script(ground), browser.execute_script(ink)))
    (light, dark_ink), (dark, light_ink) = seen
    assert light != dark and dark_ink != light_ink
    open_page(browser, address + "own.html", WIDTHS[0])
    loaded = browser.execute_script(LOADED)
    assert not any("plotly.min.js" in url for url in loaded), "only where there is a chart"


@pytest.mark.parametrize("page", ["03_5_tensorrt", "03_6_pruning"])
def test_a_slider_moves_what_it_names(browser: Any, address: str, page: str) -> None:
    address = f"{address}notebooks/{page}.html"
    open_page(browser, address, WIDTHS[0])
    said = "return document.querySelector('figure.chart .annotation-text')?.textContent"
    before = wait_for(lambda: browser.execute_script(said))
    browser.execute_script(
        "document.querySelector('figure.chart .slider-group').scrollIntoView({behavior: 'instant', block: 'center'})"
    )
    rail = browser.execute_script(
        "const r = document.querySelector('figure.chart .slider-rail-touch-rect').getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]"
    )
    click(browser, rail[0] + 0.9 * rail[2], rail[1] + rail[3] / 2)
    assert browser.execute_script(said) != before


def test_a_row_of_a_wide_table_is_a_card_on_a_phone(browser: Any, address: str) -> None:
    page = address + "notebooks/04_2_engines.html"
    shown = {}
    for width in WIDTHS:
        open_page(browser, page, width)
        shown[width] = browser.execute_script(
            "const cell = document.querySelector('table.cards td');"
            "return [getComputedStyle(cell, '::before').content, cell.dataset.head,"
            "cell.getBoundingClientRect().top > cell.previousElementSibling.getBoundingClientRect().top]"
        )
    wide, narrow = (shown[width] for width in WIDTHS)
    assert wide[0] == "none" and not wide[2]
    assert narrow[0] == "attr(data-head)" or narrow[1] in narrow[0]
    assert narrow[2], "cells stand under each other"


def test_a_reader_finds_pages_by_searching(browser: Any, address: str) -> None:
    open_page(browser, address + "search.html?q=tracking", WIDTHS[0])
    found = "return document.querySelectorAll('#search-results li a').length"
    wait_for(lambda: browser.execute_script(found))
