"""Fetching from a real server that misbehaves: each fault in one sentence, nothing wrong on the
disk, and going on afterwards."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
import time
import types
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from lib import fetch
from lib.errors import InputError
from lib.fetch import (
    VOT2018,
    download,
    fetch_vot2018,
    fetch_weights,
    places,
    read_description,
    unpack,
)
from lib.vot.dataset import load_dataset

pytest.importorskip("requests", reason="downloading needs the package requests")

ROOT = Path(__file__).resolve().parents[1]
SECRET = "outside.txt"  # what a hostile archive tries to write


class Handler(BaseHTTPRequestHandler):
    """Serves server.files with ranges and ETags, but for server.faults: {path: modes, one a
    request, the last for all others}."""

    def do_GET(self):
        server, path = self.server, self.path
        asked = self.headers.get("Range")
        server.log.append((path, asked))
        faults = server.faults.get(path, [""])
        mode = faults.pop(0) if len(faults) > 1 else faults[0]
        if path not in server.files or mode.isdigit():
            self.send_error(int(mode) if mode.isdigit() else 404)
            return
        body = server.files[path]
        if mode == "wrong":
            body = body[:-50] + bytes(50)
        tag = hashlib.md5(body[::-1] if mode == "changed" else server.files[path]).hexdigest()
        begin = int(asked[6:-1]) if asked and mode != "no ranges" else 0
        if begin >= len(body) > 0:
            self.send_error(416)
            return
        first = begin + (7 if mode == "other range" else 0)
        shown = (body[::-1] if mode == "changed" else body)[first:]
        self.send_response(206 if asked and mode != "no ranges" else 200)
        if asked and mode != "no ranges":
            self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if mode != "no length":
            self.send_header(
                "Content-Length", str(len(shown) + {"too long": 100, "too short": -10}.get(mode, 0))
            )
        if mode != "no version":
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        cut = re.fullmatch(r"cut (\d+)", mode)
        try:
            self.wfile.write(shown[: int(cut[1])] if cut else shown)
        except ConnectionError:
            server.log.append((path, "hung up"))

    def log_message(self, *args):
        """Not on the terminal."""


@pytest.fixture
def server(monkeypatch):
    """A server on this machine; its address is `server.url`."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(fetch, "PAUSE", 0.001)
    monkeypatch.setattr(fetch, "TIMEOUT", 5)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.files, server.faults, server.log = {}, {}, []
        server.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def zipped(files, **kinds):
    """Bytes of a zip file; members named in `kinds` get that file type in their Unix mode."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (kinds.get(name.partition(".")[0], stat.S_IFREG) | 0o644) << 16
            archive.writestr(member, content)
    return stream.getvalue()


SEQUENCES = {"bag": 6, "ball1": 4}


@pytest.fixture
def vot2018(server):
    """The challenge's server in small: two sequences. One archive's address is absolute, as if on
    the challenge's own server."""
    rng, entries = np.random.RandomState(0), []
    for index, (name, length) in enumerate(SEQUENCES.items()):
        box = "10.00,8.00,20.00,8.00,20.00,16.00,10.00,16.00\n"
        tag = "0\n" * (length - 1) + "1\n"
        annotations = zipped(
            {"groundtruth.txt": box * length, "camera_motion.tag": tag, "occlusion.tag": tag}
        )
        images = {
            f"{n:08d}.jpg": cv2.imencode(".jpg", rng.randint(0, 256, (24, 32, 3), np.uint8))[
                1
            ].tobytes()
            for n in range(1, length + 1)
        }
        frames = zipped(images)
        place = f"sequences/{hashlib.sha512(frames).hexdigest()}.zip"
        server.files.update({f"/vot2018/main/{name}.zip": annotations, f"/{place}": frames})
        entries.append(
            {
                "name": name,
                "length": length,
                "fps": 30,
                "width": 32,
                "height": 24,
                "preview": f"{name}.gif",
                "annotations": {
                    "url": f"{name}.zip",
                    "checksum": hashlib.sha1(annotations).hexdigest(),
                    "uid": "1",
                    "compressed": len(annotations),
                    "uncompressed": 100,
                },
                "channels": {
                    "color": {
                        "url": f"../../{place}"
                        if index
                        else f"https://data.votchallenge.net/{place}",
                        "checksum": hashlib.sha1(frames).hexdigest(),
                        "pattern": "%08d.jpg",
                        "uncompressed": 9999,
                    }
                },
            }
        )
    server.entries = entries
    server.source = f"{server.url}/vot2018/main/description.json"
    describe(server)
    return server


