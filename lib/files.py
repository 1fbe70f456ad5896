"""Files that appear whole or not at all, locks that go with their process, and the pictures of a
folder in their order."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Iterator, List, Tuple, Union

from lib.errors import InputError

ROOT = Path(__file__).resolve().parent.parent  # the repository

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".dib", ".webp"),
    *(".ppm", ".pgm", ".pnm", ".tif", ".tiff", ".jp2"),
)


def pictures_of(folder: Path) -> List[Path]:
    """The frames of a video's folder: pictures in its color/ or img/, or beside these. Raises
    InputError where two have one name but for their endings."""
    for inside in (folder / "color", folder / "img", folder):
        if inside.is_dir():
            pictures = pictures_in(inside)
            for one, other in zip(pictures, pictures[1:]):
                if one.stem == other.stem:  # a picture and its mask?
                    raise InputError(f"{inside}: {one.name} and {other.name} are one frame or two.")
            if pictures:
                return pictures
    return []


def pictures_in(folder: Path) -> List[Path]:
    """The pictures of a folder in natural order (`2.png` before `10.png`), without hidden files."""
    found = (file for file in folder.iterdir() if file.suffix.lower() in PICTURES)
    return sorted((file for file in found if not file.name.startswith(".")), key=natural_order)


def natural_order(path: Path) -> Tuple[List[Union[str, int]], str]:
    """A key for sorting that compares digits in names as numbers."""
    parts = re.split("([0-9]+)", path.name)  # text and digits in turns
    return [int(part) if part[:1].isdecimal() else part for part in parts], path.name


@contextmanager
def whole_file(path: Union[str, Path]) -> Iterator[Path]:
    """A temporary name to write to; it becomes `path` when the block ends, and goes away when the
    block fails.

    Missing folders are made. What the system refuses (no room, no permission, a file in the way)
    raises InputError naming `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    there = path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(str(temporary), str(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
        if not there:
            with suppress(OSError):  # not empty
                path.parent.rmdir()


def refuse_others(path: Union[str, Path], mark: bytes = b"") -> None:
    """Raise InputError where `path` cannot be written, or is a file without `mark` at its
    beginning: this command did not make it, so it does not replace it."""
    above = next(parent for parent in Path(path).absolute().parents if parent.exists())
    if not above.is_dir():
        raise InputError(f"{path}: cannot be written ({above} is a file)")
    if mark and os.path.lexists(path):
        try:
            with open(path, "rb") as file:
                beginning = file.read(1 << 16)
        except OSError as error:
            raise InputError(f"{path}: cannot be written ({error.strerror})") from None
        if beginning and mark not in beginning:
            raise InputError(
                f"{path}: is there already, and was not made by this command; name another file"
            )


def write_text(path: Union[str, Path], text: str) -> None:
    """Write a text file, whole or not at all (`whole_file`)."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def digest(data: bytes) -> str:
    """The first 16 hexadecimal digits of SHA-256: what files, settings and code are told apart
    by."""
    return hashlib.sha256(data).hexdigest()[:16]


@contextmanager
def locked(path: Union[str, Path], busy: str = "", waiting: str = "") -> Iterator[None]:
    """Hold the lock file `path`, for one process at a time; the lock goes with the process, however
    it ends.

    Missing folders are made. Where another process holds it: raises InputError with the sentence
    `busy` if given, else waits, after printing the sentence `waiting`. What the system refuses
    raises InputError naming the folder.
    """
    try:
        import fcntl
    except ImportError:
        raise InputError("this needs file locks that Windows lacks; run it in WSL") from None
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open(path, "a")  # noqa: SIM115 closed below
    except OSError as error:
        raise InputError(f"{path.parent}: cannot be written ({error.strerror or error})") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if busy:
                raise InputError(busy) from None
            if waiting:
                print(waiting, file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
