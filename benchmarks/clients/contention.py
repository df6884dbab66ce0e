"""Two threads beside one on a machine that other programs keep busy.

``python -m benchmarks.clients.contention``: training steps in turns, first on the machine as it is,
then beside as many busy loops as it has cores, and two more. The mean counts, too: a thread that is
kept from running costs little in the median and much in the mean.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from benchmarks.common.candidates import CANDIDATES, OURS, Problem, call
from benchmarks.common.environment import print_environment
from benchmarks.common.workloads import select

WORKLOADS = "W1,W2,W5"
MORE_LOOPS = 2


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Processes that do nothing but take time."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def alternate(step: Callable[[], Any], seconds: float) -> dict[int, list[float]]:
    """Seconds of steps with one thread and with two, in turns; each after one that is not timed."""
    found: dict[int, list[float]] = {1: [], 2: []}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for threads, samples in found.items():
            torch.set_num_threads(threads)
            step()
            began = time.perf_counter()
            step()
            samples.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", default=WORKLOADS, help=f"default: {WORKLOADS}")
    parser.add_argument("--seconds", type=float, default=8.0, help="for each workload and load")
    args = parser.parse_args()
    print_environment()
    print("| workload | busy loops | one thread, median | two over one: median | mean |")
    print("|---|---|---|---|---|")
    for workload in select(args.workloads.split(",")):
        problem = Problem(workload, torch.float32)
        step = call(CANDIDATES[OURS].build(problem), problem, "train", "wall")
        for loops in (0, (os.cpu_count() or 1) + MORE_LOOPS):
            with busy(loops):
                one, two = alternate(step, args.seconds).values()
            median = statistics.median(two) / statistics.median(one)
            mean = statistics.mean(two) / statistics.mean(one)
            time_of_one = f"{1e3 * statistics.median(one):.3g} ms"
            print(f"| {workload.name} | {loops} | {time_of_one} | {median:.2f} | {mean:.2f} |")


if __name__ == "__main__":
    main()