def describe(server):
    server.files["/vot2018/main/description.json"] = json.dumps(
        {"name": "VOT-ST2018", "sequences": server.entries}
    ).encode()


def archive(server, name, content):
    """Put another archive of annotations in the place of a sequence's, rightly described."""
    server.files[f"/vot2018/main/{name}.zip"] = content
    next(e for e in server.entries if e["name"] == name)["annotations"]["checksum"] = hashlib.sha1(
        content
    ).hexdigest()
    describe(server)


def color_path(server, name):
    url = next(entry for entry in server.entries if entry["name"] == name)["channels"]["color"][
        "url"
    ]
    return "/" + url[url.index("sequences/") :]


def tree(folder):
    """All files below a folder, as sorted relative names."""
    return sorted(
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if not file.is_dir()
    )


def whole(*names):
    """What a complete fetch of these sequences leaves."""
    files = ["list.txt"]
    for name in names:
        files += [
            f"{name}/{file}"
            for file in ("groundtruth.txt", "sequence", "camera_motion.tag", "occlusion.tag")
        ]
        files += [f"{name}/color/{number:08d}.jpg" for number in range(1, SEQUENCES[name] + 1)]
    return sorted(files)


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments, progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def fails_then_goes_on(server, folder, words, left):
    """A fetch fails with these words and leaves these files; without the faults it goes on to the
    end."""
    assert words in refused(fetch_vot2018, folder, server.source)
    assert [file for file in tree(folder) if not file.endswith(".part")] == left
    assert not (folder / ".fetch" / "unpacked").exists()
    with pytest.raises(InputError, match="which has no groundtruth"):
        load_dataset(folder)  # a part is not taken for the whole
    server.faults.clear()
    fetch_vot2018(folder, server.source, progress=False)
    assert tree(folder) == sorted([*whole("bag", "ball1"), "description.json"])
    assert len(load_dataset(folder)) == 2


def test_a_whole_benchmark_is_fetched_and_loads(vot2018, tmp_path):
    folder = tmp_path / "data" / "VOT2018"
    assert fetch_vot2018(str(folder), vot2018.source, progress=False) == folder
    assert tree(folder) == sorted([*whole("bag", "ball1"), "description.json"])
    assert not (folder / ".fetch").exists()
    dataset = load_dataset(folder)
    assert [(sequence.name, len(sequence)) for sequence in dataset] == list(SEQUENCES.items())
    assert dataset["bag"].frame(5).shape == (24, 32, 3)
    assert dataset["bag"].tags["occlusion"].tolist() == [False] * 5 + [True]
    properties = dict(
        line.split("=") for line in (folder / "bag" / "sequence").read_text().splitlines()
    )
    assert properties == {
        "name": "bag",
        "fps": "30",
        "format": "default",
        "channels.color": "color/%08d.jpg",
    }


def test_what_is_complete_is_not_fetched_again(vot2018, tmp_path):
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    vot2018.log.clear()
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert vot2018.log == []  # not even the description
    (tmp_path / "ball1" / "color" / "00000002.jpg").unlink()  # a user loses a frame
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert [path for path, _ in vot2018.log] == [
        "/vot2018/main/description.json",
        "/vot2018/main/ball1.zip",
        color_path(vot2018, "ball1"),
    ]
    assert len(load_dataset(tmp_path)["ball1"]) == 4


