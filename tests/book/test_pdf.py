"""The report: a small book of three pages, and the whole one if it is built, printed by Chromium."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest

from lib.book import pdf
from lib.errors import InputError

pytestmark = pytest.mark.browser

MENU = """<p class="logo__title">A small book</p><nav class="bd-docs-nav">
<a class="internal" href="{up}notebooks/front.html">A small book</a>
<p class="caption">1 First part</p><a class="internal" href="{up}notebooks/one.html">1.1 One</a>
<p class="caption">2 Second</p><a class="internal" href="{up}two.html">2 Second</a></nav>"""
FOLDED = """<div class="cell"><details class="admonition hide above-input"><summary><p>Show code cell source</p>
</summary><pre>secret = 1</pre></details><div class="cell_output"><p>An output</p></div></div>
<details class="admonition hide below-input"><summary><p>Show code cell output</p></summary><p>A folded table</p></details>"""
PAGES = {
    "notebooks/front.html": "<section id='top'><h1>A small book<a class='headerlink' href='#top'>#</a></h1></section>",
    "notebooks/one.html": f"<section id='a'><h1>1.1 One</h1><p><a href='../two.html#a'>Onwards</a></p>{FOLDED}"
    + "<p>Much text.</p>" * 200
    + "<section id='b'><h2>1.1.1 Late</h2></section></section>",
    "two.html": "<section id='a'><h1>2 Second</h1><p><a href='file.csv'>A file</a></p></section>",
}


def texts(path: Path) -> list[str]:
    """The words of every page, one space between them."""
    pypdf = pytest.importorskip("pypdf", reason="pypdf is missing: install the `book` extra")
    return [
        " ".join(normalize("NFKC", page.extract_text()).split())
        for page in pypdf.PdfReader(path).pages
    ]


def outline(path: Path) -> dict[str, int]:
    """The page of each heading by the outline."""
    import pypdf

    reader = pypdf.PdfReader(path)

    def walk(items: list[Any]) -> Any:
        for item in items:
            if isinstance(item, list):
                yield from walk(item)
            else:
                yield str(item.title), 1 + (reader.get_destination_page_number(item) or 0)

    return dict(walk(reader.outline))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("no Chromium here: on Debian, apt-get install chromium")
    html = tmp_path_factory.mktemp("book")
    (html / "index.html").write_text(
        '<meta http-equiv="Refresh" content="0; url=notebooks/front.html" />'
    )
    (html / "notebooks").mkdir()
    for name, article in PAGES.items():
        menu = MENU.format(up="../" if "/" in name else "")
        style = (pdf.HTML.parents[1] / "_static" / "print.css").as_uri()
        head = f"<head><link rel=stylesheet href='{style}'></head>"
        (html / name).write_text(f"{head}<body>{menu}<article>{article}</article></body>")
    pdf.make(html, html / "small.pdf")
    return html / "small.pdf"


def test_the_contents_name_the_pages_where_titles_are(small: Path) -> None:
    title, contents, *pages = texts(small)
    assert "A small book" in title
    listed = dict(
        re.findall(r"(Overview|1 First part|1\.1 One|1\.1\.1 Late|2 Second) ?(\d+)", contents)
    )
    assert list(listed) == ["Overview", "1 First part", "1.1 One", "1.1.1 Late", "2 Second"]
    assert {name: int(number) for name, number in listed.items()} == {
        name: number for name, number in outline(small).items() if name in listed
    }
    for name, number in listed.items():
        assert name in pages[int(number) - 3]
    assert int(listed["1.1.1 Late"]) > int(listed["1.1 One"]) + 1


def test_nothing_to_press_is_printed(small: Path) -> None:
    said = " ".join(texts(small))
    assert "An output" in said and "A folded table" in said
    assert not re.search(r"Show code cell|secret|#", said)


def test_a_link_between_pages_leads_within_the_report(small: Path) -> None:
    assert pdf.targets(small)["two.html/a"] == outline(small)["2 Second"]


def test_the_whole_book(tmp_path: Path) -> None:
    """Under 15 MB, and every line of the contents has the page that the outline has."""
    if not (pdf.HTML / "index.html").is_file() or not any(map(shutil.which, pdf.BROWSERS)):
        pytest.skip("the book is not built, or there is no Chromium")
    pdf.make(pdf.HTML, tmp_path / "book.pdf")
    pages = texts(tmp_path / "book.pdf")
    assert len(pages) > 50
    assert (tmp_path / "book.pdf").stat().st_size < 15e6
    assert not re.search("Show code cell|begin{equation}", " ".join(pages))
    targets = pdf.targets(tmp_path / "book.pdf")
    headings = sorted(number for name, number in targets.items() if re.match(r"heading-\d+$", name))
    assert len(headings) > 50
    for name, number in outline(tmp_path / "book.pdf").items():
        assert "".join(name.split()) in "".join(pages[number - 1].split())


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if any(map(shutil.which, pdf.BROWSERS)):
        with pytest.raises(InputError, match="make book"):
            pdf.make(tmp_path, tmp_path / "book.pdf")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="apt-get install chromium"):
        pdf.make(tmp_path, tmp_path / "book.pdf")
