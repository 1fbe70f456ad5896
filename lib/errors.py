"""The one exception for faults that the person at the keyboard can mend."""

from __future__ import annotations

LONGEST = 800  # characters of a sentence


class InputError(Exception):
    """One sentence that names the file (or option) and its fault. The command line prints it and
    exits with status 2."""

    def __str__(self) -> str:
        """The sentence alone on one line, also after a worker process of PyTorch's DataLoader has
        put its traceback around it; the middle of a very long one (of a name in it) is left out."""
        text = " ".join(super().__str__().split("InputError: ")[-1].split())
        return (
            text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 4 :]}"
        )