def test_a_folder_of_the_users_own_is_not_touched(vot2018, tmp_path):
    (tmp_path / "ball1").mkdir()
    (tmp_path / "ball1" / "notes.txt").write_text("mine")
    assert "ball1: incomplete, and not made by this command" in refused(
        fetch_vot2018, tmp_path, vot2018.source
    )
    assert (tmp_path / "ball1" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "faults",
    [
        ["cut 300", ""],
        ["cut 300", "cut 200", "cut 200", "503", ""],
        ["500", "503", ""],
        ["cut 0", ""],
        ["too long"],
        ["cut 300", "no ranges"],
        ["cut 300", "cut 200", "no ranges"],
        ["cut 300", "cut 200", "other range", ""],
        ["no length"],
        ["cut 300", "cut 200", "no version", ""],
        ["wrong", ""],
    ],
    ids=str,
)
def test_a_bad_connection_is_survived(vot2018, tmp_path, faults):
    path = color_path(vot2018, "bag")
    vot2018.faults[path] = list(faults)
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert tree(tmp_path) == sorted([*whole("bag", "ball1"), "description.json"])
    assert len(load_dataset(tmp_path)) == 2


def test_a_cut_download_goes_on_where_it_stopped_in_a_later_call(vot2018, tmp_path):
    path = color_path(vot2018, "bag")
    vot2018.faults[path] = ["cut 400", "cut 0"]
    assert f"{vot2018.url}{path}: the connection " in refused(
        fetch_vot2018, tmp_path, vot2018.source
    )
    parts = [file for file in tree(tmp_path) if file != "list.txt"]
    assert (
        len(parts) == 1
        and parts[0].startswith(".fetch/bag.color.zip.")
        and parts[0].endswith(".part")
    )
    assert (tmp_path / parts[0]).read_bytes() == vot2018.files[path][:400]
    vot2018.faults.clear()
    vot2018.log.clear()
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert (path, "bytes=400-") in vot2018.log
    assert tree(tmp_path) == sorted([*whole("bag", "ball1"), "description.json"])


def test_a_killed_fetch_goes_on(vot2018, tmp_path):
    """SIGKILL after 100, 200 and 500 bytes of an archive; a process that asks again first asks for
    the headers."""
    path = color_path(vot2018, "bag")
    program = (
        f"from lib import fetch; fetch.PAUSE = 60\n"
        f"fetch.fetch_vot2018({str(tmp_path)!r}, {vot2018.source!r}, progress=False)"
    )
    for faults, size in ((["cut 100"], 100), (["", "cut 100"], 200), (["", "cut 300"], 500)):
        vot2018.faults[path] = faults
        with subprocess.Popen([sys.executable, "-c", program], cwd=str(ROOT)) as process:
            while (
                sum(file.stat().st_size for file in tmp_path.glob(".fetch/bag.color.zip.*.part"))
                < size
            ):
                assert process.poll() is None, "it ended before it was killed"
                time.sleep(0.01)
            process.kill()
    vot2018.faults.clear()
    vot2018.log.clear()
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert (path, "bytes=500-") in vot2018.log
    assert tree(tmp_path) == sorted([*whole("bag", "ball1"), "description.json"])


@pytest.mark.parametrize(
    "fault, words",
    [
        ("404", "not there (status 404)"),
        ("403", "refused (status 403"),
        ("500", "status 500"),
        ("cut 40", "5 times (40 bytes are kept"),
        ("cut 0", "the connection"),
        ("wrong", "brings other bytes than described (checksum "),
        ("too short", "brings other bytes than described (checksum "),
    ],
)
def test_a_server_that_stays_bad_leaves_nothing_wrong(vot2018, tmp_path, fault, words):
    vot2018.faults[color_path(vot2018, "ball1")] = (
        [fault] if fault != "cut 40" else ["cut 40", "cut 0"]
    )
    if fault == "404":
        vot2018.faults[f"/vot2018/main/{color_path(vot2018, 'ball1').rpartition('/')[2]}"] = ["404"]
    fails_then_goes_on(vot2018, tmp_path, words, whole("bag"))


