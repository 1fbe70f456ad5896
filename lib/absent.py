"""What a recorded run does not hold, in the place of what it would have held (`lib.runs`).

A page is written for a complete run. Where one that was recorded on another machine lacks a part, which then cannot be measured
here, an `Absent` takes the place of the measurement, and the views (`needs_all`, `shows_what_is_there`) say so in its place.
"""
from __future__ import annotations

import functools
from typing import Any, Callable, Iterator, TypeVar, cast

View = TypeVar("View", bound=Callable[..., Any])


class Absent:
    """One sentence. Everything that is asked of it is absent, too, for the same reason; as text it is the sentence.

    known: what is known all the same, e.g. `variant`.
    """

    def __init__(self, sentence: str, **known: Any) -> None:
        self._sentence, self._known = sentence, known

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
        return self._sentence

    def __format__(self, how: str) -> str:
        return "–" if how else self._sentence  # a number in a sentence, or the sentence itself

    def __repr__(self) -> str:
        return f"Absent({self._sentence!r})"


def sentences(*values: Any) -> list[str]:
    """Why things are absent: those given, and those in lists and dicts that are given; each sentence once."""
    def every() -> Iterator[Any]:
        for value in values:
            yield from value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else [value]

    return list(dict.fromkeys(str(value) for value in every() if isinstance(value, Absent)))


def there(values: Any) -> Any:
    """A list without what is absent; anything else as it is."""
    return [value for value in values if not isinstance(value, Absent)] if isinstance(values, (list, tuple)) else values


def needs_all(view: View) -> View:
    """A figure or a sentence: where any of what it is about is absent, a sentence that says so stands in its place."""
    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        missing = sentences(*args, *kwargs.values())
        return _text(missing) if missing else view(*args, **kwargs)

    return cast(View, wrapper)


def shows_what_is_there(view: View) -> View:
    """A table: rows that are absent are named in its caption; where nothing is left, or what all rows are compared with is
    absent, the sentence stands in its place."""
    @functools.wraps(view)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        missing = sentences(*given)
        if not missing:
            return view(*args, **kwargs)
        emptied = [value for value in given if isinstance(value, (list, tuple)) and len(value) and not there(value)]
        if emptied or any(isinstance(value, Absent) for value in given):
            return _text(missing)
        table = view(*map(there, args), **{name: there(value) for name, value in kwargs.items()})
        table.caption += f" {_text(missing)}"
        return table

    return cast(View, wrapper)


def _text(missing: list[str]) -> Any:
    from lib.tables import Text  # which uses this module

    return Text(f"Missing here: {'; '.join(missing)}.")
