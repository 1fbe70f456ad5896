"""The built book as one PDF (`make pdf`), printed by Chromium in the style of _static/print.css.

The articles of all pages, in the sidebar's order, become one document with a title page and
contents in front. Chromium cannot refer to a page by its number, so it prints twice: the first
print says where each line of the contents leads.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from datetime import date
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from lib.book.notebook import open_profile
from lib.errors import InputError
from lib.files import ROOT, write_text
from lib.measure import runs

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

HTML = ROOT / "book" / "_build" / "html"
# The front page's place for a link to the report, and the link
PLACE, LINK = '<p class="pdf"></p>', '<p class="pdf"><a href="../{}">The book as one PDF</a></p>'
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-pdf-header-footer",
    "--virtual-time-budget=600000",  # Chromium's time, which passes quickly: MathJax needs some
]
# Of no use on paper: folded code, parameters, links beside headings, files to download, scripts
LEFT_OUT = (
    "details.above-input, summary, button, .tag_parameters, .tag_injected-parameters, "
    "a.headerlink, a[download], script, video"
)
IN_HEAD = "link[rel=stylesheet], script[src*=mathjax], script:-soup-contains('MathJax =')"


def make(html: Path, out: Path) -> None:
    """Print the book in the folder `html`. Raises InputError where it or Chromium is missing."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser:
        raise InputError("no Chromium here: on Debian, apt-get install chromium")
    if not (html / "index.html").is_file():
        raise InputError(f"{html} holds no book: run `make book` first")
    title, head, body = _joined(html)
    numbers: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in ("first", "second"):
            document, printed = Path(folder, f"{turn}.html"), Path(folder, f"{turn}.pdf")
            contents = _contents(body, numbers)  # gives the headings of the body their anchors
            document.write_text(
                "<!doctype html><html lang=en data-theme=light><head><meta charset=utf-8>"
                f"<title>{escape(title)}</title>{head}</head><body class=paper>"
                f"{_title_page(title)}{contents}{body}</body></html>",
                encoding="utf-8",
            )
            command = [browser, *FLAGS, f"--print-to-pdf={printed}", document.as_uri()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if not printed.is_file():
                raise InputError(f"{browser} printed nothing: {done.stderr.strip()[-300:]}")
            numbers = targets(printed)
        _write_with_outline(printed, out, body, numbers)


def targets(pdf: Path) -> dict[str, int]:
    """The page, from 1, of every anchor that a link leads to."""
    from pypdf import PdfReader

    reader = PdfReader(pdf)
    return {
        unquote(name.lstrip("/")): 1 + (reader.get_destination_page_number(place) or 0)
        for name, place in reader.named_destinations.items()
    }


def _write_with_outline(
    printed: Path, out: Path, body: BeautifulSoup, numbers: dict[str, int]
) -> None:
    """Chromium's own outline names a heading twice where a page begins with it."""
    from pypdf import PdfWriter

    writer = PdfWriter(clone_from=printed)
    above: dict[int, Any] = {}  # the last item of each level
    for tag in body.select("h1, h2, h3"):
        level = int(tag.name[1])
        page = numbers[str(tag["id"])] - 1
        above[level] = writer.add_outline_item(
            title=tag.get_text(), page_number=page, parent=above.get(level - 1)
        )
    writer.write(out)


def _joined(html: Path) -> tuple[str, str, BeautifulSoup]:
    """The book's title, the style sheets and MathJax, and all articles in the sidebar's order."""
    from bs4 import BeautifulSoup

    def read(address: str) -> BeautifulSoup:
        return BeautifulSoup((html / address).read_text(encoding="utf-8"), "html.parser")

    first = re.findall(r'url=([^"]+)"', (html / "index.html").read_text(encoding="utf-8"))[0]
    menu = read(first).select("p.logo__title, nav.bd-docs-nav :is(p.caption, a.internal)")
    links = [urljoin(first, str(item.get("href", ""))).partition("#")[0] for item in menu]
    head: dict[str, None] = {}  # an ordered set
    body = ""
    for item, address in zip(menu, links):
        if item.name == "p":
            part = item.get_text(strip=True)
            continue
        page = read(address)
        for tag in page.select(IN_HEAD):
            _resolve(tag, html / address)
            head[str(tag)] = None
        article = page.select("article")[0]
        _put_on_paper(article, html, address, set(links))
        title = article.select("h1")[0]
        if address == first:
            title.string = part = "Overview"  # the title page has its title
        if title.get_text() != part:  # else the page begins its part by itself
            for tag in article.select("h1, h2, h3, h4"):
                tag.name = f"h{int(tag.name[1]) + 1}"
            if part:
                body += f"<h1>{escape(part)}</h1>"
        part = ""
        body += f"<div id='{address}'>{article}</div>"
    return menu[0].get_text(strip=True), "".join(head), BeautifulSoup(body, "html.parser")


def _resolve(tag: Tag, page: Path) -> None:
    for key in {"href", "src"} & set(tag.attrs):
        tag[key] = urljoin(page.as_uri(), str(tag[key]))


def _put_on_paper(article: Tag, html: Path, address: str, pages: set[str]) -> None:
    """Anchors become unique by the page's address before them, and links follow them; a link to a
    file that is no page becomes text."""
    for tag in article.select(LEFT_OUT):
        tag.decompose()
    for tag in article.select("details"):
        tag.unwrap()
    for tag in article.select("[id]"):
        tag["id"] = f"{address}/{tag['id']}"
    for tag in article.select("img[src]"):
        _resolve(tag, html / address)
        tag["loading"] = "eager"
    for tag in article.select("a[href]"):
        target, _, anchor = urljoin(address, str(tag["href"])).partition("#")
        if target in pages:
            tag["href"] = f"#{target}/{anchor}" if anchor else f"#{target}"
        elif not urlsplit(target).scheme:
            tag.unwrap()


def _title_page(title: str) -> str:
    run = str(open_profile(ROOT).values["run"])
    record = runs.read_json(runs.run_folder(run) / runs.ENVIRONMENT)
    return f"""<div class=title-page><p class=title>{escape(title)}</p>
        <p>A book that runs, after the master thesis of A. Ludwig (TU Wien, 2023)</p>
        <p>The siambook project, {date.today()}</p>
        <p class=run>{escape(runs.run_note(run, record)) if record else ""}</p></div>"""


def _contents(body: BeautifulSoup, numbers: dict[str, int]) -> str:
    items = ""
    for place, tag in enumerate(body.select("h1, h2, h3")):
        tag["id"] = anchor = f"heading-{place}"
        items += (
            f"<li class=to-{tag.name}><a href='#{anchor}'><span>{escape(tag.get_text())}</span>"
        )
        items += f"<span class=number>{numbers.get(anchor, 0)}</span></a></li>"
    return f"<h1>Contents</h1><ul class=contents>{items}</ul>"


def main() -> int:
    out, front = HTML / "siambook.pdf", HTML / "notebooks" / "front.html"
    try:
        make(HTML, out)
        page = front.read_text(encoding="utf-8")
        write_text(front, page.replace(PLACE, LINK.format(out.name)))
    except InputError as error:
        print(f"siambook: {error}", file=sys.stderr)
        return 2
    print(f"The report: file://{out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
