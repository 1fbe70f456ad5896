"""Malformed input of every kind for every command: exit status 2, one sentence that names the file,
nothing written, nothing else said. The kinds are those of ../shared/review/trial.md."""

from __future__ import annotations

import json
import os
import signal
import zlib
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Union

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lib.cli import main  # noqa: E402
from lib.siamrpn.checkpoint import save_weights  # noqa: E402
from lib.siamrpn.network import NetworkConfig, SiamRPN  # noqa: E402

SECONDS = 60  # a command that takes longer has accepted what it should not
Content = Union[str, bytes, Callable[[Path], None], None]


class Case(NamedTuple):
    """`{base}` in arguments is the folder of sound files, `{bad}` the malformed file."""

    id: str
    arguments: str
    file: str  # its name
    content: Content  # None: it is not there
    word: str = ""  # in the sentence, in place of the file's name


class TooLong(BaseException):
    """Not an Exception: the command line must not make a sentence of it."""


# -- Sound files -----------------------------------------------------------------------------------

TRAINING = """
data: {base}/train
phases: [{pairs: 8, search_size: 191}]
width: 0.125
batch_size: 4
workers: 0
average: 0
"""
HEAD = "data: generated\npictures: 8\nbatch_size: 4\nvalidation: 4\nsize: 63\nworkers: 0\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    rng = np.random.RandomState(0)
    for name in ("walk/img", "train"):
        (folder / name).mkdir(parents=True)
        for number in (1, 2, 3):
            image = rng.randint(0, 256, (96, 128, 3), np.uint8)
            cv2.imwrite(str(folder / name / f"{number:04d}.jpg"), image)
    (folder / "walk" / "groundtruth_rect.txt").write_text("30,30,24,24\n" * 3)
    entries = [
        {"file": f"{n:04d}.jpg", "boxes": [[30, 30, 24, 24]], "sequence": "walk", "frame": n}
        for n in (1, 2, 3)
    ]
    (folder / "train" / "manifest.json").write_text(json.dumps(entries))
    (folder / "train.yaml").write_text(TRAINING.replace("{base}", str(folder)))
    (folder / "head.yaml").write_text(HEAD)
    torch.manual_seed(0)
    save_weights(folder / "w.pth", SiamRPN(NetworkConfig.resnet50(0.125)).state_dict())
    (folder / "tracker.yaml").write_text("penalty: 0.1\n")
    return folder


# -- Commands, and which of their arguments is a file ----------------------------------------------

SOUND = {  # all but for the scores, which are not there
    "track": "track {base}/walk --init 30,30,24,24 --frames 2 --weights {base}/w.pth --out out",
    "evaluate": "evaluate --dataset {base}/walk --weights {base}/w.pth",
    "export": "export --weights {base}/w.pth --out out",
    "calibrate": "calibrate {base}/walk --weights {base}/w.pth --out out",
    "train": "train {base}/train.yaml --out out",
    "tune": "tune {base}/train.yaml --weights {base}/w.pth --out out",
    "cut": "prune cut --scores s.csv --parameters 0.5 --weights {base}/w.pth --out out",
    "score": "prune score {base}/head.yaml --quick --weights {base}/w.pth --out out",
    "head": "prune head {base}/head.yaml --weights {base}/w.pth --out out",
    "recalibrate": "prune recalibrate {base}/train.yaml --weights {base}/w.pth --out out",
}


def with_bad(sound: str, *commands: str) -> Dict[str, str]:
    """These commands, or all that have it, with the malformed file in the place of a sound one."""
    chosen = commands or [name for name, text in SOUND.items() if sound in text]
    return {name: SOUND[name].replace(sound, "{bad}") for name in chosen}


WEIGHTS = {**with_bad("{base}/w.pth"), "train": SOUND["train"] + " --initial {bad}"}
del WEIGHTS["tune"]  # which first says that the training holds out no sequence
YAMLS = {
    **with_bad("{base}/train.yaml", "train", "tune"),
    **with_bad("{base}/head.yaml", "head", "score"),
    **with_bad("{base}/walk", "calibrate"),
    "settings": SOUND["track"] + " --settings {bad}",
    "run": "run --profile {bad} --only zz",
    "measure": "measure --profile {bad}",
}
JSONS = {
    "evaluate": "evaluate {base} --dataset {bad}",
    "manifest": SOUND["train"] + " --data {bad}",
    "fetch": "fetch vot2018 to --source {bad}",
}
OTHERS = {
    "source": "track {bad} --init 1,1,9,9 --out out",
    "dataset": "evaluate --dataset {bad}",
    "results": "evaluate {bad} --dataset {base}/walk",
    "backbone": SOUND["train"] + " --backbone {bad}",
    "data": SOUND["train"] + " --data {bad}",
    "scores": SOUND["cut"].replace("s.csv", "{bad}"),
    "fetched": "fetch weights w.pth --source {bad}",
}
OUTPUTS = {
    **{name: text.replace("--out out", "--out {bad}") for name, text in SOUND.items()},
    "fetch": "fetch weights --source {base}/w.pth {bad}",
    "demo-data": "demo-data {bad}",
}
del OUTPUTS["evaluate"]  # writes nothing


