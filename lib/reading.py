"""Text, YAML and JSON that people and other programs wrote. What cannot be read, or cannot be
meant, is one sentence that names the file."""

from __future__ import annotations

import codecs
import json
import re
from pathlib import Path
from typing import Any, Dict, Hashable, List, Tuple, Union

import yaml

from lib.errors import InputError

LARGEST = 1e18  # no number in any file here is as large


def read_bytes(path: Union[str, Path]) -> bytes:
    """A file's content. Raises InputError where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {reason}.") from None


def read_text(path: Union[str, Path]) -> str:
    """A text file's content: UTF-8, with or without byte order mark, or UTF-16 as Windows writes
    it. Raises InputError."""
    data = read_bytes(path)
    wide = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    try:
        return data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path} cannot be read: not a text file.") from None


def read_mapping(path: Union[str, Path]) -> Dict[str, Any]:
    """The keys and values of a YAML or JSON file (`parse_data`)."""
    data = parse_data(read_text(path), path)
    if not isinstance(data, dict):
        raise InputError(f"{path}: not readable (keys and values, `name: value`, are needed).")
    return data


def parse_data(text: str, source: Union[str, Path]) -> Any:
    """Plain data from JSON (where `source` is named so) or YAML. Keys are text and occur once; 1e-3
    is a number, and none is infinite or huge; nothing contains itself. Raises InputError."""
    try:
        if str(source).endswith(".json"):
            data = json.loads(text, object_pairs_hook=_mapping)
        else:
            data = yaml.load(text, _Yaml)
        _check_numbers(data)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "nested too deeply" if deep else " ".join(str(error).split())
        raise InputError(f"{source}: not readable ({reason}).") from None
    return data


class _Yaml(yaml.SafeLoader):
    """YAML without aliases, by which a value can contain itself."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ValueError("aliases, *name, are not read here")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Dict[Hashable, Any]:
        return _mapping(self.construct_pairs(node, deep=True))


# YAML 1.1 takes 1e-3, a number without a point, for text
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _mapping(pairs: List[Tuple[Any, Any]]) -> Dict[Any, Any]:
    found = dict(pairs)
    odd = [key for key in found if not isinstance(key, str)]
    if odd or len(found) < len(pairs):
        raise ValueError(f"the key {odd[0]!r} is no text" if odd else "a key occurs twice")
    return found


def _check_numbers(data: Any) -> None:
    waiting = [data]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (dict, list)):
            waiting.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, (int, float)) and abs(value) > LARGEST:
            raise ValueError("a number is infinite or huge")
