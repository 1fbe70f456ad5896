"""Training configurations: YAML to frozen dataclasses, strictly."""

from __future__ import annotations

from dataclasses import fields
from math import isfinite
from pathlib import Path
from typing import Any, Dict, Mapping, Type, TypeVar, Union

import yaml

from lib.errors import InputError

T = TypeVar("T")


def build(kind: Type[T], data: Any, source: object) -> T:
    """A frozen dataclass from plain data, unknown keys refused."""
    if not isinstance(data, Mapping):
        raise InputError(f"{source}: {kind.__name__} should be a list of keys and values")
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - known)
    if unknown:
        raise InputError(
            f"{source}: unknown key {unknown[0]!r} (known: {', '.join(sorted(known))})"
        )
    defaults = {f.name: f.default for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in data.items():
        like = defaults[key]
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
        if isinstance(like, (bool, str)):
            good = isinstance(value, type(like))
        elif isinstance(like, (int, float)):
            good = number and value >= 0 and (isinstance(like, float) or isinstance(value, int))
        else:
            good = not isinstance(like, tuple) or isinstance(value, list)
        if not good:
            raise InputError(f"{source}: {key} cannot be {value!r}")
    try:
        return kind(
            **{
                key: tuple(value) if isinstance(value, list) else value
                for key, value in data.items()
            }
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{source}: {error}") from None


def read_yaml(path: Union[str, Path]) -> Dict[str, Any]:
    """The keys and values of a YAML file. Raises InputError for what is not readable."""
    try:
        data = yaml.safe_load(Path(path).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(
            f"{path}: not a readable training configuration ({' '.join(str(error).split())})"
        ) from None
    return data if isinstance(data, dict) else {}
