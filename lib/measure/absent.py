"""What a recorded run does not hold, in the place of what it would have held (`lib.measure.runs`).

A page is written for a complete run. Where one that was recorded on another machine lacks a part,
which then cannot be measured here, an `Absent` takes the place of the measurement, and the pages
say so (`report.tables.needs_all`, `shows_what_is_there`).
"""

from __future__ import annotations

from typing import Any, Iterator

NAMED = 3  # of many things that are absent


class Absent:
    """What is absent, and the run that does not have it, in words. Everything that is asked of it
    is absent, too, for the same reason; as text it is a sentence without its full stop.

    known: what is known all the same, e.g. `variant`.
    """

    def __init__(self, what: str, run: str, **known: Any) -> None:
        self._what, self._run, self._known = what, run, known

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # Jupyter asks for many such, and so do copy and pickle
            raise AttributeError(name)
        return self._known.get(name, self)

    def __call__(self, *_: Any, **__: Any) -> Absent:
        return self

    def __getitem__(self, key: Any) -> Absent:
        return self

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __str__(self) -> str:
        return _say(self._run, [self._what])

    def __format__(self, how: str) -> str:
        return "–" if how else str(self)  # a number in a sentence, or the sentence itself

    def __repr__(self) -> str:
        return f"Absent({self._what!r}, {self._run!r})"


def _say(run: str, whats: list[str]) -> str:
    more = f" and {len(whats) - NAMED} more" if len(whats) > NAMED else ""
    return f"{run} does not have {'; '.join(whats[:NAMED])}{more}, and is only read here"


def sentences(*values: Any) -> list[str]:
    """What is absent of the things given and of lists and dicts that are given: a sentence a run,
    without its full stop."""

    def every() -> Iterator[Any]:
        for value in values:
            yield from (
                value.values()
                if isinstance(value, dict)
                else value
                if isinstance(value, (list, tuple))
                else [value]
            )

    lacking: dict[str, dict[str, None]] = {}
    for value in every():
        if isinstance(value, Absent):
            lacking.setdefault(value._run, {})[value._what] = None
    return [_say(run, list(whats)) for run, whats in lacking.items()]


def there(values: Any) -> Any:
    """A list without what is absent; anything else as it is."""
    return (
        [value for value in values if not isinstance(value, Absent)]
        if isinstance(values, (list, tuple))
        else values
    )