def test_other_bytes_under_the_same_name_are_not_mixed(server, tmp_path):
    """A part of one version is not completed with the rest of another, with a checksum or
    without."""
    old, new = bytes(1000), bytes([1]) * 1000
    server.files["/file"] = old
    server.faults["/file"] = ["cut 400", "cut 0"]
    refused(download, f"{server.url}/file", tmp_path / "file")
    server.files["/file"] = new
    server.faults.clear()
    assert download(f"{server.url}/file", tmp_path / "file", progress=False).read_bytes() == new
    assert tree(tmp_path) == ["file"]


def test_a_file_that_changes_between_two_requests_is_begun_anew(server, tmp_path):
    server.files["/file"] = os.urandom(1000)
    server.faults["/file"] = ["cut 400", "", "changed", ""]
    assert (
        download(f"{server.url}/file", tmp_path / "file", progress=False).read_bytes()
        == server.files["/file"]
    )
    assert [asked for _, asked in server.log if asked != "hung up"] == [
        None,
        None,
        "bytes=400-",
        None,
    ]


def test_another_range_than_asked_is_not_taken(server, tmp_path):
    server.files["/file"] = os.urandom(1000)
    server.faults["/file"] = ["cut 400", "", "other range", ""]
    assert (
        download(f"{server.url}/file", tmp_path / "file", progress=False).read_bytes()
        == server.files["/file"]
    )


def test_a_whole_part_needs_no_further_byte(server, tmp_path, monkeypatch):
    """Ctrl-C after the last byte, before the file has its name."""

    def interrupt(*names):
        raise KeyboardInterrupt

    server.files["/file"] = os.urandom(1000)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(f"{server.url}/file", tmp_path / "file", progress=False)
    server.faults["/file"] = ["cut 0"]
    assert (
        download(f"{server.url}/file", tmp_path / "file", progress=False).read_bytes()
        == server.files["/file"]
    )
    assert tree(tmp_path) == ["file"]


def test_a_damaged_part_is_fetched_once_more(server, tmp_path):
    server.files["/file"] = os.urandom(1000)
    digest = hashlib.sha1(server.files["/file"]).hexdigest()
    server.faults["/file"] = ["cut 400", "cut 0"]
    refused(download, f"{server.url}/file", tmp_path / "file", digest)
    part = next(tmp_path.iterdir())
    part.write_bytes(bytes(400))
    server.faults.clear()
    assert (
        download(f"{server.url}/file", tmp_path / "file", digest, progress=False).read_bytes()
        == server.files["/file"]
    )
    assert tree(tmp_path) == ["file"]


@pytest.mark.parametrize("digest", ["md5", "sha1", "sha256", "sha512"])
def test_the_kind_of_checksum_is_told_by_its_length(server, tmp_path, digest):
    server.files["/file"] = b"content"
    download(
        f"{server.url}/file",
        tmp_path / "file",
        hashlib.new(digest, b"content").hexdigest(),
        progress=False,
    )
    assert "no checksum known" in refused(download, f"{server.url}/file", tmp_path / "other", "12")


def test_no_server_at_all_is_one_sentence(server, tmp_path):
    message = refused(fetch_vot2018, tmp_path, "http://127.0.0.1:9/description.json")
    assert (
        message
        == "http://127.0.0.1:9/description.json: the connection fails (ConnectionError), 5 times"
    )
    assert tree(tmp_path) == []


# Archives


