"""Fetching from a real server that misbehaves: each fault in one sentence, nothing wrong on the
disk, and going on afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import sys
import threading
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from lib import fetch
from lib.errors import InputError
from lib.fetch import fetch_vot2018, fetch_weights, read_description
from lib.vot.dataset import load_dataset

pytest.importorskip("pooch", reason="downloading needs the package pooch")

SEQUENCES = {"bag": 6, "ball1": 4}  # name: frames
MAIN = "/vot2018/main"


class Handler(BaseHTTPRequestHandler):
    """Serves server.files, but for server.faults: {path: faults, one a request, the last for all
    others}. A fault is a status, "cut" or "wrong"."""

    def do_GET(self):
        server, path = self.server, self.path
        server.log.append(path)
        faults = server.faults.get(path, [""])
        fault = faults.pop(0) if len(faults) > 1 else faults[0]
        if path not in server.files or fault.isdigit():
            self.send_error(int(fault or 404))
            return
        body = server.files[path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        cut = len(body) // 2
        self.wfile.write({"cut": body[:cut], "wrong": body[:-50] + bytes(50)}.get(fault, body))

    def log_message(self, *args):
        """Not on the terminal."""


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; its address is `server.url`."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "RETRIES", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.faults, server.log = {}, {}, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def vot2018(server):
    """The challenge's server in small, laid out like the real one."""
    rng, server.entries, server.frames = np.random.RandomState(0), [], {}
    for name, length in SEQUENCES.items():
        images = {
            f"{n:08d}.jpg": cv2.imencode(".jpg", rng.randint(0, 256, (24, 32, 3), np.uint8))[1]
            for n in range(1, length + 1)
        }
        frames = zipped({file: image.tobytes() for file, image in images.items()})
        server.frames[name] = f"/sequences/{hashlib.sha512(frames).hexdigest()}.zip"
        server.files[server.frames[name]] = frames
        color = {
            "url": f"../..{server.frames[name]}",
            "checksum": hashlib.sha1(frames).hexdigest(),
            "pattern": "%08d.jpg",
        }
        entry = {"name": name, "length": length, "fps": 30, "channels": {"color": color}}
        server.entries.append(entry)
        truth = "10.00,8.00,20.00,8.00,20.00,16.00,10.00,16.00\n" * length
        tag = "0\n" * (length - 1) + "1\n"
        annotate(server, name, zipped({"groundtruth.txt": truth, "occlusion.tag": tag}))
    server.source = f"{server.url}{MAIN}/description.json"
    return server


def annotate(server, name, content):
    """Put this archive of annotations in the place of a sequence's, rightly described."""
    server.files[f"{MAIN}/{name}.zip"] = content
    entry = next(entry for entry in server.entries if entry["name"] == name)
    entry["annotations"] = {"url": f"{name}.zip", "checksum": hashlib.sha1(content).hexdigest()}
    describe(server)


def describe(server):
    content = json.dumps({"name": "VOT-ST2018", "sequences": server.entries})
    server.files[f"{MAIN}/description.json"] = content.encode()


def tree(folder):
    """All files below a folder, as sorted relative names."""
    return sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()
    )


def whole(*names):
    """What a fetch leaves that completed these sequences."""
    files = ["list.txt"]
    for name in names:
        files += [f"{name}/{file}" for file in ("groundtruth.txt", "sequence", "occlusion.tag")]
        files += [f"{name}/color/{number:08d}.jpg" for number in range(1, SEQUENCES[name] + 1)]
    return sorted(files)


WHOLE = sorted([*whole(*SEQUENCES), "description.json"])


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- VOT2018 ---------------------------------------------------------------------------------------


def test_a_whole_benchmark_is_fetched_and_loads(vot2018, tmp_path, capsys):
    folder = tmp_path / "data" / "VOT2018"
    assert fetch_vot2018(str(folder), vot2018.source) == folder
    assert tree(folder) == WHOLE
    assert not (folder / ".fetch").exists()
    dataset = load_dataset(folder)
    assert {sequence.name: len(sequence) for sequence in dataset} == SEQUENCES
    assert dataset["bag"].frame(5).shape == (24, 32, 3)
    assert dataset["bag"].tags["occlusion"].tolist() == [False] * 5 + [True]
    assert (folder / "bag" / "sequence").read_text().splitlines() == [
        "name=bag",
        "fps=30",
        "format=default",
        "channels.color=color/%08d.jpg",
    ]
    assert capsys.readouterr() == ("", ""), "progress is shown on a terminal only"


