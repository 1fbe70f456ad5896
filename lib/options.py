"""The options of the command `siambook`: how a function becomes a command, the options that several
commands share, and the values of options, or a sentence on what they should have been."""

from __future__ import annotations

import argparse
import re
from importlib import metadata
from math import isfinite
from typing import Any, Callable, Dict, List, NoReturn, Optional

FRAMEWORKS = ("pytorch", "openvino", "tensorrt")
COMPILED = ("auto", *FRAMEWORKS[1:])
PRECISIONS = ("fp32", "fp16", "int8")
NEGATIVE = re.compile(r"-[.\d]")  # how a value begins that is no option

Run = Callable[[argparse.Namespace], Optional[int]]


# -- Values ----------------------------------------------------------------------------------------


def box(text: str) -> List[float]:
    try:
        x, y, w, h = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not x,y,w,h") from None
    return [x, y, w, h]


def precisions(text: str) -> List[str]:
    names = text.lower().split(",")
    if not set(names) <= set(PRECISIONS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {', '.join(PRECISIONS)}")
    return names


def of_networks(text: str) -> List[str]:
    """The precisions of target, search and xcorr network; one stands for all three."""
    names = precisions(text)
    if len(names) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is neither one precision nor three")
    return names if len(names) == 3 else names * 3


def positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def above_0(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def milliseconds(text: str) -> float:
    return above_0(text[:-2] if text.endswith("ms") else text)


# -- Shared options --------------------------------------------------------------------------------

SHARED: Dict[str, Dict[str, Any]] = {
    "--weights": {"default": "demo", "help": "`demo`, or a checkpoint of a SiamRPN++ (ResNet-50)"},
    "--precision": {
        "type": of_networks,
        "default": "fp32",
        "metavar": "P[,P,P]",
        "help": "fp32, fp16 or int8, for all networks or for target,search,xcorr",
    },
    "--device": {"default": "cpu", "help": "cpu or cuda"},
    "--threads": {
        "type": positive,
        "metavar": "N",
        "help": "of every framework alike (default: PyTorch's choice, OMP_NUM_THREADS)",
    },
    "--json": {"action": "store_true", "help": "print everything as JSON"},
    "--stop-after": {
        "type": positive,
        "metavar": "N",
        "help": "stop with a checkpoint after this many pairs, or pictures of classes",
    },
    "--profile": {
        "metavar": "YAML",
        "help": "parameters (default: SIAMBOOK_PROFILE, or profiles/demo.yaml)",
    },
    "--run": {"metavar": "NAME", "help": "the run (data/runs/NAME) in place of the profile's"},
    "--scheduler": {
        "metavar": "ADDRESS",
        "help": "track on a Dask cluster, tcp://HOST:PORT, or in processes of this machine, `local` "
        "(the default on a CPU)",
    },
    "--workers": {
        "type": positive,
        "metavar": "N",
        "help": "processes of this machine (default: one per core)",
    },
}


# -- Commands --------------------------------------------------------------------------------------


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Shows defaults where there are any."""

    def _get_help_string(self, action: argparse.Action) -> Optional[str]:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, and takes an option once."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:  # type: ignore[override]
        names = [each.partition("=")[0] for each in args if each.startswith("--")]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            self.error(f"argument {twice}: given twice, of which only one could count")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _version() -> str:
    try:
        return metadata.version("siambook")
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return "(not installed)"


# All commands and their options: `command` of what it parses is the name, `function` what runs
PARSER = _Parser(
    prog="siambook", description="Siamese tracking, measured as the thesis measures it."
)
PARSER.add_argument("--version", action="version", version=f"siambook {_version()}")
COMMANDS = PARSER.add_subparsers(dest="command", required=True, metavar="COMMAND")


def option(*names: str, **about: Any) -> Callable[[Run], Run]:
    """An option, or an argument, of the command below; about: as argparse's add_argument has it."""

    def declare(function: Run) -> Run:
        vars(function).setdefault("options", []).insert(0, (names, about))
        return function

    return declare


def command(example: str, *shared: str) -> Callable[[Run], Run]:
    """Make a function, whose docstring is the summary, a command of its name. shared: the options
    of SHARED that it has besides its own."""

    def declare(function: Run) -> Run:
        name = function.__name__.replace("_", "-")
        summary = " ".join((function.__doc__ or "").split())
        parser = COMMANDS.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"Example: siambook {name} {example}",
            formatter_class=_Help,
            allow_abbrev=False,
        )
        parser._negative_number_matcher = NEGATIVE  # or argparse takes -5,30,40,40 for an option
        parser.add_argument("--debug", action="store_true", help="let a fault show where it is")
        for each in shared:
            parser.add_argument(each, **SHARED[each])
        for names, about in vars(function).pop("options", []):
            parser.add_argument(*names, **about)
        parser.set_defaults(function=function)
        return function

    return declare