HOSTILE = {
    "parent": (
        {"groundtruth.txt": "", f"../../{SECRET}": "x"},
        {},
        f"'../../{SECRET}' would leave the folder",
    ),
    "deep": ({f"a/../../{SECRET}": "x"}, {}, "would leave the folder"),
    "absolute": ({f"/tmp/{SECRET}": "x"}, {}, "would leave the folder"),
    "backslash": ({f"..\\{SECRET}": "x"}, {}, "would leave the folder"),
    "drive": ({f"C:\\{SECRET}": "x"}, {}, "would leave the folder"),
    "symlink": (
        {"link": "../..", f"link/{SECRET}": "x"},
        {"link": stat.S_IFLNK},
        "'link' is a link or a device",
    ),
    "device": ({"pipe": ""}, {"pipe": stat.S_IFIFO}, "'pipe' is a link or a device"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_whole(vot2018, tmp_path, kind):
    files, kinds, words = HOSTILE[kind]
    good = vot2018.files["/vot2018/main/ball1.zip"]
    archive(vot2018, "ball1", zipped(files, **kinds))
    folder = tmp_path / "deep" / "down" / "VOT2018"
    message = refused(fetch_vot2018, folder, vot2018.source)
    assert "refused, its member" in message and words in message
    assert tree(tmp_path) == sorted(f"deep/down/VOT2018/{file}" for file in whole("bag"))
    assert not (folder / ".fetch").exists()
    archive(vot2018, "ball1", good)
    fetch_vot2018(folder, vot2018.source, progress=False)
    assert len(load_dataset(folder)) == 2


def damaged(content):
    """A zip file with one byte of a member changed; its table of contents is whole."""
    at = content.index(b"PK\x01\x02") // 2
    return content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda good: good[:-100], "not a readable zip file"),
        (lambda good: b"<html>moved</html>", "not a readable zip file"),
        (damaged, "not a readable zip file"),
        (
            lambda good: zipped({"readme.txt": "no annotations"}),
            "have not as many frames as annotations, 4",
        ),
        (
            lambda good: zipped({"groundtruth.txt": "1,1,9,9\n" * 3}),
            "have not as many frames as annotations, 4",
        ),
    ],
    ids=["cut", "a page", "a byte", "empty", "too few"],
)
def test_unreadable_archives_are_named_and_fetched_anew(vot2018, tmp_path, spoil, words):
    good = vot2018.files["/vot2018/main/ball1.zip"]
    archive(vot2018, "ball1", spoil(good))
    assert words in refused(fetch_vot2018, tmp_path, vot2018.source)
    assert tree(tmp_path) == whole("bag")
    archive(vot2018, "ball1", good)
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert len(load_dataset(tmp_path)) == 2


def test_an_archive_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    (tmp_path / "big.zip").write_bytes(zipped({"zeros": bytes(10**6)}))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10**5))
    with pytest.raises(InputError, match=r"0\.0 GB are needed for big\.zip"):
        unpack(tmp_path / "big.zip", tmp_path / "out")
    assert tree(tmp_path) == ["big.zip"]


# Descriptions and places


@pytest.mark.parametrize(
    "text, words",
    [
        ("<html>", "not a description"),
        ("[]", "not a description"),
        ('{"sequences": []}', "no sequences"),
        (
            '{"sequences": [{"name": "bag"}]}',
            "not a description of VOT sequences (KeyError: 'channels')",
        ),
    ],
)
def test_other_descriptions_are_refused(vot2018, tmp_path, text, words):
    vot2018.files["/vot2018/main/description.json"] = text.encode()
    message = refused(fetch_vot2018, tmp_path, vot2018.source)
    assert message.startswith(vot2018.source) and words in message
    assert tree(tmp_path) == []


@pytest.mark.parametrize("name", ["..", "../up", "a/b", "", "/etc", "a\\b", ".hidden", "a\nb"])
def test_names_that_would_leave_the_folder_are_refused(vot2018, name):
    vot2018.entries[0]["name"] = name
    with pytest.raises(InputError, match="is no name for a sequence"):
        read_description(json.dumps({"sequences": vot2018.entries}), "here")


def test_optional_entries_may_be_missing(vot2018, tmp_path):
    for entry in vot2018.entries:
        for part in (entry["annotations"], entry["channels"]["color"]):
            part.pop("checksum")
        del entry["length"], entry["fps"], entry["channels"]["color"]["pattern"]
    describe(vot2018)
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert len(load_dataset(tmp_path)) == 2


