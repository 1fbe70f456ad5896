"""The one exception for faults that the person at the keyboard can mend."""
from __future__ import annotations


class InputError(Exception):
    """One sentence that names the file (or option) and its fault. The command line prints it and exits with status 2."""