def test_what_is_complete_is_not_fetched_again(vot2018, tmp_path):
    fetch_vot2018(tmp_path, vot2018.source)
    vot2018.log.clear()
    fetch_vot2018(tmp_path, vot2018.source)
    assert vot2018.log == []  # not even the description
    (tmp_path / "ball1" / "color" / "00000002.jpg").unlink()  # a user loses a frame
    fetch_vot2018(tmp_path, vot2018.source)
    files = (f"{MAIN}/description.json", f"{MAIN}/ball1.zip", vot2018.frames["ball1"])
    assert vot2018.log == [*files]
    assert tree(tmp_path) == WHOLE


def test_a_folder_of_the_users_own_is_not_touched(vot2018, tmp_path):
    (tmp_path / "ball1").mkdir()
    (tmp_path / "ball1" / "notes.txt").write_text("mine")
    assert "ball1: incomplete" in refused(fetch_vot2018, tmp_path, vot2018.source)
    assert (tmp_path / "ball1" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "fault, words", [("404", "status 404"), ("cut", "Error"), ("wrong", "does not match")]
)
def test_a_failed_fetch_leaves_nothing_wrong_and_goes_on(vot2018, tmp_path, fault, words):
    vot2018.faults[vot2018.frames["ball1"]] = [fault]
    message = refused(fetch_vot2018, tmp_path, vot2018.source)
    assert vot2018.frames["ball1"] in message and words in message
    assert tree(tmp_path) == whole("bag")
    assert load_dataset(tmp_path, leave_out=True).left_out == 1  # a part is not taken for the whole
    vot2018.faults.clear()
    vot2018.log.clear()
    fetch_vot2018(tmp_path, vot2018.source)
    assert tree(tmp_path) == WHOLE
    assert vot2018.frames["bag"] not in vot2018.log, "what was complete is kept"


def test_a_bad_connection_is_survived(vot2018, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch, "RETRIES", 2)
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    vot2018.faults[vot2018.frames["bag"]] = ["cut", "503", ""]
    fetch_vot2018(tmp_path, vot2018.source)
    assert tree(tmp_path) == WHOLE


def test_no_server_at_all_is_one_sentence(server, tmp_path):
    source = "http://127.0.0.1:9/description.json"
    message = refused(fetch_vot2018, tmp_path, source)
    assert message == f"{source}: cannot be fetched (ConnectionError)"
    assert tree(tmp_path) == []


def test_what_a_killed_fetch_left_is_not_taken(vot2018, tmp_path):
    """Whatever it was: the work begins anew with the sequence it was at."""
    (tmp_path / ".fetch" / "bag").mkdir(parents=True)
    (tmp_path / ".fetch" / "bag" / "stray.txt").write_text("")
    (tmp_path / ".fetch" / "description.json").write_text("{}")
    fetch_vot2018(tmp_path, vot2018.source)
    assert tree(tmp_path) == WHOLE


def test_two_fetches_into_one_folder_do_not_meet(vot2018, tmp_path):
    with fetch._workplace(tmp_path):
        message = refused(fetch_vot2018, tmp_path, vot2018.source)
    assert "another fetch is under way" in message
    fetch_vot2018(tmp_path, vot2018.source)
    assert tree(tmp_path) == WHOLE


def test_a_folder_that_cannot_be_written_is_named(vot2018, tmp_path):
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "VOT2018"
    assert "cannot be written" in refused(fetch_vot2018, folder, vot2018.source)


# -- Archives and descriptions ---------------------------------------------------------------------


def damaged(content):
    """A zip file with one byte of a member changed; its table of contents is whole."""
    at = content.index(b"PK\x01\x02") // 2
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


