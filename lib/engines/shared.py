"""What variants that are measured together share: the answers of their search engine.

Mixtures of precisions (section 4.2.1) run the same search engine, and while their boxes round to the same pixels they ask it
about the same crop. The first one that asks computes; for the others the answer is the same, bit by bit, and so is what it
costs: their clock is charged with the seconds that the first one took. What looking up and keeping takes is taken off the clock.
"""
from __future__ import annotations

import time
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

from lib.engines.base import Engine

STEP = 16  # every 16th pixel finds a crop; equality of all of them decides
MOST_BYTES = 2**30  # of crops and answers that are kept


class SharedEngine:
    """An engine that remembers what it answered (the `Engine` contract, for engines whose calls return when they are done).

    credit: seconds to add to a clock that times calls. hits: calls that were answered from memory.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine, self.credit, self.hits, self._bytes = engine, 0.0, 0, 0
        self._known: Dict[bytes, List[Tuple[np.ndarray, Dict[str, Any], float]]] = {}

    def __call__(self, feeds: Mapping[str, Any]) -> Dict[str, Any]:
        begin = time.perf_counter()
        [asked] = feeds.values()
        key = asked[..., ::STEP, ::STEP].tobytes()
        for other, answer, seconds in self._known.get(key, ()):
            if np.array_equal(asked, other):
                self.hits += 1
                self.credit += seconds - (time.perf_counter() - begin)
                return answer
        found = time.perf_counter()
        answer = self.engine(feeds)
        done = time.perf_counter()
        if self._bytes < MOST_BYTES:
            kept = self.engine.keep(answer)
            self._known.setdefault(key, []).append((asked, kept, done - found))
            self._bytes += asked.nbytes + sum(map(_size, kept.values()))
        self.credit -= time.perf_counter() - begin - (done - found)
        return answer

    def clock(self) -> float:
        """Seconds, as a clock gives them that only sees what the engine itself takes."""
        return time.perf_counter() + self.credit

    def forget(self) -> None:
        """Forget all answers: a new sequence has other crops."""
        self._known.clear()
        self._bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.engine, name)


def _size(tensor: Any) -> int:
    """Bytes of an array or tensor; PyTorch's have `nbytes` from 2.1 on."""
    return int(tensor.nbytes if hasattr(tensor, "nbytes") else tensor.element_size() * tensor.nelement())
