"""A clock that gives pytest-benchmark the samples that were taken in turns with the peers'."""

import time
from collections import deque
from collections.abc import Sequence
from typing import Any


class Replay:
    """A timer: twice a sample, its begin and its end; with none loaded, the time.

    So ``--benchmark-json``, ``--benchmark-save`` and ``--benchmark-compare`` judge what the table
    shows, in place of calls of their own that nobody takes turns with.

    Example:
        >>> clock = Replay()
        >>> clock.load([2.0, 0.5])
        >>> [clock() for _ in range(4)]
        [0.0, 2.0, 0.0, 0.5]
    """

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def __call__(self) -> float:
        return self._times.popleft() if self._times else time.perf_counter()

    def load(self, samples: Sequence[float]) -> None:
        """Seconds that the next rounds took."""
        self._times.extend(moment for sample in samples for moment in (0.0, sample))

    def into(self, benchmark: Any, samples: Sequence[float]) -> None:
        """Make these the rounds of pytest-benchmark's fixture, whose timer this is."""
        self.load(samples)
        benchmark.pedantic(lambda: None, rounds=len(samples))


REPLAY = Replay()
