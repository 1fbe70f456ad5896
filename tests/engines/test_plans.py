"""Kept plans: the same key is loaded, anything else is built; no damage on disk gets into an
engine, no full disk stops one."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from lib.engines import plans
from lib.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
KEY = {
    "model": "0123456789abcdef",
    "precision": "int8",
    "framework": "Test 1.0",
    "device": "CPU",
    "options": "[]",
}
DATA = bytes(range(256)) * 40


class Maker:
    """Builds and loads plans, and counts."""

    def __init__(self, data=DATA):
        self.data, self.built, self.loaded = data, 0, []

    def build(self):
        self.built += 1
        return self.data

    def load(self, plan):
        self.loaded.append(plan)
        return f"engine of {len(plan)} bytes"

    def __call__(self, folder, name="search-int8", key=KEY):
        return plans.load_or_build(folder, name, key, self.build, self.load)


@pytest.fixture
def kept(tmp_path):
    """A folder with one plan in it, and that plan's path."""
    Maker()(tmp_path)
    [path] = tmp_path.iterdir()
    return tmp_path, path


def test_a_path_depends_on_every_part_of_the_key_and_not_on_their_order(tmp_path):
    path = plans.plan_path(tmp_path, "search-int8", KEY)
    assert path == plans.plan_path(tmp_path, "search-int8", dict(reversed(list(KEY.items()))))
    assert path.name.startswith("search-int8-") and path.suffix == ".plan"
    others = {plans.plan_path(tmp_path, "search-int8", {**KEY, part: "other"}) for part in KEY}
    assert len(others) == len(KEY) and path not in others


def test_a_plan_of_the_same_key_is_loaded_and_tells_what_its_build_took(kept, capsys):
    folder, path = kept
    first = json.loads(path.read_bytes().split(b"\n", 1)[0])
    maker = Maker(b"not used")
    engine, seconds, size = maker(folder)
    assert engine == f"engine of {len(DATA)} bytes"
    assert (maker.built, maker.loaded) == (0, [DATA])
    assert (seconds, size) == (first["build_seconds"], len(DATA))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("part", list(KEY))
def test_another_model_precision_version_device_or_option_is_another_plan(kept, part):
    folder, path = kept
    before = path.read_bytes()
    maker = Maker(b"another")
    maker(folder, key={**KEY, part: "other"})
    assert maker.built == 1
    assert len(list(folder.iterdir())) == 2
    assert path.read_bytes() == before


def flip(offset):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[offset] ^= 0x10
        path.write_bytes(content)

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        flip(-1),
        flip(-len(DATA)),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes()[:100]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(os.urandom(5000)),
        lambda path: path.write_text("{}\n"),
        lambda path: path.write_text("[1, 2]\n"),
    ],
    ids=["last bit", "first bit", "cut", "cut in the head", "empty", "random", "JSON", "a list"],
)
def test_a_damaged_plan_is_built_again_with_one_line_that_names_it(kept, capsys, damage):
    folder, path = kept
    damage(path)
    maker = Maker()
    engine, _, _ = maker(folder)
    assert (maker.built, maker.loaded) == (1, [DATA])
    assert engine == f"engine of {len(DATA)} bytes"
    said = capsys.readouterr().err
    assert said.startswith(f"{path}: the kept plan cannot be used") and said.count("\n") == 1
    again = Maker(b"not used")
    again(folder)
    assert (again.built, again.loaded) == (0, [DATA])
    assert capsys.readouterr().err == ""


def test_a_plan_renamed_onto_anothers_path_is_not_loaded(tmp_path, capsys):
    other = {**KEY, "precision": "fp32"}
    Maker(b"the plan in FP32")(tmp_path, key=other)
    plans.plan_path(tmp_path, "search-int8", other).rename(
        plans.plan_path(tmp_path, "search-int8", KEY)
    )
    maker = Maker()
    maker(tmp_path)
    assert maker.loaded == [DATA]
    assert "made for another key" in capsys.readouterr().err


def test_a_plan_that_its_framework_refuses_is_built_again(kept, capsys):
    folder, path = kept
    attempts = []

    def load(plan):
        attempts.append(plan)
        if len(attempts) == 1:
            raise RuntimeError("deserialisation failed:\n  version mismatch")
        return "engine"

    engine, _, size = plans.load_or_build(folder, "search-int8", KEY, lambda: b"new plan", load)
    assert (engine, size, attempts) == ("engine", len(b"new plan"), [DATA, b"new plan"])
    assert str(path) in (said := capsys.readouterr().err)
    assert "(deserialisation failed: version mismatch)" in said and said.count("\n") == 1


def test_what_a_new_plan_raises_is_the_callers(tmp_path):
    def refuse(*_):
        raise InputError("this processor has no INT8")

    with pytest.raises(InputError, match="has no INT8"):
        plans.load_or_build(tmp_path, "search-int8", KEY, refuse, refuse)
    assert not list(tmp_path.iterdir())


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        maker = Maker()
        _, _, size = maker(None)
        assert maker.built == 1 and size == len(DATA)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_a_line_and_the_engine_runs(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    engine, _, _ = Maker()(tmp_path / "file" / "plans")
    assert engine == f"engine of {len(DATA)} bytes"
    assert "cannot be written" in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_a_disk_that_fills_up_while_a_plan_is_written_is_a_line_and_leaves_nothing(
    tmp_path, capsys
):
    """The system refuses every byte of a file after the first thousand, as it does when the disk is
    full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        engine, _, _ = Maker()(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert engine == f"engine of {len(DATA)} bytes"
    assert "cannot be written" in (said := capsys.readouterr().err) and said.count("\n") == 1
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from lib.engines import plans
def killed(*paths):
    os.kill(os.getpid(), signal.SIGKILL)
os.replace = killed
plans.load_or_build(Path(sys.argv[1]), "search-int8", {key!r}, lambda: b"half a plan", lambda plan: plan)
"""


def test_a_process_killed_before_its_plan_is_complete_leaves_none_that_is_taken_for_one(
    tmp_path, capsys
):
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(key=KEY), str(tmp_path)], cwd=str(ROOT), check=False
    )
    assert done.returncode == -9
    assert list(tmp_path.iterdir())  # it had written something
    assert not plans.plan_path(tmp_path, "search-int8", KEY).exists()
    maker = Maker()
    maker(tmp_path)
    assert maker.loaded == [DATA]
    assert capsys.readouterr().err == ""