HOSTILE = ("../../outside.txt", "a/../../outside.txt", "/../outside.txt", "..\\outside.txt")
SPOILED = {
    **{name: (lambda _, name=name: zipped({name: "x"}), "not as many frames") for name in HOSTILE},
    "cut": (lambda good: good[:-100], "not a readable zip file"),
    "a page": (lambda good: b"<html>moved</html>", "not a readable zip file"),
    "a byte": (damaged, "not a readable zip file"),
    "empty": (lambda good: zipped({"readme.txt": ""}), "not as many frames as annotations, 4"),
    "too few": (
        lambda good: zipped({"groundtruth.txt": "1,1,9,9\n" * 3}),
        "not as many frames as annotations, 4",
    ),
}


@pytest.mark.parametrize("kind", SPOILED)
def test_bad_archives_are_refused_whole_and_fetched_anew(vot2018, tmp_path, kind):
    spoil, words = SPOILED[kind]
    good = vot2018.files[f"{MAIN}/ball1.zip"]
    annotate(vot2018, "ball1", spoil(good))
    folder = tmp_path / "deep" / "down"
    message = refused(fetch_vot2018, folder, vot2018.source)
    assert words in message and "ball1" in message
    assert tree(tmp_path) == [f"deep/down/{file}" for file in whole("bag")]
    annotate(vot2018, "ball1", good)
    fetch_vot2018(folder, vot2018.source)
    assert tree(folder) == WHOLE


@pytest.mark.parametrize(
    "text", ["<html>", "[]", '{"sequences": []}', '{"sequences": [{"name": "bag"}]}', "\xff"]
)
def test_other_descriptions_are_refused(vot2018, tmp_path, text):
    vot2018.files[f"{MAIN}/description.json"] = text.encode("latin-1")
    message = refused(fetch_vot2018, tmp_path, vot2018.source)
    assert message.startswith(f"{vot2018.source}: no")
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "", "/etc", "a\\b", ".hidden", "a\nb"])
def test_names_that_would_leave_the_folder_are_refused(vot2018, name):
    vot2018.entries[0]["name"] = name
    with pytest.raises(InputError, match="is no name"):
        read_description(json.dumps({"sequences": vot2018.entries}).encode(), "here")


def test_optional_entries_may_be_missing(vot2018, tmp_path):
    for entry in vot2018.entries:
        for part in (entry["annotations"], entry["channels"]["color"]):
            part.pop("checksum")
        del entry["length"], entry["fps"], entry["channels"]["color"]["pattern"]
    describe(vot2018)
    fetch_vot2018(tmp_path, vot2018.source)
    assert tree(tmp_path) == WHOLE


# -- Other places ----------------------------------------------------------------------------------


def copy_of(server, folder):
    """The server's files in a folder. Returns where the description is."""
    for path, content in server.files.items():
        file = folder / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder / MAIN[1:]


def test_a_local_copy_will_do_and_stays_as_it_is(vot2018, tmp_path):
    copy = tmp_path / "copy #1?"  # letters that mean something in an address
    source = copy_of(vot2018, copy)
    before = tree(copy)
    fetch_vot2018(tmp_path / "VOT2018", str(source))
    assert tree(tmp_path / "VOT2018") == WHOLE
    assert tree(copy) == before and vot2018.log == []


def test_a_mirror_will_do(vot2018, tmp_path):
    vot2018.files = {f"/mirror{path}": content for path, content in vot2018.files.items()}
    fetch_vot2018(tmp_path, f"{vot2018.url}/mirror{MAIN}")
    assert tree(tmp_path) == WHOLE


def test_faults_of_a_local_copy_are_named(vot2018, tmp_path):
    out, copy = tmp_path / "out", tmp_path / "copy"
    message = refused(fetch_vot2018, out, str(copy))
    assert f"{copy}/description.json: cannot be fetched (No such file" in message
    copy = copy_of(vot2018, copy)
    (copy / "bag.zip").write_bytes(b"other")
    assert f"{copy}/bag.zip: cannot be fetched (SHA1" in refused(fetch_vot2018, out, str(copy))
    (copy / "bag.zip").unlink()
    assert f"{copy}/bag.zip: cannot be fetched (No such" in refused(fetch_vot2018, out, str(copy))
    assert not out.exists()


