"""What every command runs inside: names that no file can have are refused, files of others are
spared, and whatever goes wrong is one sentence."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import warnings
from contextlib import contextmanager, suppress
from typing import Callable, Iterator, Optional

from lib.errors import InputError
from lib.files import refuse_others

# What a file begins with that a command made, and may make again
MARKS = {
    "calibrate": b"# Largest absolute values of activations",
    "tune": b"# siambook tune",
    "score": b"layer,channel,score",
    "cut": b"made_by",
    "recalibrate": b"made_by",
}


def run_guarded(
    command: Callable[[argparse.Namespace], Optional[int]], options: argparse.Namespace
) -> int:
    """Run a command; returns its exit status: 2, with one sentence on standard error, for a fault.
    With `--debug` exceptions come through, and libraries may talk."""
    _mend_streams()
    try:
        _check_names(options)
        if options.debug:
            return command(options) or 0
        with _quiet():
            return command(options) or 0
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        print("siambook: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        print(f"siambook: {_sentence(error)}", file=sys.stderr)
        return 2


def _mend_streams() -> None:
    """Give a daemon, whose streams are closed, places to write to; and escape letters that a
    stream's encoding lacks."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115 stays open
        with suppress(AttributeError, ValueError):  # a notebook's, a closed one
            getattr(sys, name).reconfigure(errors="backslashreplace")


def _check_names(options: argparse.Namespace) -> None:
    """Raise InputError for text that can be no path, and for an output that others made."""
    for values in vars(options).values():
        for text in values if isinstance(values, list) else [values]:
            if not isinstance(text, str):
                continue
            parts = os.fsencode(text).split(b"/")
            if not text:
                raise InputError("an empty name")
            if not text.isprintable():
                raise InputError(f"{text!a}: a name that is not printable, or not UTF-8")
            if max(map(len, parts)) > 255 or sum(map(len, parts)) > 4000:
                raise InputError(f"{text}: too long for a name")
    if getattr(options, "out", None):
        refuse_others(options.out, MARKS.get(getattr(options, "action", options.command), b""))


def _sentence(error: Exception) -> InputError:
    """A fault in a sentence; what nobody foresaw is named by its type."""
    if isinstance(error, InputError):
        return error
    if isinstance(error, OSError) and error.filename is not None:
        return InputError(f"{error.filename}: {error.strerror}")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return InputError("the output cannot be written (no space left)")
    lines = str(error).strip().splitlines() or ["no more is known"]
    return InputError(f"{type(error).__name__}: {lines[0]} (unforeseen; --debug shows where)")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings, and what C libraries write by themselves, from standard error; `sys.stderr`
    stays."""
    saved, before = os.dup(2), sys.stderr
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        own = before.fileno() == 2
    except (AttributeError, OSError, ValueError):
        own = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if own:
                sys.stderr = os.fdopen(os.dup(saved), "w", 1, errors="backslashreplace")
            os.dup2(nothing, 2)
            yield
    finally:
        os.dup2(saved, 2)
        sys.stderr = before
        os.close(saved)
        os.close(nothing)
