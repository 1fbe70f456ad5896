"""Tables of the chapters as HTML: units in the heads, intervals under the values, and on every row
whose number it is.

Views only: they take data frames and evaluations, and format. Jupyter shows a `Table` as it is.
"""

from __future__ import annotations

import functools
import inspect
import re
import textwrap
from base64 import b64encode
from html import escape
from typing import Any, Callable, Mapping, TypeVar, cast
from typing import Sequence as Seq

import numpy as np
import pandas as pd

from lib.measure.absent import Absent, sentences, there
from lib.report import thesis
from lib.vot.dataset import TAGS, Dataset
from lib.vot.metrics import MEASURES, Evaluation, bootstrap

ABSENT = "–"
WHOSE = {
    "published": "published",
    "thesis": "thesis",
    "measured": "measured now",
    "recorded": "recorded",
}
INTERVALS = "Under a value: its 95 % interval over sequences (bootstrap)."
View = TypeVar("View", bound=Callable[..., Any])
NOTES = f"{INTERVALS} In brackets: one more digit, from the thesis author's script. Failures of reported rows follow from R."


class Table:
    """Rows of cells; a cell is text, or (text, lines of small text under it). The first column
    names the row.

    A page carries the cells once more as CSV, behind a link that needs no server.
    """

    def __init__(self, heads: Seq[str], rows: Seq[Seq[Any]], caption: str) -> None:
        self.heads, self.rows, self.caption = list(heads), [list(row) for row in rows], caption

    def _repr_html_(self) -> str:
        heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in self.heads)
        rows = "".join(
            f"<tr>{''.join(_cell(i, cell) for i, cell in enumerate(row))}</tr>" for row in self.rows
        )
        data = b64encode(self.csv().encode()).decode()
        link = f'<a download="{_slug(self.caption)}.csv" href="data:text/csv;charset=utf-8;base64,{data}">CSV</a>'
        return (
            f'<figure style="margin: 0"><figcaption style="text-align: left">{escape(self.caption)} {link}</figcaption>'
            f'<div style="overflow-x: auto; font-size: 80%"><table class="table"><thead><tr>{heads}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div></figure>"
        )

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
    """A figure or a sentence: where any of what it is about is absent, a sentence that says so
    stands in its place."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        missing = sentences(*args, *kwargs.values())
        return _missing(missing) if missing else view(*args, **kwargs)

    return cast(View, wrapper)


def shows_what_is_there(view: View) -> View:
    """A table: rows that are absent are named in its caption; where nothing is left, or what all
    rows are compared with is absent, the sentence stands in its place."""

    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        missing = sentences(*given)
        if not missing:
            return view(*args, **kwargs)
        emptied = [
            value
            for value in given
            if isinstance(value, (list, tuple)) and len(value) and not there(value)
        ]
        if emptied or any(isinstance(value, Absent) for value in given):
            return _missing(missing)
        table = view(*map(there, args), **{name: there(value) for name, value in kwargs.items()})
        table.caption += f" {_missing(missing)}"
        return table

    return cast(View, wrapper)


def _missing(said: list[str]) -> Text:
    return Text(f"Missing here: {'; '.join(said)}.")


# -- Tables of several chapters --------------------------------------------------------------------


@shows_what_is_there
def results(frames: Seq[pd.DataFrame], caption: str, digits: pd.DataFrame | None = None) -> Table:
    """Table 4.1 and its like: accuracy A, robustness R, EAO and speed; one row a tracker.

    frames: columns of `data/thesis/table_4_1.csv`, more where measured
    (`measurement.Measurement.row`). digits: rows of the thesis with one more digit
    (data/thesis/digits.csv), shown in brackets on its own row.
    """
    heads = [
        "Whose number",
        "Machine, data",
        "A",
        "R, failures per 100 frames",
        "EAO",
        "FPS, PySOT's scheme",
        "FPS, tracked frames",
    ]
    rows = []
    for row in (row for frame in frames for row in frame.to_dict("records")):
        more = {} if digits is None or row["row"] != "thesis" else digits.iloc[0].to_dict()
        tracker = " ".join(
            filter(None, (as_text(row.get(key)) for key in ("framework", "precision", "network")))
        )
        rows.append(
            [
                (WHOSE[str(row["row"])], tracker),
                (as_text(row.get("hardware")), as_text(row.get("dataset")) or "VOT2018"),
                as_value(row, "accuracy", 3, more),
                (*as_value(row, "robustness", 3, more), _failures(row)),
                as_value(row, "eao", 3, more),
                as_value(row, "fps", 1, more),
                as_value(row, "fps_tracked", 1, more),
            ]
        )
    missing = [sentence for frame in frames for sentence in frame.attrs.get("absent", ())]
    return Table(
        heads, rows, caption + "".join(f" Missing here: {sentence}." for sentence in missing)
    )


@shows_what_is_there
def per_sequence(dataset: Dataset, evaluation: Evaluation, caption: str) -> Table:
    """A row a sequence: frames, failures, accuracy; those with most failures first."""
    rows = []
    for name, scores in sorted(
        evaluation.per_sequence().items(), key=lambda item: (-item[1]["failures"], item[0])
    ):
        sequence = dataset[name]
        rows.append(
            [
                (name, f"{sequence.width} × {sequence.height} px"),
                len(sequence),
                f"{scores['failures']:g}",
                as_number(scores["accuracy"], 3),
            ]
        )
    return Table(["Sequence", "Frames", "Failures", "Accuracy A"], rows, caption)


@needs_all
def protocol(evaluation: Evaluation) -> Text:
    """The protocol's numbers in a sentence."""
    rules, (low, high) = evaluation.protocol, evaluation.eao_interval
    source = (
        "the protocol's for VOT2018"
        if evaluation.eao_from == "protocol"
        else "found from the lengths of the sequences"
    )
    return Text(
        f"Here: a failure is an overlap of {rules.failure_overlap:g}, the new start comes {rules.skip} frames later, "
        f"accuracy leaves out {rules.burn_in} frames from every start, and EAO averages over {low} to {high} frames "
        f"({source})."
    )