# -- Kinds -----------------------------------------------------------------------------------------


def folder(path: Path) -> None:
    path.mkdir()


def saved(change: Callable[[Dict[str, Any]], Any]) -> Callable[[Path], None]:
    """A checkpoint of the small network's tensors, changed."""

    def write(path: Path) -> None:
        state = {key: value.clone() for key, value in SMALL.state_dict().items()}
        torch.save(change(state), path)

    return write


SMALL = SiamRPN(NetworkConfig.resnet50(0.125))
KEY = "neck.downsample2.downsample.0.weight"


class Hostile:
    def __reduce__(self) -> Any:
        return os.mkdir, ("hostile",)


def itself(state: Dict[str, Any]) -> Any:
    content: Dict[str, Any] = {}
    content["state_dict"] = content
    return content


CHECKPOINTS: Dict[str, Content] = {
    "letters": b"abcd",
    "cut off": b"PK\x03\x04" + bytes(40),
    "hostile": saved(lambda state: {"state_dict": {"a": Hostile()}}),
    "itself": saved(itself),
    "empty": saved(lambda state: {}),
    "tensor": saved(lambda state: state[KEY]),
    "integers": saved(lambda state: {**state, KEY: state[KEY].long()}),
    "complex": saved(lambda state: {**state, KEY: state[KEY].to(torch.complex64)}),
    "NaN": saved(lambda state: {**state, KEY: state[KEY] * np.nan}),
    "huge": saved(lambda state: {**state, KEY: state[KEY] + 1e30}),
    "lacking": saved(lambda state: {key: v for key, v in state.items() if key != KEY}),
    "no size": saved(lambda state: {**state, KEY: state[KEY][:0]}),
}
TEXTS: Dict[str, Content] = {  # of YAML that is no configuration
    "deep": "a: " + "[" * 5000,
    "alias": "a: &b [*b]",
    "mixed keys": "1: 2\nb: 3",
    "null key": "null: 2",
    "unknown": "nonsense: 3",
    "twice": "seed: 1\nseed: 2",
    "list": "- 1",
    "nothing": "",
    "open": "a: [1",
    "tag": "!!python/object/apply:os.mkdir [hostile]",
    "huge": f"seed: {10**400}",
    "infinite": "lr: .inf",
    "bytes": b"\x80\x81\xff\xfe\x00",
}
NO_JSON: Dict[str, Content] = {
    "deep": "[" * 100000,
    "deep object": '{"a":' * 100000,
    "list": "[1]",
    "null": "null",
    "text": '"a"',
    "cut off": '{"a": {"img_names": [',
    "huge": '{"a": ' + "9" * 500 + "}",
    "infinite": '{"a": {"img_names": ["a"], "gt_rect": [[1, 2, 3, 4]], "width": 1e999, "height": 9}}',
    "twice": '{"a": 1, "a": 2}',
    "bytes": b"\x80\x81\xff\xfe\x00",
}
BOXES: Dict[str, str] = {
    "letters": "a,b,c,d\n" * 3,
    "three numbers": "1,2,3\n" * 3,
    "negative size": "30,30,-5,5\n" * 3,
    "no height": "30,30,5,0\n" * 3,
    "too many": "30,30,24,24\n" * 4,
    "outside": "900,30,24,24\n" * 3,
    "huge": "0,0,1e300,1e300\n" * 3,
    "tiny": "30,30,1e-9,1e-9\n" * 3,
    "absent": "nan,nan,nan,nan\n" * 3,
    "infinite": "30,30,inf,24\n" * 3,
    "nothing": "",
    "flat polygon": "10,10,30,10,50,10,20,10\n" * 3,
}
LINES: Dict[str, str] = {  # of raw results
    "too few": "1\n1,2,3,4\n",
    "too many": "1\n" + "1,2,3,4\n" * 5,
    "letters": "1\nm0,1,2\n1\n",
    "code 7": "1\n7\n1,2,3,4\n",
    "NaN": "1\n1,2,nan,4\n1,2,3,4\n",
    "not begun": "1,2,3,4\n" * 3,
    "nothing": "",
}


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")


