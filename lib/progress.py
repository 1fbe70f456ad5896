"""One line that says what is done, how much of it, and how long the rest will take: on terminals in
place, in logs every 20 s."""

from __future__ import annotations

import sys
import threading
from typing import Any, Optional, TextIO

from tqdm import tqdm

LOG_SECONDS = 20.0  # between two lines of a log, also where nothing was finished meanwhile
FORMAT = "{desc} {percentage:3.0f} % |{bar:20}| {elapsed} gone, about {remaining} left{postfix}"
ENDLESS = "{desc} {n_fmt}, {elapsed} gone{postfix}"  # where nobody knows how much there is


class _Lines:
    """A stream for a log: what would overwrite a terminal's line becomes a line of its own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        line = text.strip("\r\n ")
        return self._stream.write(line + "\n") if line else 0

    def flush(self) -> None:
        self._stream.flush()


class _Bar(tqdm):
    """A bar that does not exceed its total by a rounding error, and that goes on telling the time
    during a long step."""

    def __init__(self, *args: Any, seconds: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._ended = threading.Event()
        if not self.disable:
            threading.Thread(target=self._tell, args=(seconds,), daemon=True).start()

    def _tell(self, seconds: float) -> None:
        said = self.n
        while not self._ended.wait(seconds):
            if self.n == said:
                self.refresh()
            said = self.n

    @property
    def format_dict(self) -> Any:
        """Of less than a hundredth, which workers spend on starting, no time left is guessed."""
        known = super().format_dict
        return {**known, "rate": 0.0} if self.n < 0.01 * (self.total or 0) else known

    def update(self, n: Optional[float] = 1) -> Optional[bool]:
        return super().update(min(n or 0, self.total - self.n) if self.total else n)

    def close(self) -> None:
        self._ended.set()
        super().close()


def progress(
    total: Optional[float], what: str, shown: bool = True, done: float = 0, late: bool = False
) -> Any:
    """A tqdm bar over `total` units of work (None: not known), of which `done` are done already;
    `set_description` says what is being done, `update` counts.

    The time left follows from the mean speed so far. shown: False gives a bar that prints nothing.
    late: a log gets its first line after 20 s, so work of a moment leaves none.
    """
    terminal = sys.stderr.isatty()
    return _Bar(
        total=max(total, 1e-9) if total is not None else None,
        initial=done,
        delay=LOG_SECONDS if late and not terminal else 0,
        desc=what,
        disable=not shown,
        smoothing=0,
        mininterval=0.2 if terminal else LOG_SECONDS,
        file=sys.stderr if terminal else _Lines(sys.stderr),
        bar_format=FORMAT if total is not None else ENDLESS,
        ascii=None if terminal else True,
        ncols=None if terminal else 110,
        seconds=1.0 if terminal else LOG_SECONDS,
    )
