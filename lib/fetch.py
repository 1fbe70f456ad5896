"""Data and weights of chapter 4: VOT2018 (section 3.3.2) by the challenge's description file, and
PySOT's SiamRPN++.

Links die, so both functions take another `source`: a URL, or a file or folder on this machine.
pooch downloads, verifies checksums, and gives a file its name when it is whole; gdown talks to
Google Drive. A sequence that is complete is not fetched again.

The description (`description.json`, as votchallenge/toolkit reads it in vot/dataset/common.py):

    {"name": .., "sequences": [{"name": .., "fps": .., "length": ..,
        "annotations": {"url": "bag.zip", "checksum": SHA-1, ..},
        "channels": {"color": {"url": .., "checksum": .., "pattern": "%08d.jpg", ..}}}, ..]}

`name` and both `url` are needed, the rest is used where it is there.
"""

from __future__ import annotations

import lzma
import re
import shutil
import sys
import zipfile
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Tuple, Union
from urllib.parse import urljoin

from lib.errors import InputError
from lib.files import locked, write_text
from lib.progress import progress
from lib.reading import parse_data

# Stack vot2018/shortterm of the toolkit
VOT2018 = "https://data.votchallenge.net/vot2018/main/description.json"
# siamrpn_r50_l234_dwxcorr in MODEL_ZOO.md
WEIGHTS = "https://drive.google.com/drive/folders/1Q4-1563iPwV6wSf_lBHDj5CPFiGSlEPG"
RETRIES = 2  # of a download that fails
TIMEOUT = 30.0  # s without a byte


class Entry(NamedTuple):
    """length: frames, 0 where the description does not say. annotations, frames: the URL of a zip
    file and its SHA-1, "" where none is given."""

    name: str
    length: int
    fps: str
    pattern: str
    annotations: Tuple[str, str]
    frames: Tuple[str, str]


def read_description(content: bytes, source: str) -> List[Entry]:
    """The sequences of a description. Raises InputError that names `source` and the fault, also for
    names unfit for folders."""
    sequences = []
    try:
        for entry in parse_data(content.decode("utf-8-sig"), source)["sequences"]:
            annotations, color = entry["annotations"], entry["channels"]["color"]
            archives = [
                (str(each["url"]), str(each.get("checksum") or "")) for each in (annotations, color)
            ]
            pattern, fps = str(color.get("pattern", "%08d.jpg")), str(entry.get("fps", 30))
            length = int(entry.get("length") or 0)
            sequences.append(Entry(str(entry["name"]), length, fps, pattern, *archives))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source}: not a description of VOT sequences ({type(error).__name__}: {error})"
        ) from None
    bad = [each.name for each in sequences if not re.fullmatch(r"[\w-][\w.-]*", each.name)]
    if bad or not sequences:
        raise InputError(f"{source}: {bad[0]!r} is no name" if bad else f"{source}: no sequences")
    return sequences


def fetch_vot2018(folder: Union[str, Path], source: str = VOT2018) -> Path:
    """VOT2018 in VOT layout in `folder`, which lib.vot.dataset.load_dataset reads. Returns the
    folder.

    source: the description's URL or path, or the folder that holds it, there or on a mirror.
    Raises InputError; running it again goes on. Until then list.txt names sequences that are not
    there, so that nobody takes a part for the whole.
    """
    folder = Path(folder)
    known = folder / "description.json"
    if known.is_file():
        described = read_description(known.read_bytes(), str(known))
        if all(_complete(folder / sequence.name, sequence) for sequence in described):
            return folder
    if not source.endswith(".json"):
        source = f"{source.rstrip('/')}/description.json"
    with _workplace(folder) as work:
        description = _download(source, work / "description.json")
        sequences = read_description(description.read_bytes(), source)
        with progress(len(sequences), "VOT2018", late=True) as bar:
            for sequence in sequences:
                if not _complete(folder / sequence.name, sequence):
                    _fetch_sequence(sequence, folder / sequence.name, source, work)
                # From the first sequence on, so that a part is not taken for the whole
                write_text(folder / "list.txt", "".join(f"{each.name}\n" for each in sequences))
                bar.update(1)
        description.replace(known)
    return folder


def _complete(folder: Path, sequence: Entry) -> bool:
    """Whether every frame and its annotation are there."""
    truth = folder / "groundtruth.txt"
    if not truth.is_file():
        return False
    boxes = len([line for line in truth.read_bytes().splitlines() if line.strip()])
    frames = len(list(folder.glob(f"color/*{Path(sequence.pattern).suffix}")))
    return 0 < frames == boxes == (sequence.length or boxes)