def png(side: int, data: bytes) -> bytes:
    size = side.to_bytes(4, "big") * 2
    parts = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0])) + chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IEND", b"")


PICTURES: Dict[str, bytes] = {
    "nothing": b"",
    "text": b"no picture",
    "start alone": b"\xff\xd8\xff",
    "bomb": png(60000, zlib.compress(bytes(1000))),
    "larger bomb": png(2**31 - 1, zlib.compress(bytes(1000))),
    "no size": png(0, zlib.compress(bytes(1000))),
    "damaged": png(8, b"garbage"),
    "gif": b"GIF89a" + bytes(20),
    "tiff": b"II*\x00\x08\x00\x00\x00\x00\x00",
}
VALUES = {  # of options: (command, option) -> values that cannot be meant
    ("track", "--init"): ["a,b,c,d", "1,2,3", "1,2,3,4,5", "", "nan,1,9,9", "1,1,inf,9", "1,1,0,9"],
    ("track", "--frames"): ["0", "-1", "x", "²", "1.5"],
    ("evaluate", "--precision"): ["int9", "fp32,fp32", "", "fp16,fp16,fp16,fp16"],
    ("evaluate", "--protocol"): ["mine"],
    ("evaluate", "--engine"): ["abacus"],
    ("evaluate", "--workers"): ["0", "-2", "many"],
    ("train", "--shift"): ["x", "nan", "-1", "inf"],
    ("train", "--stop-after"): ["0", "x"],
    ("cut", "--parameters"): ["nan", "0", "-1", "x", "inf"],
    ("cut", "--multiple"): ["0", "x"],
    ("score", "--pictures"): ["0", "x"],
    ("recalibrate", "--pairs"): ["0", "-3"],
    ("calibrate", "--pairs"): ["0", "x"],
}
FIELDS = [  # of a training
    *("batch_size: 0", "batch_size: x", "workers: 1000000", "workers: -1", "seed: -1", "width: 9"),
    *(
        "width: 0",
        "precision: fp8",
        "optimizer: best",
        "average: 1",
        "teacher: no.pth",
        "data: [1]",
    ),
    *(
        "initial: 5",
        "phases: []",
        "phases: 3",
        "save_every: 0",
        "weight_decay: .nan",
        "log_every: 0",
    ),
    *("pairs: {shares: {foo: 1}}", "pairs: {shares: {patch: 0}}", "pairs: {shares: text}"),
    *("pairs: {frame_range: 0}", "pairs: {negative: 2}", "pairs: {distractor: 1}", "pairs: 3"),
    *("pairs: {holdout: 5}", "pairs: {holdout: [5]}", "pairs: {holdout: [nobody]}"),
    *("phases: [{pairs: 0}]", "phases: [{pairs: -8}]", "phases: [{pairs: many}]"),
    *(
        f"phases: [{{pairs: 8, lr: {lr}}}]"
        for lr in ("[1]", "[a, b]", "[-1, -1]", "[.nan, 1]", "3")
    ),
    *(f"phases: [{{pairs: 8, search_size: {side}}}]" for side in (10, 190, 99999991, "x")),
    *("phases: [{pairs: 8, shape: round}]", "phases: [{pairs: 8, tracking: 0}]"),
]
HEADS = ["size: 0", "size: 1", "size: 999999", "pictures: 0", "batch_size: 0", "lr: 0", "lr: -1"]
HEADS += [
    "lr: [1]",
    "validation: 0",
    "evaluate_every: 0",
    "precision: fp8",
    "data: nowhere",
    "workers: -1",
]
SETTINGS = ["window: 7", "rate: -1", "smallest: -5", "penalty: x", "penalty: true", "window: [1]"]
SETTINGS += ["TRACK: {TYPE: Other}", "TRACK: {INSTANCE_SIZE: 287}", "TRACK: 3", "rate: 1e3"]
CALIBRATIONS = ["0", "-1", "1e30", "inf", "x", "nan"]
DAMAGES: Dict[str, Callable[[Dict[str, Any]], Any]] = {  # to a training's checkpoint
    "average": lambda state: {**state, "average": None},
    "settings": lambda state: {**state, "config": None},
    "before the start": lambda state: {**state, "done": -5},
    "behind the end": lambda state: {**state, "done": 10**9},
    "done is text": lambda state: {**state, "done": "many"},
    "network": lambda state: {**state, "network": {}},
    "optimizer": lambda state: {**state, "optimizer": {}},
    "key": lambda state: {key: value for key, value in state.items() if key != "done"},
    "list": lambda state: [state],
}
SCORES = {
    "nothing": b"",
    "bytes": bytes(range(128, 256)) * 20,
    "long field": b"# x\nlayer,channel,score\n" + b"a" * 200000 + b",0,1\n",
    "other layers": b"# x\nlayer,channel,score\nnowhere,0,1\n",
    "no numbers": b"# x\nlayer,channel,score\nlayer1.0.conv1,0,x\n",
}
NAMES = {"long name": "x" * 300, "long path": "y" * 200 + ("/" + "y" * 200) * 30, "bytes": "\udcff"}


