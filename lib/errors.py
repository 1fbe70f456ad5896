"""The one exception for faults that the person at the keyboard can mend."""

from __future__ import annotations


class InputError(Exception):
    """One sentence that names the file (or option) and its fault. The command line prints it and
    exits with status 2."""

    def __str__(self) -> str:
        """The sentence alone, also after a worker process of PyTorch's DataLoader has put its
        traceback around it."""
        return super().__str__().split("InputError: ")[-1].strip()