def test_where_files_are_looked_for():
    absolute = "http://data.votchallenge.net/sequences/x.zip"
    assert places(VOT2018, "bag.zip") == ["https://data.votchallenge.net/vot2018/main/bag.zip"]
    assert places(VOT2018, "../../sequences/x.zip") == [
        "https://data.votchallenge.net/sequences/x.zip"
    ]
    assert places(VOT2018, absolute) == [absolute]
    assert places("http://mirror/a/vot2018/main/description.json", absolute) == [
        "http://mirror/a/sequences/x.zip",
        "http://mirror/a/vot2018/main/x.zip",
    ]
    assert places("http://mirror/a/d.json", absolute) == [
        "http://mirror/a/sequences/x.zip",
        "http://mirror/a/x.zip",
    ]
    assert places("/data/vot2018/main/description.json", "../../sequences/x.zip") == [
        "/data/sequences/x.zip",
        "/data/vot2018/main/x.zip",
    ]
    assert places("description.json", "../../sequences/x.zip") == ["../../sequences/x.zip", "x.zip"]
    assert places("/data/description.json", absolute) == ["/data/sequences/x.zip", "/data/x.zip"]


@pytest.mark.parametrize("flat", [False, True], ids=["as on the server", "all in one folder"])
@pytest.mark.parametrize("local", [False, True], ids=["mirror", "local"])
def test_a_mirror_or_a_local_copy_will_do(vot2018, tmp_path, flat, local):
    files = {
        "/mirror" + (path[path.rindex("/") :] if flat else path): content
        for path, content in vot2018.files.items()
    }
    folder = "/mirror" if flat else "/mirror/vot2018/main"
    source = vot2018.url + folder
    vot2018.files = files
    if local:
        for path, content in files.items():
            (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path[1:]).write_bytes(content)
        vot2018.files, source = {}, str(tmp_path) + folder
    before = tree(tmp_path)
    fetch_vot2018(tmp_path / "VOT2018", source, progress=False)
    assert len(load_dataset(tmp_path / "VOT2018")) == 2
    # A local copy stays as it is
    assert [file for file in tree(tmp_path) if not file.startswith("VOT2018/")] == before
    assert not local or vot2018.log == []


def test_faults_of_a_local_copy_are_named(vot2018, tmp_path):
    assert "nowhere/description.json: cannot be read" in refused(
        fetch_vot2018, tmp_path / "out", str(tmp_path / "nowhere")
    )
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "description.json").write_bytes(vot2018.files["/vot2018/main/description.json"])
    assert f"{copy}/bag.zip: no such file" in refused(fetch_vot2018, tmp_path / "out", str(copy))
    (copy / "bag.zip").write_bytes(b"other")
    assert f"{copy}/bag.zip: another checksum" in refused(
        fetch_vot2018, tmp_path / "out", str(copy)
    )
    assert tree(copy) == ["bag.zip", "description.json"]
    assert tree(tmp_path / "out") == ["list.txt"]


