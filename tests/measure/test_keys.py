"""Staleness: whatever could change a result changes its key, and nothing that only shows results
does."""

from __future__ import annotations

import ast
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

import numpy as np
import pytest

from lib.engines.deploy import Quantisation
from lib.errors import InputError
from lib.files import ROOT
from lib.measure import keys
from lib.measure.variants import Variant, mixture
from lib.siamrpn.tracker import TrackerConfig
from lib.vot.dataset import load_dataset
from lib.vot.protocol import PYSOT, TOOLKIT

from .helpers import save_tiny

ABOVE = ("book", "cli.py", "options.py", "report")  # what shows measurements
LIB = ROOT / "lib"
PARTS = sorted({path.relative_to(LIB).parts[0] for path in LIB.rglob("*.py")})
BELOW = [part for part in PARTS if part not in ABOVE]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(LIB, root / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    return root


def edited(part: Path) -> Iterator[Tuple[Path, str]]:
    """Files of a package, or a module, each with the text that it has after one of its constants
    was edited."""
    for path in [part] if part.is_file() else sorted(part.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        place = _constant(text)
        if place:
            lines: List[bytes] = text.encode().splitlines(keepends=True)
            line, begin, end = place
            lines[line] = lines[line][:begin] + b"12345" + lines[line][end:]
            yield path, b"".join(lines).decode()


def _constant(text: str) -> Optional[Tuple[int, int, int]]:
    """Line, begin and end (bytes) of the first number, or else of the first text that is no
    docstring."""
    tree = ast.parse(text)
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inside = [
        part
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
    ]
    texts.update(map(id, inside))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    found = [node for node in found if id(node) not in texts and node.lineno == node.end_lineno]
    numbers = [node for node in found if type(node.value) in (int, float)]
    for node in [*numbers, *(node for node in found if isinstance(node.value, str))]:
        return node.lineno - 1, node.col_offset, int(node.end_col_offset or 0)
    return None


def digest_with(copy: Path, path: Path, text: str) -> str:
    before = path.read_text(encoding="utf-8")
    try:
        path.write_text(text, encoding="utf-8")
        return keys.code_digest(copy)
    finally:
        path.write_text(before, encoding="utf-8")


@pytest.mark.parametrize("part", [part for part in BELOW if part != "__init__.py"])
def test_a_constant_edited_below_measuring_changes_the_key(part: str, copy: Path) -> None:
    before = keys.code_digest(copy)
    files = list(edited(copy / "lib" / part))
    assert files or part in ("errors.py",), "nothing to edit"
    for path, text in files[:1]:
        assert digest_with(copy, path, text) != before, path
    assert keys.code_digest(copy) == before


@pytest.mark.parametrize("part", ABOVE)
def test_editing_what_shows_measurements_changes_no_key(part: str, copy: Path) -> None:
    before = keys.code_digest(copy)
    path, text = next(edited(copy / "lib" / part))
    assert digest_with(copy, path, text) == before


def test_editing_a_recipe_changes_the_key_and_a_comment_does_not(copy: Path) -> None:
    before, path = keys.code_digest(copy), copy / "lib" / "engines" / "deploy.py"
    text = path.read_text(encoding="utf-8")
    recipe = text.replace('"misbound": Recipe((), "misbound")', '"misbound": Recipe((), "own")')
    assert recipe != text
    assert digest_with(copy, path, recipe) != before
    assert digest_with(copy, path, text.replace("\n\n\n", "\n\n# A comment.\n\n")) == before


def test_a_module_that_comes_or_goes_changes_the_key(copy: Path) -> None:
    before, path = keys.code_digest(copy), copy / "lib" / "vot" / "another.py"
    path.write_text("")
    try:
        assert keys.code_digest(copy) != before
    finally:
        path.unlink()
    assert keys.code_digest(copy) == before == keys.code_digest(), "the copy is the repository's"


def test_a_datasets_key_is_in_its_boxes_and_the_bytes_of_its_frames(patches: Path) -> None:
    data = load_dataset(patches)
    before = keys.dataset_digest(data)
    assert keys.dataset_digest(load_dataset(patches)) == before
    video = data.sequences[1]
    moved = (*video.regions[:3], video.regions[3] + np.array([0, 0.01, 0, 0]), *video.regions[4:])
    others = (data.sequences[0], replace(video, regions=moved), data.sequences[2])
    assert keys.dataset_digest(replace(data, sequences=others)) != before
    frame = video.frames[5]
    frame.write_bytes(frame.read_bytes() + b"\0")
    assert keys.dataset_digest(data) != before
    frame.unlink()
    with pytest.raises(InputError, match=r"Frame .*00000006\.png cannot be read"):
        keys.dataset_digest(data)
    away = replace(data, sequences=(replace(video, frames=()),))
    with pytest.raises(InputError, match="the frames of 'second' are not there"):
        keys.dataset_digest(away)


def test_what_decides_a_result_is_named_part_by_part(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    own = tmp_path / "own.pth"
    own.write_bytes(weights.read_bytes())

    def decided(how: str = "training", protocol: object = PYSOT, alone: bool = False) -> dict:
        one = mixture(str(own), "openvino", ["int8"] * 3, Quantisation(how))
        return keys.decided_by(one, "contents", protocol, alone)  # type: ignore[arg-type]

    def changed(other: dict) -> set:
        return {name for name in before if before[name] != other[name]}

    before = decided()
    assert changed(decided()) == set()
    assert changed(decided("benchmark")) == {"quantisation"}
    assert changed(decided(protocol=TOOLKIT)) == {"protocol"}
    late = replace(PYSOT, late_failures=True, burn_in=0)
    assert changed(decided(protocol=late)) == set(), "counted otherwise, tracked the same"
    assert changed(decided(alone=True)) == {"timed", "machine"}
    (tmp_path / "own.calibration.csv").write_text("ranges")
    assert changed(decided()) == {"quantisation"}, "ranges beside the weights count"
    (tmp_path / "own.calibration.csv").unlink()
    save_tiny(own, seed=1)
    assert changed(decided()) == {"weights"}
    own.write_bytes(weights.read_bytes())
    (tmp_path / "tracker.yaml").write_text("window: 0.3\n")
    assert changed(decided()) == {"tracker"}
    (tmp_path / "tracker.yaml").unlink()
    monkeypatch.setattr(keys, "CODE", "edited")
    assert changed(decided()) == {"code"}
    monkeypatch.undo()
    threads = {"threads": 99, "processor": "abacus"}
    hardware = keys.environment.hardware
    monkeypatch.setattr(keys.environment, "hardware", lambda on: {**hardware(on), **threads})
    assert changed(decided()) == {"machine"}
    plain = Variant("x", str(own))
    assert keys.decided_by(plain, "", PYSOT, False)["quantisation"] == ""
    assert keys.settings(plain) == TrackerConfig()