# -- Weights ---------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small network's weights as a file."""
    torch = pytest.importorskip("torch")
    from lib.siamrpn.checkpoint import save_weights
    from lib.siamrpn.network import NetworkConfig, SiamRPN

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_weights(path, SiamRPN(NetworkConfig.resnet50(1 / 16)).state_dict())
    return path


def test_weights_are_fetched_from_a_url_and_only_once(server, weights, tmp_path):
    server.files["/model.pth"] = weights.read_bytes()
    target = tmp_path / "weights" / "pysot.pth"
    assert fetch_weights(target, f"{server.url}/model.pth") == target
    assert target.read_bytes() == weights.read_bytes()
    assert tree(tmp_path) == ["weights/pysot.pth"]
    fetch_weights(target, f"{server.url}/model.pth")
    assert server.log == ["/model.pth"]


def test_weights_are_copied_from_a_local_file(weights, tmp_path):
    fetch_weights(tmp_path / "pysot.pth", str(weights))
    assert (tmp_path / "pysot.pth").read_bytes() == weights.read_bytes()
    missing = str(tmp_path / "gone.pth")
    assert "gone.pth: cannot be" in refused(fetch_weights, tmp_path / "other.pth", missing)
    assert tree(tmp_path) == ["pysot.pth"]


@pytest.mark.parametrize("fault", ["page", "cut", "wrong"])
def test_files_that_are_no_weights_are_not_kept(server, weights, tmp_path, fault):
    """Without a checksum it is loading that verifies."""
    page = b"<html>quota exceeded</html>"
    server.files["/model.pth"] = page if fault == "page" else weights.read_bytes()
    server.faults["/model.pth"] = ["" if fault == "page" else fault]
    message = refused(fetch_weights, tmp_path / "pysot.pth", f"{server.url}/model.pth")
    assert message.startswith(f"{server.url}/model.pth: ")
    assert tree(tmp_path) == [] and not (tmp_path / ".fetch").exists()


def test_a_file_in_the_way_is_kept_and_named(server, weights, tmp_path):
    (tmp_path / "pysot.pth").write_text("mine")
    message = refused(fetch_weights, tmp_path / "pysot.pth", f"{server.url}/model.pth")
    assert message.startswith(str(tmp_path / "pysot.pth"))
    assert (tmp_path / "pysot.pth").read_text() == "mine" and server.log == []


@pytest.fixture
def gdown(monkeypatch, weights):
    """A stand-in for the package that talks to Google Drive, which no test can reach: a folder of
    two files."""
    module = types.ModuleType("gdown")
    module.calls = []

    def download(id, output, **options):
        module.calls.append(id)
        shutil.copyfile(str(weights), output)

    module.download = download
    module.download_folder = lambda url, **options: [
        types.SimpleNamespace(id="C", path="model/config.yaml"),
        types.SimpleNamespace(id="M", path="model/model.pth"),
    ]
    monkeypatch.setitem(sys.modules, "gdown", module)
    return module


@pytest.mark.parametrize(
    "source, called",
    [
        (fetch.WEIGHTS, "M"),
        ("https://drive.google.com/file/d/1Q4-x_y/view?usp=sharing", "1Q4-x_y"),
        ("https://drive.google.com/uc?id=1Q4-x_y", "1Q4-x_y"),
    ],
)
def test_the_model_zoo_is_a_folder_on_google_drive(gdown, tmp_path, weights, source, called):
    fetch_weights(tmp_path / "pysot.pth", source)
    assert gdown.calls == [called]
    assert (tmp_path / "pysot.pth").read_bytes() == weights.read_bytes()
    assert tree(tmp_path) == ["pysot.pth"]


def test_an_empty_folder_on_google_drive_is_named(gdown, tmp_path):
    gdown.download_folder = lambda url, **options: []
    message = refused(fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS)
    assert "no weights there" in message and tree(tmp_path) == []


def test_without_gdown_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    message = refused(fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS)
    assert "gdown" in message and "download it in a browser" in message
    assert tree(tmp_path) == []


def test_google_drive_out_of_reach_is_one_sentence(tmp_path, monkeypatch):
    """The real package, through a proxy that is not there."""
    pytest.importorskip("gdown")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    message = refused(fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS)
    assert message.startswith(f"{fetch.WEIGHTS}: the package gdown does not get it (")
    assert tree(tmp_path) == []