def _fetch_sequence(sequence: Entry, target: Path, source: str, work: Path) -> None:
    """Both archives of a sequence, unpacked and put in place at once."""
    if target.exists() and not (target / "sequence").is_file():
        raise InputError(
            f"{target}: incomplete, and not made by this command; remove it to fetch it anew"
        )
    unpacked, archive = work / sequence.name, work / f"{sequence.name}.zip"
    for (url, sha1), folder in (
        (sequence.annotations, unpacked),
        (sequence.frames, unpacked / "color"),
    ):
        place = urljoin(source, url)
        if not _is_remote(place):  # a path may have letters that mean something in an address
            place = str(Path(source).parent / url)
        _unpack(_download(place, archive, sha1), folder)
        archive.unlink()
    if not _complete(unpacked, sequence):
        raise InputError(
            f"{source}: the archives of {sequence.name} have not as many frames as annotations"
            + (f", {sequence.length}" if sequence.length else "")
        )
    # As the toolkit has it
    write_text(
        unpacked / "sequence",
        f"name={sequence.name}\nfps={sequence.fps}\nformat=default\n"
        f"channels.color=color/{sequence.pattern}\n",
    )
    shutil.rmtree(target, ignore_errors=True)
    unpacked.replace(target)


def _is_remote(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into `folder`, which its members cannot leave. Raises InputError where it
    is damaged."""
    try:
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise InputError(f"{archive}: not a readable zip file ({error})") from None


def fetch_weights(path: Union[str, Path], source: str = WEIGHTS) -> Path:
    """PySOT's SiamRPN++ (`siamrpn_r50_l234_dwxcorr`) as the file `path`, verified by loading it.
    Returns the path.

    source: PySOT's folder on Google Drive, a URL of the file, or a local file.
    """
    from lib.siamrpn.checkpoint import load_network

    path = Path(path)
    if path.exists():
        load_network(path)
        return path
    with _workplace(path.parent) as work:
        file = _download(source, work / path.name)
        try:
            load_network(file)
        except InputError as error:
            raise InputError(str(error).replace(str(file), source)) from None
        file.replace(path)
    return path


def _download(place: str, target: Path, sha1: str = "") -> Path:
    """A URL or a local file as the file `target`, which is whole or not there. Raises
    InputError."""
    try:
        import pooch
    except ImportError:
        raise InputError("downloading needs a package (pip install pooch)") from None
    pooch.get_logger().setLevel("ERROR")
    remote = _is_remote(place)
    downloader: Any = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    if not remote:
        downloader = _from_here
    elif place.startswith("https://drive.google.com/"):
        downloader = _from_drive
    shelf = pooch.create(
        path=target.parent,
        base_url="",
        registry={target.name: f"sha1:{sha1}" if sha1 else None},
        urls={target.name: place},
        retry_if_failed=RETRIES if remote else 0,
    )
    try:
        return Path(shelf.fetch(target.name, downloader=downloader))
    except (OSError, ValueError) as error:  # requests' own are OSErrors
        raise InputError(f"{place}: cannot be fetched ({_reason(error)})") from None


def _reason(error: Exception) -> str:
    """Why a download failed, in a few words."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"status {response.status_code}"
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).split(". ")[0]


def _from_here(place: str, target: str, _: Any) -> None:
    shutil.copyfile(place, target)


def _from_drive(place: str, target: str, _: Any) -> None:
    """A file of Google Drive, or the .pth file of a folder there."""
    advice = "download it in a browser and name the file as the source"
    try:
        import gdown
    except ImportError:
        raise InputError(
            f"{place}: a package is missing (pip install gdown), or {advice}"
        ) from None
    options: Any = {"quiet": True, "use_cookies": False}
    try:
        ids = re.findall(r"(?:/d/|id=)([\w-]+)", place)
        if "/folders/" in place:
            files: Any = gdown.download_folder(place, skip_download=True, **options) or []
            ids = [file.id for file in files if file.path.endswith(".pth")]
        if not ids:
            raise LookupError("no weights there")
        gdown.download(id=ids[0], output=target, **options)
    except Exception as error:  # gdown's own ones differ by version, and requests' come through
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{place}: the package gdown does not get it ({reason}); {advice}"
        ) from None


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A folder `.fetch` inside `folder` to work in, for one process at a time; empty in the
    beginning, and gone in the end."""
    work, lock, there = folder / ".fetch", folder / ".fetch.lock", folder.exists()
    with locked(lock, f"{folder}: another fetch is under way there"):
        shutil.rmtree(work, ignore_errors=True)
        try:
            work.mkdir()
            yield work
        except OSError as error:
            raise InputError(f"{folder}: cannot be written ({error.strerror or error})") from None
        finally:
            shutil.rmtree(work, ignore_errors=True)
            lock.unlink()
            if not there:
                with suppress(OSError):  # not empty
                    folder.rmdir()