def of_names() -> Iterator[Case]:
    """Every argument that is a file: missing, no name at all, and a folder."""
    slots = {"weights": WEIGHTS, "yaml": YAMLS, "json": JSONS, "other": OTHERS}
    lists = ("other-data", "other-source", "other-results")  # may be a folder
    for kind, commands in slots.items():
        for command, arguments in commands.items():
            id = f"{kind}-{command}"
            yield Case(f"{id}-missing", arguments, "gone.json", None)
            for name, text in NAMES.items():
                named = arguments.replace("{bad}", text)
                yield Case(f"{id}-{name}", named, "", None, ascii(text)[1:9])
            if id not in lists:
                bad = "folder.yaml" if kind == "yaml" else "folder"
                yield Case(f"{id}-folder", arguments, bad, folder)


def of_contents() -> Iterator[Case]:
    kinds = (
        ("weights", WEIGHTS, CHECKPOINTS, "bad.pth"),
        ("yaml", YAMLS, TEXTS, "bad.yaml"),
        ("json", JSONS, NO_JSON, "bad.json"),
        ("scores", {"cut": OTHERS["scores"]}, SCORES, "s.csv"),
    )
    for kind, commands, contents, file in kinds:
        for command, arguments in commands.items():
            for name, content in contents.items():
                if name not in BACKBONE or command not in HEADLESS:
                    yield Case(f"{kind}-{command}-{name}", arguments, file, content)


# What these commands do not read of a checkpoint cannot be a fault
HEADLESS = ("score", "head")
BACKBONE = ("integers", "complex", "NaN", "huge", "lacking", "no size")


def dataset(boxes: str, picture: bytes = b"") -> Callable[[Path], None]:
    """A folder of one sequence; picture: in place of the first frame."""

    def write(path: Path) -> None:
        (path / "img").mkdir(parents=True)
        (path / "groundtruth_rect.txt").write_text(boxes)
        for number in (1, 2, 3):
            image = cv2.imencode(".jpg", np.zeros((96, 128, 3), np.uint8))[1].tobytes()
            content = picture if number == 1 and picture else image
            (path / "img" / f"{number:04d}.jpg").write_bytes(content)

    return write


def of_datasets() -> Iterator[Case]:
    commands = {"evaluate": OTHERS["dataset"], "calibrate": "calibrate {bad} --out c.csv"}
    for command, arguments in commands.items():
        for name, boxes in BOXES.items():
            yield Case(
                f"boxes-{command}-{name}", arguments, "seq", dataset(boxes), "groundtruth_rect.txt"
            )
    commands["track"] = OTHERS["source"]
    for command, arguments in commands.items():
        for name, picture in PICTURES.items():
            content = dataset("30,30,24,24\n" * 3, picture or b" ")
            yield Case(f"picture-{command}-{name}", arguments, "seq", content, "0001.jpg")
    yield Case("film", OTHERS["source"], "clip.mp4", b"", "clip.mp4: not a readable video")
    for name, lines in LINES.items():

        def results(path: Path, lines: str = lines) -> None:
            path.mkdir()
            (path / "walk.txt").write_text(lines)

        yield Case(f"results-{name}", OTHERS["results"], "res", results, "walk")