def dataset(dataset: Dataset, caption: str) -> Table:
    """A row a sequence, and one for all: frames, and the share of frames that carry each visual
    attribute."""

    def row(name: str, size: str, tags: np.ndarray) -> list[Any]:
        return [
            (name, size),
            tags.shape[1],
            *(f"{100 * share:.0f} %" if share else ABSENT for share in tags.mean(1)),
        ]

    tags = [np.array([sequence.tags[tag] for tag in TAGS]) for sequence in dataset]
    rows = [row(s.name, f"{s.width} × {s.height} px", flags) for s, flags in zip(dataset, tags)]
    total = row("all", f"{len(dataset)} sequences", np.concatenate(tags, 1))
    return Table(
        ["Sequence", "Frames", *(tag.replace("_", " ").capitalize() for tag in TAGS)],
        [*rows, total],
        caption,
    )


@needs_all
def rules(evaluations: Mapping[str, Evaluation], caption: str) -> Table:
    """The same raw results counted by different rules: a row each."""
    rows = []
    for name, evaluation in evaluations.items():
        intervals = bootstrap(evaluation)
        row = {measure: getattr(evaluation, measure) for measure in MEASURES}
        row.update(
            {
                f"{m}_{end}": value
                for m in MEASURES
                for end, value in zip(("low", "high"), intervals[m])
            }
        )
        low, high = evaluation.eao_interval
        rows.append(
            [
                name,
                as_value(row, "accuracy", 3),
                (*as_value(row, "robustness", 3), _failures(row)),
                as_value(row, "eao", 3),
                f"{low}–{high} frames",
            ]
        )
    return Table(["Rules", "A", "R, failures per 100 frames", "EAO", "EAO over"], rows, caption)


def steps(rows: pd.DataFrame, caption: str) -> Table:
    """Average overlap after each step of making the demo model (data/demo/steps.csv), sequence by
    sequence."""
    others = ("step", "parameters", "penalty", "window", "rate", "held_out", "mean")
    sequences = [name for name in rows.columns if name not in others]
    heads = ["Step", "Mean of the four", *sequences, "Held-out sequences"]
    cells = [
        [
            (
                str(row["step"]),
                f"penalty {row['penalty']:g}, window {row['window']:g}, rate {row['rate']:g}",
            ),
            *(as_number(row[name], 3) for name in ("mean", *sequences, "held_out")),
        ]
        for row in rows.to_dict("records")
    ]
    return Table(heads, cells, caption)


def _slug(caption: str, words: int = 4) -> str:
    """A file's name from the first words of a caption: "Table 4.2: Engines here" becomes
    "table-4.2-engines-here"."""
    return "-".join(re.findall(r"[\w.]*\w", caption.lower())[:words]) or "table"


def _cell(column: int, cell: Any) -> str:
    text, *lines = cell if isinstance(cell, tuple) else (cell,)
    under = ""
    for line in filter(None, lines):
        # An interval stays in one piece
        wrap = "nowrap" if str(line)[0] in "(0123456789" else "normal"
        under += f'<br><span style="font-size: 90%; font-weight: normal; white-space: {wrap}">{escape(str(line))}</span>'
    tag, width = (
        ('th scope="row"', "8em")
        if column == 0
        else ("td", "8em" if column == 1 and lines else "0")
    )
    style = f"text-align: left; vertical-align: top; min-width: {width}"
    return f'<{tag} style="{style}">{escape(str(text))}{under}</{tag[:2]}>'


def is_known(value: Any) -> bool:
    return value is not None and not (isinstance(value, float) and value != value)


def as_text(value: Any) -> str:
    return str(value) if is_known(value) else ""


def as_number(value: Any, digits: int) -> str:
    return f"{float(value):.{digits}f}" if is_known(value) else ABSENT


def as_value(
    row: Mapping[Any, Any], name: str, digits: int, more: Mapping[Any, Any] | None = None
) -> tuple[str, str]:
    """A value and what stands under it: as printed for reported rows, with the interval for
    measured ones."""
    value = row.get(name)
    if not is_known(value):
        return ABSENT, ""
    if row.get("row") in ("measured", "recorded") or is_known(row.get(f"{name}_low")):
        low, high = row.get(f"{name}_low"), row.get(f"{name}_high")
        return as_number(
            value, digits
        ), f"{as_number(low, digits)}–{as_number(high, digits)}" if is_known(low) else ""
    finer = (more or {}).get(name, value)
    return f"{value:g}", f"({finer:g})" if finer != value else ""


def _failures(row: Mapping[Any, Any]) -> str:
    """Counted, or what the reported robustness leaves as the only possibility on VOT2018; empty
    where unknown."""
    if is_known(row.get("failures")):
        return f"{as_number(row['failures'], 0)} failures"
    possible = thesis.failures(row["robustness"]) if is_known(row.get("robustness")) else []
    return f"{possible[0]} failures" if len(possible) == 1 else ""