def test_two_fetches_into_one_folder_do_not_meet(vot2018, tmp_path):
    with fetch._alone(tmp_path):
        assert "another fetch is under way" in refused(fetch_vot2018, tmp_path, vot2018.source)
    fetch_vot2018(tmp_path, vot2018.source, progress=False)
    assert len(load_dataset(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_is_named(vot2018, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused(
        fetch_vot2018, tmp_path / "file" / "VOT2018", vot2018.source
    )


def test_progress_is_shown_on_a_terminal_only(vot2018, tmp_path, capsys):
    fetch_vot2018(tmp_path, vot2018.source, progress=True)
    assert capsys.readouterr() == ("", "")


# Weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A small network's weights, the whole file as bytes."""
    torch = pytest.importorskip("torch")
    from lib.siamrpn.checkpoint import save_weights
    from lib.siamrpn.network import NetworkConfig, SiamRPN

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "small.pth"
    save_weights(path, SiamRPN(NetworkConfig.resnet50(1 / 16)).state_dict())
    return path


@pytest.mark.parametrize(
    "faults",
    [[""], ["cut 1000", "cut 5000", "503", ""], ["no length"], ["cut 1000", "no ranges"]],
    ids=str,
)
def test_weights_are_fetched_from_a_url_and_only_once(server, weights, tmp_path, faults):
    server.files["/model.pth"] = weights.read_bytes()
    server.faults["/model.pth"] = list(faults)
    target = tmp_path / "weights" / "pysot.pth"
    assert fetch_weights(target, f"{server.url}/model.pth", progress=False) == target
    assert target.read_bytes() == weights.read_bytes()
    assert tree(tmp_path) == ["weights/pysot.pth"]
    server.log.clear()
    fetch_weights(target, f"{server.url}/model.pth", progress=False)
    assert server.log == []


def test_weights_are_copied_from_a_local_file(weights, tmp_path):
    fetch_weights(tmp_path / "pysot.pth", str(weights), progress=False)
    assert (tmp_path / "pysot.pth").read_bytes() == weights.read_bytes()
    assert "gone.pth: No such file" in refused(
        fetch_weights, tmp_path / "other.pth", str(tmp_path / "gone.pth")
    )
    assert tree(tmp_path) == ["pysot.pth"]


@pytest.mark.parametrize("spoil", ["page", "wrong", "too short", "part"])
def test_files_that_are_no_weights_are_not_kept(server, weights, tmp_path, spoil):
    """Without a checksum it is loading that verifies."""
    server.files["/model.pth"] = (
        weights.read_bytes() if spoil != "page" else b"<html>quota exceeded</html>"
    )
    if spoil == "part":
        server.files["/model.pth"] = weights.read_bytes()[:5000]
    server.faults["/model.pth"] = [spoil if spoil.startswith(("wrong", "too")) else ""]
    message = refused(fetch_weights, tmp_path / "pysot.pth", f"{server.url}/model.pth")
    assert message.startswith(f"{server.url}/model.pth: ")
    assert tree(tmp_path) == [] and not (tmp_path / ".fetch").exists()


def test_a_file_in_the_way_is_kept_and_named(server, weights, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "pysot.pth").write_text("mine")
    message = refused(fetch_weights, tmp_path / "pysot.pth", f"{server.url}/model.pth")
    assert "remove this file to fetch it anew" in message
    assert (tmp_path / "pysot.pth").read_text() == "mine" and server.log == []


@pytest.fixture
def gdown(monkeypatch, weights):
    """A stand-in for the package that talks to Google Drive, which no test can reach: a folder of
    two files."""
    module = types.ModuleType("gdown")
    module.calls = []

    def download(id, output, **options):
        module.calls.append((id, options["resume"]))
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
        ("https://drive.google.com/open?id=1Q4-x_y", "1Q4-x_y"),
    ],
)
def test_the_model_zoo_is_a_folder_on_google_drive(gdown, tmp_path, weights, source, called):
    fetch_weights(tmp_path / "pysot.pth", source, progress=False)
    assert gdown.calls == [(called, True)]
    assert (tmp_path / "pysot.pth").read_bytes() == weights.read_bytes()
    assert tree(tmp_path) == ["pysot.pth"]


def test_an_empty_folder_on_google_drive_is_named(gdown, tmp_path):
    gdown.download_folder = lambda url, **options: []
    assert "no weights there; download it in a browser" in refused(
        fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS
    )
    assert tree(tmp_path) == []


def test_without_gdown_the_sentence_says_what_to_install(weights, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    assert "pip install gdown" in refused(fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS)
    assert tree(tmp_path) == []


def test_google_drive_out_of_reach_is_one_sentence(weights, tmp_path, monkeypatch):
    """The real package, through a proxy that is not there."""
    pytest.importorskip("gdown")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    message = refused(fetch_weights, tmp_path / "pysot.pth", fetch.WEIGHTS)
    assert message.startswith(f"{fetch.WEIGHTS}: Google Drive does not give it (")
    assert tree(tmp_path) == []
