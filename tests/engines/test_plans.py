"""The plan cache: the same key is loaded, and whatever else lies there is built again with a line that says why."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from lib.engines.plans import digest, digest_file, load_or_build, plan_path

KEY = {"model": "0123456789abcdef", "precision": "fp32", "framework": "Loom 1.2", "device": "Board", "options": "[]"}
CONTENTS = bytes(range(256)) * 20


class Builder:
    """Counts what a framework is asked for; a plan's engine is its contents."""

    def __init__(self, data: bytes = CONTENTS) -> None:
        self.data, self.built = data, 0

    def build(self) -> bytes:
        self.built += 1
        return self.data

    def get(self, folder, key=KEY, name="search-fp32", load=bytes):
        return load_or_build(folder, name, key, self.build, load)


@pytest.fixture
def builder():
    return Builder()


@pytest.fixture
def plan(builder, tmp_path) -> Path:
    """A plan that was kept."""
    builder.get(tmp_path)
    return plan_path(tmp_path, "search-fp32", KEY)


def test_the_same_key_is_built_once_and_then_loaded_with_what_its_build_took(builder, tmp_path, capsys):
    first, built = builder.get(tmp_path / "new" / "folder")
    again, kept = builder.get(tmp_path / "new" / "folder")
    assert (first, again, builder.built) == (CONTENTS, CONTENTS, 1)
    assert (built.cached, kept.cached) == (False, True)
    assert kept.build_seconds == built.build_seconds
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("part", KEY)
def test_another_model_precision_framework_device_or_option_is_another_file(builder, plan, tmp_path, part):
    other = Builder(b"other")
    assert other.get(tmp_path, {**KEY, part: "another"})[0] == b"other"
    assert builder.get(tmp_path)[0] == CONTENTS
    assert (builder.built, other.built, len(list(tmp_path.glob("*.plan")))) == (1, 1, 2)


def test_the_order_of_a_key_decides_nothing(builder, plan, tmp_path):
    assert builder.get(tmp_path, dict(reversed(list(KEY.items()))))[1].cached


def without(line, part):
    head = json.loads(line)
    del head[part]
    return json.dumps(head).encode()


def flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 4]) + data[position + 1:]


@pytest.mark.parametrize("damage, why", [
    (lambda data: flipped(data, len(data) - 100), "it is damaged: its checksum differs"),
    (lambda data: flipped(data, data.index(b"\n") + 1), "it is damaged: its checksum differs"),
    (lambda data: data[:-1], "it has 5119 bytes of 5120"),
    (lambda data: data + b"\0", "it has 5121 bytes of 5120"),
    (lambda data: data[:data.index(b"\n") + 1], "it has 0 bytes of 5120"),
    (lambda data: data[:40], "it is no plan of this project"),
    (lambda data: b"", "it is no plan of this project"),
    (lambda data: b"a text of somebody else's\n", "it is no plan of this project"),
    (lambda data: b"[1, 2]\n" + CONTENTS, "it is no plan of this project"),
    (lambda data: "Gr\xfc\xdfe".encode("latin-1") + CONTENTS, "it is no plan of this project"),
    (lambda data: without(data[:data.index(b"\n")], "sha256") + data[data.index(b"\n"):], "it is no plan of this project"),
], ids=["last bits", "first bits", "cut short", "longer", "head alone", "half head", "empty", "text", "list", "latin", "no sum"])
def test_a_damaged_or_foreign_plan_is_built_again_with_a_line_that_says_why(builder, plan, tmp_path, capsys, damage, why):
    good = plan.read_bytes()
    plan.write_bytes(damage(good))
    engine, found = builder.get(tmp_path)
    assert (engine, found.cached, builder.built) == (CONTENTS, False, 2)
    [line] = capsys.readouterr().err.splitlines()
    assert line == f"{plan}: built again, because the plan kept there cannot be used ({why})"
    assert builder.get(tmp_path)[1].cached  # and the good one is kept in its place
    assert capsys.readouterr().err == ""


def test_a_plan_copied_over_anothers_path_is_not_used(builder, plan, tmp_path, capsys):
    key = {**KEY, "precision": "int8", "model": "fedcba9876543210"}
    other = Builder(b"other")
    other.get(tmp_path, key)
    shutil.copy(str(plan), str(plan_path(tmp_path, "search-fp32", key)))
    assert other.get(tmp_path, key)[0] == b"other"
    assert "it was made for another model, precision)" in capsys.readouterr().err


def test_a_plan_of_a_format_without_this_key_is_not_used(builder, plan, tmp_path, capsys):
    head, _, data = plan.read_bytes().partition(b"\n")
    plan.write_bytes(json.dumps({**json.loads(head), "key": [1]}).encode() + b"\n" + data)
    assert builder.get(tmp_path)[0] == CONTENTS
    assert "built again" in capsys.readouterr().err


def test_a_plan_that_the_framework_refuses_is_built_again(builder, plan, tmp_path, capsys):
    refusals = [RuntimeError("made by\n  another version")]

    def load(data):
        if refusals:
            raise refusals.pop()
        return data

    assert builder.get(tmp_path, load=load)[0] == CONTENTS
    assert builder.built == 2
    assert "cannot be used (made by another version)" in capsys.readouterr().err


def test_what_a_framework_says_to_a_new_plan_is_the_callers(builder, tmp_path):
    def load(data):
        raise RuntimeError("no such device")

    with pytest.raises(RuntimeError, match="no such device"):
        builder.get(tmp_path, load=load)


@pytest.mark.parametrize("hinder", [
    lambda folder: folder.write_text("a file where the folder should be"),
    lambda folder: plan_path(folder, "search-fp32", KEY).mkdir(parents=True),
], ids=["a file in the way", "a folder in the way"])
def test_where_nothing_can_be_kept_the_engine_runs_with_a_line(builder, tmp_path, capsys, hinder):
    hinder(tmp_path / "plans")
    assert builder.get(tmp_path / "plans")[0] == CONTENTS
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert line.endswith("; the engine runs all the same and will be built again next time")


def test_a_full_disk_leaves_no_half_a_plan(builder, tmp_path, capsys, monkeypatch):
    def full(self, data):
        with open(self, "wb") as stream:
            stream.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    assert builder.get(tmp_path)[0] == CONTENTS
    assert "cannot be written (No space left on device); the engine runs all the same" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_nothing_is_kept(builder):
    assert builder.get(None)[0] == builder.get(None)[0] == CONTENTS
    assert builder.built == 2


def test_a_files_digest_is_that_of_its_contents(tmp_path):
    (tmp_path / "model").write_bytes(CONTENTS * 500)  # more than one piece
    assert digest_file(tmp_path / "model") == digest(CONTENTS * 500)
    assert digest(b"") == "e3b0c44298fc1c14"  # SHA-256 of nothing, FIPS 180-4
