"""Tables of the chapters as HTML: units in the heads, intervals under the values, and on every row
whose number it is.

A table is a data frame, a list of columns (title, column of the frame, format) and a caption:
`Table.of`. Jupyter shows a `Table` as it is.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from base64 import b64encode
from html import escape
from typing import Any, Callable, Mapping, Sequence, Tuple, TypeVar, cast

import pandas as pd

from lib.measure.runs import Missing, lacking_in, there

ABSENT = "–"
WHOSE = {
    "published": "published",
    "thesis": "thesis",
    "measured": "measured now",
    "recorded": "recorded",
}
View = TypeVar("View", bound=Callable[..., Any])
Column = Tuple[str, str, Any]  # title, column of the frame, format


class Table:
    """Rows of cells; a cell is text, or (text, lines of small text under it). The first column
    names the row.

    A page carries the cells once more as CSV, behind a link that needs no server. plain: the page
    leaves out intervals, which a figure has.
    """

    def __init__(
        self, heads: Sequence[str], rows: Sequence[Sequence[Any]], caption: str, plain: bool = False
    ) -> None:
        self.heads, self.rows, self.caption = list(heads), [list(row) for row in rows], caption
        self.plain = plain

    @classmethod
    def of(
        cls, frame: pd.DataFrame, columns: Sequence[Column], caption: str, plain: bool = False
    ) -> Table:
        """A row per row of the frame, a cell per column (title, column of the frame, format).

        A format is that of a number (".3f"), or a function from a value, or from a tuple's values,
        to a cell. Under a number stands its interval, where the frame has it (`<column>_low`,
        `<column>_high`). Text stays as it is; what is unknown is a dash. The caption names the
        rows that a recorded run lacks (`runs.write_section`).
        """
        rows = [
            [_formatted(row, column, how) for _, column, how in columns]
            for row in frame.to_dict("records")
        ]
        missing = frame.attrs.get("missing")
        note = f" {_missing(missing)}" if missing else ""
        return cls([title for title, *_ in columns], rows, caption + note, plain)

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.heads)
        rows = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        kind = "table cards" if len(self.heads) > 3 else "table"
        data = b64encode(self.csv().encode()).decode()
        link = f'<a download="{_slug(self.caption)}.csv" href="data:text/csv;charset=utf-8;base64,{data}">CSV</a>'
        return (
            f'<figure style="margin: 0"><figcaption style="text-align: left">{escape(self.caption)} {link}</figcaption>'
            f'<div style="overflow-x: auto; font-size: 80%"><table class="{kind}"><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></figure>"
        )

    def _cells(self, row: Sequence[Any]) -> str:
        tags = ('th scope="row"', *["td"] * len(self.heads))
        cells = zip(tags, self.heads, row)
        return "".join(_cell(tag, head, cell, self.plain) for tag, head, cell in cells)

    def _frame(self) -> pd.DataFrame:
        texts = [
            [" ".join(cell).rstrip() if isinstance(cell, tuple) else str(cell) for cell in row]
            for row in self.rows
        ]
        return pd.DataFrame(texts, columns=pd.Index(self.heads))

    def csv(self) -> str:
        """Heads and cells as comma-separated values."""
        return self._frame().to_csv(index=False)

    def __repr__(self) -> str:
        """Plain text, for terminals."""
        return f"{self.caption}\n{self._frame().to_string(index=False)}"


class Text(str):
    """A sentence with numbers in it, which Jupyter shows as Markdown."""

    def _repr_markdown_(self) -> str:
        return str(self)


def source(*functions: Any) -> Text:
    """The code of functions or classes as the library has it: page and library cannot drift apart."""
    code = "\n\n\n".join(textwrap.dedent(inspect.getsource(each)).rstrip() for each in functions)
    return Text(f"```python\n{code}\n```")


# -- Of a run that is not complete -----------------------------------------------------------------


def needs_all(view: View) -> View:
    """A figure or a sentence. If a recorded run lacks anything that it needs, a sentence names that
    instead."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        try:
            lacking = lacking_in(*args, *kwargs.values())
            if lacking:
                raise Missing(lacking)
            return view(*args, **kwargs)
        except Missing as missing:
            return _missing(missing)

    return cast(View, wrapper)


def shows_what_is_there(view: View) -> View:
    """A table of the rows that a recorded run has; its caption names the others. If no row is left,
    or if something else is lacking (what all rows are compared with), a sentence names that
    instead."""
    shown = needs_all(view)

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        table = shown(*map(_left, args), **{name: _left(value) for name, value in kwargs.items()})
        lacking = lacking_in(*args, *kwargs.values())
        if lacking and isinstance(table, Table):
            table.caption += f" {_missing(Missing(lacking))}"
        return table

    return cast(View, wrapper)


def _left(value: Any) -> Any:
    """A list without what is lacking, unless nothing would be left of it."""
    return (there(value) or value) if isinstance(value, (list, tuple)) else value


def _missing(said: object) -> Text:
    return Text(f"Missing here: {said}.")


# -- Cells -----------------------------------------------------------------------------------------


def _formatted(row: Mapping[Any, Any], column: str, how: Any) -> Any:
    value = row.get(column)
    if not is_known(value):
        return ABSENT
    if callable(how):
        return how(*value) if isinstance(value, tuple) else how(value)
    if isinstance(value, tuple):
        return tuple(map(as_text, value))
    if isinstance(value, str):
        return value
    low, high = row.get(f"{column}_low"), row.get(f"{column}_high")
    text = format(value, how)
    return (text, f"{low:{how}}–{high:{how}}") if is_known(low) else text


def _slug(caption: str, words: int = 4) -> str:
    """A file's name from the first words of a caption: "Table 4.2: Engines here" becomes
    "table-4.2-engines-here"."""
    return "-".join(re.findall(r"[\w.]*\w", caption.lower())[:words]) or "table"


def _cell(tag: str, head: str, cell: Any, plain: bool) -> str:
    """tag: of the element. head: of the column; on a phone it stands beside the content, unless
    that is a dash (book.css)."""
    text, *lines = cell if isinstance(cell, tuple) else (cell,)
    under = ""
    for line in filter(None, lines):
        interval = str(line)[0] in "(0123456789"  # stays in one piece
        wrap = "nowrap" if interval else "normal"
        if not (plain and interval):
            under += f'<br><span style="font-size: 90%; font-weight: normal; white-space: {wrap}">{escape(str(line))}</span>'
    kind = ' class="absent"' if text == ABSENT and not under else ""
    width = "8em" if tag != "td" or (lines and not plain) else "0"
    style = f"text-align: left; vertical-align: top; min-width: {width}"
    return (
        f'<{tag}{kind} data-head="{escape(head, quote=True)}" style="{style}">'
        f"<div>{escape(str(text))}{under}</div></{tag[:2]}>"
    )


def is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and value != value)


def as_text(value: Any) -> str:
    return str(value) if is_known(value) else ""


def as_number(value: Any, digits: int) -> str:
    return f"{float(value):.{digits}f}" if is_known(value) else ABSENT


def as_value(row: Mapping[Any, Any], name: str, digits: int) -> tuple[str, str]:
    """A value and what stands under it: as printed for reported rows, with the interval for
    measured ones."""
    value, low, high = (row.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if not is_known(value):
        return ABSENT, ""
    if row.get("row") in ("measured", "recorded") or is_known(low):
        interval = f"{as_number(low, digits)}–{as_number(high, digits)}" if is_known(low) else ""
        return as_number(value, digits), interval
    return f"{value:g}", ""
