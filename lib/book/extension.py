"""Sphinx extension of the book, named in `_config.yml`: what decides a notebook's outputs decides
whether it runs again.

Jupyter Book's cache compares the code cells of a notebook and nothing else. The extension adds one
cell to the notebook as Sphinx reads it (`lib.book.notebook`), so that the cache itself misses when
something else changes, and finds the former run again when the change is taken back.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterable, Iterator

from lib.book.notebook import fingerprint, open_profile, prepared, refuse_unknown
from lib.book.pages import fill_cache
from lib.errors import InputError

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


class Book:
    """The state of one build. pages: the notebooks as they are executed, by name. parts: what
    decides each. known: the parts that each page was made from, kept with Sphinx's own record."""

    def __init__(self, app: Sphinx) -> None:
        self.root = Path(app.srcdir).resolve().parent
        self.pages: dict[str, dict[str, Any]] = {}
        self.parts: dict[str, dict[str, str]] = {}
        self.known: dict[str, dict[str, str]] = {}

    def outdated(self, app: Sphinx, env: BuildEnvironment, *_: set[str]) -> list[str]:
        """env-get-outdated: execute what changed; those pages are read again."""
        from sphinx.errors import ExtensionError
        from sphinx.util import logging

        files = {name: Path(env.doc2path(name)) for name in sorted(env.found_docs)}
        files = {name: path for name, path in files.items() if path.suffix == ".ipynb"}
        notebooks = {name: json.loads(path.read_bytes()) for name, path in files.items()}
        try:
            profile = open_profile(self.root)
            refuse_unknown(profile, notebooks.values())
        except InputError as error:
            raise ExtensionError(str(error)) from None  # one sentence, not two
        for name, notebook in notebooks.items():
            self.parts[name] = fingerprint(notebook, self.root, profile.values)
            self.pages[name] = prepared(notebook, profile, self.parts[name])
        cache = env.mystnb_config.execution_cache_path  # type: ignore[attr-defined]
        pages = {files[name]: page for name, page in self.pages.items()}
        fill_cache(Path(cache), pages, self.root, int(app.config.nb_execution_timeout))
        self.known = vars(env).setdefault("siambook_fingerprints", {})
        stale = []
        for name, then in self.known.items():
            now = self.parts.get(name, then)
            differing = sorted(key for key in {*then, *now} if then.get(key) != now.get(key))
            if differing:
                stale.append(name)
                told = ", ".join(differing)
                logging.getLogger(__name__).info("%s runs again: %s changed", name, told)
        return stale

    def read(self, app: Sphinx, docname: str, content: list[str]) -> None:
        """source-read: add the cell, and remember what the page is made from."""
        if docname in self.pages:
            content[0] = json.dumps(self.pages[docname])
            self.known[docname] = self.parts[docname]

    def finished(self, app: Sphinx, exception: Exception | None) -> None:
        """build-finished: a build with warnings fails, and so does the next one until they are
        mended.

        Sphinx warns about a page as it reads it and then keeps it, so a second build would be
        silent; without its record of the pages it reads them again. The executed notebooks stay in
        the cache.
        """
        if app._warncount:
            app.statuscode = 1
            (Path(app.doctreedir) / "environment.pickle").unlink(missing_ok=True)


def _ship_plotly(app: Sphinx, exception: Exception | None) -> None:
    """build-finished: the script that _static/chart.js draws with, from the package; without it
    pages show pictures."""
    found = find_spec("plotly")
    script = Path(str(found and found.origin)).parent / "package_data" / "plotly.min.js"
    if script.is_file() and app.builder.format == "html":
        shutil.copy(script, Path(app.outdir) / "_static")


def _tell_drawings(app: Sphinx, doctree: Any, docname: str) -> None:
    """doctree-resolved: figures without photographs or maps of colours are "drawn", and book.css
    gives them a dark ground in the dark theme."""
    from docutils import nodes

    for image in doctree.findall(nodes.image):
        file = Path(app.srcdir) / image["uri"].lstrip("/")
        if file.suffix == ".svg" and file.is_file() and b"<image" not in file.read_bytes():
            image["classes"].append("drawn")


def _configured(app: Sphinx, config: Any) -> None:
    """config-inited: captions name the thesis's figures, so Sphinx numbers none; with
    SIAMBOOK_REPOSITORY set, to the address of a public repository, pages get buttons that open them
    on Binder or Colab, and one that leads to the repository."""
    config.numfig = False
    repository = os.environ.get("SIAMBOOK_REPOSITORY", "")
    if repository:
        config.html_theme_options = {
            **config.html_theme_options,
            "repository_url": repository.rstrip("/"),
            "repository_branch": "main",
            "use_repository_button": True,
            "path_to_docs": "book",
            "launch_buttons": {
                "binderhub_url": "https://mybinder.org",
                "colab_url": "https://colab.research.google.com",
                "notebook_interface": "jupyterlab",
            },
        }


def _label_by_author_and_year() -> None:
    """Make "authoryear" a style of bibliography: sorted, and labelled as the text cites
    (`bibtex_reference_style`)."""
    from pybtex.plugin import register_plugin
    from pybtex.style.formatting.unsrt import Style
    from pybtex.style.labels import BaseLabelStyle

    class Labels(BaseLabelStyle):
        def format_labels(self, sorted_entries: Iterable[Any]) -> Iterator[str]:
            for entry in sorted_entries:
                people = [
                    (*person.rich_prelast_names, *person.rich_last_names)
                    for person in entry.persons["author"]
                ]
                names = [" ".join(map(str, parts)) for parts in people]
                who = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
                yield f"{who}, {entry.fields['year']}"

    class AuthorYear(Style):
        default_label_style = Labels
        default_sorting_style = "author_year_title"

    register_plugin("pybtex.style.formatting", "authoryear", AuthorYear)


def setup(app: Sphinx) -> dict[str, Any]:
    _label_by_author_and_year()
    book = Book(app)
    # Behind the LaTeX extension, which has figures numbered
    app.connect("config-inited", _configured, priority=900)
    app.connect("env-get-outdated", book.outdated)
    app.connect("source-read", book.read)
    app.connect("doctree-resolved", _tell_drawings)
    app.connect("build-finished", book.finished)
    app.connect("build-finished", _ship_plotly)
    return {"version": "1", "parallel_read_safe": False}