def of_outputs() -> Iterator[Case]:
    """Below a file, a folder in place of the file, and files that others made."""
    for command, arguments in OUTPUTS.items():
        below = arguments.replace("{bad}", "{bad}/sub/o.pth")
        yield Case(f"out-{command}-below a file", below, "mine.txt", "mine\n")
        if command not in ("track", "export", "train", "head", "demo-data"):
            yield Case(f"out-{command}-folder", arguments, "mine", folder)
        if command not in ("track", "export", "train", "head"):
            yield Case(f"out-{command}-of others", arguments, "mine.txt", "mine\n")

    def stamped(path: Path) -> None:
        path.mkdir()
        (path / "made-by.json").write_text("notes of mine")
        (path / "list.txt").write_text("mine\n")

    yield Case("out-demo-data-stamped by others", OUTPUTS["demo-data"], "d", stamped)


def of_values() -> Iterator[Case]:
    for (command, option), values in VALUES.items():
        for value in values:
            given = f"{option}={value}"
            yield Case(f"value-{command} {given}", f"{SOUND[command]} {given}", "", None, " ")
    for text in FIELDS:
        elsewhere = {"nobody": "manifest.json", "no.pth": "no.pth"}  # the file at fault
        word = next((file for sign, file in elsewhere.items() if sign in text), "")
        yield Case(f"train-{text}", YAMLS["train"], "bad.yaml", changed(TRAINING, text), word)
    for text in HEADS:
        word = "nowhere" if "nowhere" in text else ""
        yield Case(f"head-{text}", YAMLS["head"], "bad.yaml", changed(HEAD, text), word)
    for text in SETTINGS:
        yield Case(f"settings-{text}", YAMLS["settings"], "bad.yaml", text)


def changed(text: str, line: str) -> str:
    key = line.partition(":")[0]
    kept = [each for each in text.splitlines() if not each.startswith(f"{key}:")]
    return "\n".join([*kept, line])


CASES = [*of_names(), *of_contents(), *of_datasets(), *of_outputs(), *of_values()]


# -- The tests -------------------------------------------------------------------------------------


def contents(folder: Path) -> Dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in folder.rglob("*")
    }


def refused(arguments: List[str], word: str, here: Path, capfd: Any) -> None:
    before = contents(here)

    def stop(*_: Any) -> None:
        raise TooLong(f"no end after {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        status = main(arguments)
    except SystemExit as ended:  # argparse
        status = ended.code
    finally:
        signal.alarm(0)
    said = capfd.readouterr()
    assert status == 2, said
    assert said.out == ""
    assert len(said.err.strip().splitlines()) == 1, said.err
    assert "unforeseen" not in said.err and len(said.err) < 1000, said.err
    assert word in said.err, said.err
    assert contents(here) == before


@pytest.mark.parametrize("case", CASES, ids=[case.id for case in CASES])
def test_malformed_input_is_one_sentence(
    case: Case, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    bad = tmp_path / case.file
    if isinstance(case.content, bytes):
        bad.write_bytes(case.content)
    elif isinstance(case.content, str):
        bad.write_text(case.content.replace("{base}", str(base)), encoding="utf-8")
    elif case.content is not None:
        case.content(bad)
    arguments = [
        part.replace("{base}", str(base)).replace("{bad}", str(bad))
        for part in case.arguments.split()
    ]
    refused(arguments, case.word or case.file, tmp_path, capfd)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_of_a_training_is_one_sentence(
    damage: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from lib.training.tracker import TrackerTraining, load_config

    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    state = TrackerTraining(load_config(base / "train.yaml"), torch.device("cpu")).state()
    torch.save(DAMAGES[damage](state), tmp_path / "out" / "checkpoint.pt")
    capfd.readouterr()
    refused(["train", str(base / "train.yaml"), "--out", "out"], "checkpoint.pt", tmp_path, capfd)


@pytest.mark.parametrize("value", CALIBRATIONS)
def test_ranges_that_no_network_has_are_one_sentence(
    value: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    from lib.engines.zoo import DEMO_WEIGHTS

    monkeypatch.chdir(tmp_path)
    lines = DEMO_WEIGHTS.with_suffix(".calibration.csv").read_text().splitlines()
    lines[6] = ",".join([*lines[6].split(",")[:2], *[value] * 3])
    (tmp_path / "w.pth").write_bytes(DEMO_WEIGHTS.read_bytes())
    (tmp_path / "w.calibration.csv").write_text("\n".join(lines) + "\n")
    command = ["export", "--out", "out", "--precision", "int8", "--weights", "w.pth"]
    refused(command, "w.calibration.csv", tmp_path, capfd)
