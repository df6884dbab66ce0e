"""Timing several callables in turns, so that whatever else the machine does hits all of them."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

#: Seconds of calls that precede a sample where two thread pools take turns: PyTorch's threads keep
#: their cores busy for 8 ms after their work, JAX's for 0.5 ms, measured on two cores.
SETTLE = 0.02


class Quartiles(NamedTuple):
    """Median and quartiles of some samples.

    Example:
        >>> Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0])
        Quartiles(lower=2.0, median=3.0, upper=4.0)
    """

    lower: float
    median: float
    upper: float

    @classmethod
    def of(cls, samples: list[float]) -> "Quartiles":
        """Linear interpolation between the samples."""
        return cls(*(float(q) for q in np.quantile(samples, (0.25, 0.5, 0.75))))

    def as_ratio(self) -> str:
        """Of quartiles of ratios, in a table."""
        return f"{self.median:.2f}x ({self.lower:.2f}-{self.upper:.2f})"

    def as_time(self) -> str:
        """Of quartiles of seconds, in a table: the median."""
        return f"{self.median * 1e3:.3g} ms" if self.median < 1 else f"{self.median:.3g} s"


@dataclass(frozen=True)
class Timings:
    """What `interleave` measured.

    Args:
        seconds: For each callable one sample a round; sample i of all was taken in round i.
    """

    seconds: dict[str, list[float]]

    @property
    def rounds(self) -> int:
        """Samples of each callable."""
        return len(next(iter(self.seconds.values())))

    def time(self, name: str) -> Quartiles:
        """Seconds of one call."""
        return Quartiles.of(self.seconds[name])

    def ratio(self, name: str, base: str) -> Quartiles:
        """How many times longer than ``base`` a call takes: quartiles of the rounds' own ratios.

        Example:
            >>> Timings({"a": [1.0, 2.0, 3.0], "b": [2.0, 4.0, 9.0]}).ratio("b", "a").median
            2.0
        """
        pairs = zip(self.seconds[name], self.seconds[base], strict=True)
        return Quartiles.of([numerator / denominator for numerator, denominator in pairs])


def by_clock(
    clock: Callable[[], float], settle: float = 0.0
) -> Callable[[Callable[[], object]], float]:
    """A timer for `interleave`. A call that returns a float has timed itself, elsewhere.

    Args:
        clock: Seconds.
        settle: Calls that are not counted go before each sample until so many seconds are over.
    """

    def timer(call: Callable[[], object]) -> float:
        began = time.perf_counter()
        while time.perf_counter() - began < settle:
            call()
        began = clock()
        answer = call()
        took = clock() - began
        return answer if isinstance(answer, float) else took

    return timer


def interleave(
    callables: Mapping[str, Callable[[], object]],
    *,
    threads: int,
    budget: float,
    min_rounds: int = 15,
    max_rounds: int = 200,
    warmup: int = 3,
    clock: Callable[[], float] = time.perf_counter,
    timer: Callable[[Callable[[], object]], float] | None = None,
) -> Timings:
    """Time A B C A B C ... until the budget is spent.

    The garbage collector is off while the clock runs; it works between the rounds.

    Args:
        callables: What to time, by name.
        threads: PyTorch's thread count meanwhile.
        budget: Seconds after which no further round starts, once there are ``min_rounds``.
        min_rounds: At least so many samples of each.
        max_rounds: At most so many.
        warmup: Rounds before the first sample, not counted.
        clock: Seconds.
        timer: Makes one call and says how many seconds it took; default: `by_clock`.
    """
    timed = by_clock(clock) if timer is None else timer
    threads_before = torch.get_num_threads()
    collecting = gc.isenabled()
    seconds: dict[str, list[float]] = {name: [] for name in callables}
    torch.set_num_threads(threads)
    try:
        for _ in range(warmup):
            for call in callables.values():
                call()
        gc.collect()
        # What exists by now stays: collecting after each round then costs little.
        gc.freeze()
        gc.disable()
        start = clock()
        for done in range(max_rounds):
            if done >= min_rounds and clock() - start >= budget:
                break
            for name, call in callables.items():
                seconds[name].append(timed(call))
            gc.collect()
    finally:
        if collecting:
            gc.enable()
        gc.unfreeze()
        torch.set_num_threads(threads_before)
    return Timings(seconds)
