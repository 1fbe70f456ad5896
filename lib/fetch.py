"""Data and weights of chapter 4: VOT2018 (section 3.3.2) by the challenge's description file, and
PySOT's SiamRPN++.

Links die, so every function takes another `source`: a URL, or a file or folder on this machine. A
download goes on where it stopped, what it brings is verified before it gets its name, archives are
unpacked without leaving their folder, and what is complete is not fetched again. What is under way
lies in a folder `.fetch` beside the result.

The description (`description.json`, as votchallenge/toolkit reads it in vot/dataset/common.py):

    {"name": .., "sequences": [{"name": .., "fps": .., "length": ..,
        "annotations": {"url": "bag.zip", "checksum": SHA-1, "compressed": .., "uncompressed": ..},
        "channels": {"color": {"url": .., "checksum": .., "pattern": "%08d.jpg", ..}}}, ..]}

sizes in bytes, where a URL is absolute or relative to the description's own. `name`, both `url` and
`channels.color` are needed, the rest is used where it is there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import time
import zipfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Iterator, List, Tuple, Union
from urllib.parse import urljoin, urlsplit

from lib.errors import InputError
from lib.files import locked, write_text

# Stack vot2018/shortterm of the toolkit
VOT2018 = "https://data.votchallenge.net/vot2018/main/description.json"
# siamrpn_r50_l234_dwxcorr in MODEL_ZOO.md
WEIGHTS = "https://drive.google.com/drive/folders/1Q4-1563iPwV6wSf_lBHDj5CPFiGSlEPG"
TRIES = 5  # in a row that bring no new byte
PAUSE = 1.0  # s after the first of them, doubled for each further one
TIMEOUT = 30.0  # s without a byte
_WORK = ".fetch"
_DIGESTS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}  # by the checksum's length


class _Missing(InputError):
    """There is nothing at this address."""


@dataclass(frozen=True)
class Archive:
    """A zip file of the description; checksum: hexadecimal, "" where none is given."""

    url: str
    checksum: str


@dataclass(frozen=True)
class Sequence:
    """A sequence of the description; length: frames, 0 where it does not say."""

    name: str
    length: int
    fps: str
    pattern: str
    annotations: Archive
    frames: Archive


def read_description(text: str, source: str) -> List[Sequence]:
    """The sequences of a description. Raises InputError that names `source` and the fault, also for
    names unfit for folders."""
    try:
        sequences = [_sequence(entry) for entry in json.loads(text)["sequences"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{source}: not a description of VOT sequences ({type(error).__name__}: {error})"
        ) from None
    names = [sequence.name for sequence in sequences]
    bad = [name for name in names if not re.fullmatch(r"[\w-][\w.-]*", name)]
    if bad:
        raise InputError(f"{source}: '{bad[0]}' is no name for a sequence")
    if not names or len(set(names)) < len(names):
        raise InputError(f"{source}: no sequences, or one of them twice")
    return sequences


def _sequence(entry: Any) -> Sequence:
    color = entry["channels"]["color"]
    annotations, frames = (
        Archive(str(archive["url"]), str(archive.get("checksum") or "").lower())
        for archive in (entry["annotations"], color)
    )
    return Sequence(
        str(entry["name"]),
        int(entry.get("length") or 0),
        str(entry.get("fps", 30)),
        str(color.get("pattern", "%08d.jpg")),
        annotations,
        frames,
    )


def fetch_vot2018(folder: Union[str, Path], source: str = VOT2018, progress: bool = True) -> Path:
    """VOT2018 in VOT layout in `folder`, which lib.vot.dataset.load_dataset reads. Returns the
    folder.

    source: the description's URL or path, or the folder that holds it, there or on a mirror. The
    files it names are looked for where it says, on a mirror at the same place below its root or
    beside the description. Raises InputError, where running it again goes on; until then list.txt
    names sequences that are not there, so that nobody takes a part for the whole.
    """
    folder = Path(folder)
    known = folder / "description.json"
    with suppress(OSError, UnicodeDecodeError, InputError):  # no description yet, or none of use
        described = read_description(known.read_text(), str(known))
        if all(_complete(folder / sequence.name, sequence) for sequence in described):
            return folder
    source = (
        str(source)
        if str(source).endswith(".json")
        else f"{str(source).rstrip('/')}/description.json"
    )
    with _alone(folder) as work:
        text = _text(source, work, progress)
        sequences = read_description(text, source)
        write_text(folder / "list.txt", "".join(f"{sequence.name}\n" for sequence in sequences))
        for sequence in _bar(sequences, progress, desc="VOT2018", unit="sequence"):
            if not _complete(folder / sequence.name, sequence):
                _fetch_sequence(sequence, folder / sequence.name, source, work, progress)
        write_text(known, text)
    return folder


def _complete(folder: Path, sequence: Sequence) -> bool:
    """Whether every frame and its annotation are there. (A folder gets its name when it is whole; a
    user may lose files.)"""
    try:
        lines = sum(
            1 for line in (folder / "groundtruth.txt").read_text().splitlines() if line.strip()
        )
        frames = sum(
            1
            for file in (folder / "color").iterdir()
            if file.suffix == Path(sequence.pattern).suffix
        )
    except (OSError, UnicodeDecodeError):
        return False
    return 0 < frames == lines == (sequence.length or lines)


def _fetch_sequence(
    sequence: Sequence, target: Path, source: str, work: Path, progress: bool
) -> None:
    """Both archives of a sequence, unpacked and put in place at once."""
    if target.exists() and not (target / "sequence").is_file():
        raise InputError(
            f"{target}: incomplete, and not made by this command; remove it to fetch it anew"
        )
    unpacked = work / "unpacked"
    shutil.rmtree(str(unpacked), ignore_errors=True)
    try:
        for archive, kind in ((sequence.annotations, ""), (sequence.frames, "color")):
            file = _archive(
                archive, source, work / f"{sequence.name}.{kind or 'annotations'}.zip", progress
            )
            try:
                unpack(file, unpacked / kind)
            finally:
                if file.parent == work:  # else it is the user's own
                    file.unlink()
        if not _complete(unpacked, sequence):
            raise InputError(
                f"{source}: the archives of '{sequence.name}' have not as many frames as annotations"
                + (f", {sequence.length}" if sequence.length else "")
            )
        # As the toolkit has it
        write_text(
            unpacked / "sequence",
            f"name={sequence.name}\nfps={sequence.fps}\nformat=default\n"
            f"channels.color=color/{sequence.pattern}\n",
        )
        if target.exists():
            shutil.rmtree(str(target))
        os.replace(str(unpacked), str(target))
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror or error})") from None
    finally:
        shutil.rmtree(str(unpacked), ignore_errors=True)


def _archive(archive: Archive, source: str, target: Path, progress: bool) -> Path:
    """An archive with the right checksum: `target` after a download, or a local source's own
    file."""
    missing: List[InputError] = []
    for place in places(source, archive.url):
        try:
            if _is_url(place):
                return download(place, target, archive.checksum, progress)
            if not Path(place).is_file():
                raise _Missing(f"{place}: no such file")
            if archive.checksum and _digest(Path(place), archive.checksum) != archive.checksum:
                raise InputError(f"{place}: another checksum than the description's")
            return Path(place)
        except _Missing as error:
            missing.append(error)
    raise missing[0]


def places(source: str, url: str) -> List[str]:
    """Where the file lies that the description at `source` (URL or path) calls `url`, the likeliest
    place first."""
    if source == VOT2018:
        return [urljoin(source, url)]
    join = (
        urljoin
        if _is_url(source)
        else lambda start, rest: os.path.normpath(os.path.join(start, rest))
    )
    beside, below = source[: source.rfind("/") + 1], url
    start, tail = beside, "vot2018/main/description.json"
    if _is_url(url):  # on the challenge's server, of which this is a copy
        start, below = (
            source[: -len(tail)] if source.endswith(tail) else beside,
            urlsplit(url).path.lstrip("/"),
        )
    return list(dict.fromkeys([join(start, below), join(beside, below.rpartition("/")[2])]))


def _is_url(place: str) -> bool:
    return place.startswith(("http://", "https://"))


def _text(source: str, work: Path, progress: bool) -> str:
    """The description's text."""
    try:
        if not _is_url(source):
            return Path(source).read_text(encoding="utf-8")
        file = download(source, work / "description.json", "", progress)
        try:
            return file.read_text(encoding="utf-8")
        finally:
            file.unlink()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{source}: cannot be read ({getattr(error, 'strerror', None) or 'not a text file'})"
        ) from None


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip file into `folder`; refused as a whole where a member would leave it, is a link,
    or does not fit on the disk.

    Raises InputError, also where the archive is damaged: the folder may then hold a part.
    """
    try:
        with zipfile.ZipFile(str(archive)) as zipped:
            members = zipped.infolist()
            for member in members:
                name, kind = (
                    member.filename.replace("\\", "/"),
                    stat.S_IFMT(member.external_attr >> 16),
                )
                if name.startswith("/") or ":" in name or ".." in name.split("/"):
                    raise InputError(
                        f"{archive}: refused, its member '{member.filename}' would leave the folder"
                    )
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise InputError(
                        f"{archive}: refused, its member '{member.filename}' is a link or a device"
                    )
            folder.mkdir(parents=True, exist_ok=True)
            need, free = (
                sum(member.file_size for member in members),
                shutil.disk_usage(str(folder)).free,
            )
            if need > free:
                raise InputError(
                    f"{folder}: {need / 1e9:.1f} GB are needed for {archive.name}, {free / 1e9:.1f} GB are free"
                )
            zipped.extractall(str(folder))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        raise InputError(f"{archive}: not a readable zip file ({error})") from None


def fetch_weights(path: Union[str, Path], source: str = WEIGHTS, progress: bool = True) -> Path:
    """PySOT's SiamRPN++ (`siamrpn_r50_l234_dwxcorr`) as the file `path`, verified by loading it.
    Returns the path.

    source: PySOT's folder on Google Drive (by the package gdown), or a file's URL, there or
    anywhere, or a local file.
    """
    from lib.siamrpn.checkpoint import load_network

    path, source = Path(path), str(source)
    if path.exists():
        try:
            load_network(path)
        except InputError as error:
            raise InputError(f"{error}; remove this file to fetch it anew") from None
        return path
    with _alone(path.parent) as work:
        file = work / path.name
        try:
            if urlsplit(source).hostname == "drive.google.com":
                _from_drive(source, file, progress)
            elif _is_url(source):
                download(source, file, "", progress)
            else:
                shutil.copyfile(source, str(file))
            load_network(file)
            os.replace(str(file), str(path))
        except InputError as error:
            raise InputError(str(error).replace(str(file), source)) from None
        except OSError as error:
            raise InputError(f"{error.filename or path}: {error.strerror or error}") from None
        finally:
            with suppress(FileNotFoundError):
                file.unlink()
    return path


def _from_drive(source: str, target: Path, progress: bool) -> None:
    """A file of Google Drive, or the .pth file of a folder there."""
    advice = "download it in a browser and name the file as the source"
    try:
        import gdown
    except ImportError:
        raise InputError(
            f"{source}: a package is missing (pip install gdown), or {advice}"
        ) from None
    try:
        if "/folders/" in source:
            files: Any = (
                gdown.download_folder(source, skip_download=True, quiet=True, use_cookies=False)
                or []
            )
            ids = [file.id for file in files if file.path.endswith(".pth")]
        else:
            ids = re.findall(r"(?:/d/|id=)([\w-]+)", source)
        if ids:
            gdown.download(
                id=ids[0], output=str(target), quiet=not progress, use_cookies=False, resume=True
            )
    except Exception as error:  # gdown's own ones differ by version, and requests' come through
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{source}: Google Drive does not give it ({reason}); {advice}") from None
    if not target.is_file():
        raise InputError(f"{source}: no weights there; {advice}")


def download(url: str, target: Path, checksum: str = "", progress: bool = True) -> Path:
    """One URL as the file `target`. What an earlier call got of the same version is a file
    `target`.*.part, and is gone on with.

    checksum: hexadecimal MD5, SHA-1, SHA-256 or SHA-512, by its length. Raises InputError: nothing
    wrong is left, only the part.
    """
    for _ in range(2):
        part = _download_part(url, target, checksum, progress)
        if not checksum or _digest(part, checksum) == checksum:
            os.replace(str(part), str(target))
            return target
        part.unlink()  # perhaps begun with a version that is no more: once again from the start
    raise InputError(f"{url}: brings other bytes than described (checksum {checksum})")


def _download_part(url: str, target: Path, checksum: str, progress: bool) -> Path:
    """All bytes of a URL in a .part file, whatever the connection does."""
    try:
        import requests
        from urllib3.exceptions import HTTPError as Broken
    except ImportError:
        raise InputError("downloading needs a package (pip install requests)") from None
    most, tries = -1, 0
    with requests.Session() as session:
        while True:
            try:
                part, reason = _transfer(session, url, target, progress)
                if not reason:
                    return part
            except requests.HTTPError as error:
                reason = str(error)
            except (requests.RequestException, Broken) as error:
                reason = f"the connection fails ({type(error).__name__})"
            except OSError as error:
                raise InputError(
                    f"{target}: cannot be written ({error.strerror or error})"
                ) from None
            parts = _parts(target)
            if parts and checksum and _digest(parts[0], checksum) == checksum:
                return parts[0]  # the server was wrong about the length
            size = parts[0].stat().st_size if parts else 0
            tries = 1 if size > most else tries + 1
            most = max(most, size)
            if tries >= TRIES:
                raise InputError(
                    f"{url}: {reason}, {TRIES} times"
                    + (f" ({size} bytes are kept to go on with)" if size else "")
                )
            time.sleep(PAUSE * 2 ** (tries - 1))


def _transfer(session: Any, url: str, target: Path, progress: bool) -> Tuple[Path, str]:
    """One try. Returns the .part file and why it is not whole ("" if it is)."""
    # Bytes of a compressed body would be of no use to go on with
    plain = {"Accept-Encoding": "identity"}
    response = session.get(url, headers=plain, stream=True, timeout=TIMEOUT)
    try:
        _refuse(response)
        length, version = response.headers.get("Content-Length", ""), _version(response)
        total = int(length) if length.isdigit() else -1
        part = target.with_name(
            f"{target.name}.{zlib.crc32(f'{version} {total}'.encode()):08x}.part"
        )
        for other in _parts(target):
            if other != part:
                other.unlink()
        have = part.stat().st_size if part.is_file() else 0
        if have and have == total:
            return part, ""
        if have:
            response.close()
            response = session.get(
                url, headers={**plain, "Range": f"bytes={have}-"}, stream=True, timeout=TIMEOUT
            )
            answer = re.match(
                r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "")
            )
            if (
                response.status_code == 206
                and answer
                and int(answer[1]) == have
                and _version(response) in (version, "None")
            ):
                total = int(answer[2]) if answer[2] != "*" else total
            else:  # it knows no ranges, or has another version by now, or the part is too long
                part.unlink()
                have = 0
                if response.status_code != 200 or _version(response) != version:
                    _refuse(response, but=(206, 416))
                    return part, "it does not go on where it stopped"
        with part.open("ab") as file, _bar(
            None,
            progress,
            total=total if total > 0 else None,
            initial=have,
            desc=target.name,
            unit="B",
            unit_scale=True,
            leave=False,
        ) as bar:
            # iter_content would lose what came before a cut
            for chunk in iter(lambda: response.raw.read(1 << 16), b""):
                file.write(chunk)
                bar.update(len(chunk))
        size = part.stat().st_size
        return (
            part,
            ""
            if total < 0 or size == total
            else f"the connection ends after {size} of {total} bytes",
        )
    finally:
        response.close()


def _version(response: Any) -> str:
    """What tells one version of a file from the next, "None" where the server does not say."""
    return str(response.headers.get("ETag") or response.headers.get("Last-Modified"))


def _refuse(response: Any, but: Tuple[int, ...] = ()) -> None:
    """Raise for a status that is not 200: what trying again may mend as requests' own error."""
    code = response.status_code
    if code in (404, 410):
        raise _Missing(f"{response.url}: not there (status {code})")
    if 400 <= code < 500 and code not in (408, 429, *but):
        raise InputError(f"{response.url}: refused (status {code} {response.reason})")
    if code != 200 and code not in but:
        from requests import HTTPError

        raise HTTPError(f"status {code} {response.reason}")


def _parts(target: Path) -> List[Path]:
    return [
        file
        for file in target.parent.iterdir()
        if file.name.startswith(f"{target.name}.") and file.suffix == ".part"
    ]


def _digest(path: Path, like: str) -> str:
    """A file's checksum in hexadecimal, of the kind that has the length of `like`."""
    if len(like) not in _DIGESTS:
        raise InputError(f"'{like}' is no checksum known here")
    digest = hashlib.new(_DIGESTS[len(like)])
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _bar(items: Any, progress: bool, **options: Any) -> Any:
    from tqdm import tqdm

    return tqdm(items, disable=None if progress else True, **options)  # None: shown on a terminal


@contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """A folder inside `folder` to work in, for one process at a time. It goes away when all is
    done, or nothing is left in it."""
    work = folder / _WORK
    with locked(work / "lock", f"{folder}: another fetch is under way there"):
        try:
            yield work
            shutil.rmtree(str(work))
        finally:
            with suppress(OSError):  # parts to go on with keep it
                (work / "lock").unlink()
                work.rmdir()
