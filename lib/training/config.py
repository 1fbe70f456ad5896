"""Training configurations: YAML to frozen dataclasses, checked against their annotations."""

from __future__ import annotations

from dataclasses import is_dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Mapping, Optional, Type, TypeVar, Union, get_type_hints

from lib.errors import InputError
from lib.reading import read_mapping

T = TypeVar("T")
# What is more would take all of a machine before it is noticed
MOST = {"workers": 256, "size": 1024, "batch_size": 65536, "seed": 2**32 - 1}


def read_config(
    kind: Type[T], path: Union[str, Path], overrides: Optional[Mapping[str, Any]] = None
) -> T:
    """Read a dataclass from a YAML file. Unknown keys and impossible values raise InputError."""
    return _build(kind, {**read_mapping(path), **(overrides or {})}, path)


def _build(kind: Type[T], data: Any, source: object) -> T:
    """A dataclass from plain data; nested dataclasses are built from their mappings."""
    if not isinstance(data, Mapping):
        raise InputError(f"{source}: {kind.__name__} should be a list of keys and values")
    hints = get_type_hints(kind)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise InputError(
            f"{source}: unknown key {unknown[0]!r} (known: {', '.join(sorted(hints))})"
        )
    values = {key: _value(hints[key], key, value, source) for key, value in data.items()}
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: {error}") from None


def _value(hint: Any, key: str, value: Any, source: object) -> Any:
    """A value of the annotated type: numbers are finite and at least 0, lists become tuples."""
    origin, inner = getattr(hint, "__origin__", None), list(getattr(hint, "__args__", ()))
    if is_dataclass(hint):
        return _build(hint, value, source)  # type: ignore[arg-type]
    if origin is tuple and isinstance(value, list):
        return tuple(_value(inner[0], key, one, source) for one in value)
    if origin is dict and isinstance(value, dict):
        return {name: _value(inner[1], key, one, source) for name, one in value.items()}
    if origin is Union:  # Optional
        return value if value is None else _value(inner[0], key, value, source)
    if hint in (int, float):
        number = isinstance(value, (int, hint)) and not isinstance(value, bool)
        fits = number and isfinite(value) and 0 <= value <= MOST.get(key, value)
    else:
        fits = origin is None and isinstance(value, hint)
    if not fits:
        raise InputError(f"{source}: {key} cannot be {value!r}")
    return value
