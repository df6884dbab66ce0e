"""The measuring itself, with a clock under control."""

import gc
import time
from itertools import count

import pytest
import torch

from benchmarks.common.interleave import Quartiles, Timings, by_clock, interleave


def test_calls_alternate_and_warmup_is_not_counted():
    order = []
    timings = interleave(
        {name: lambda name=name: order.append(name) for name in "ABC"},
        threads=1,
        budget=0,
        min_rounds=3,
        warmup=2,
    )
    assert order == list("ABC") * 5
    assert timings.rounds == 3


def test_samples_are_the_duration_of_each_call():
    now = 0.0

    def spend(seconds):
        nonlocal now
        now += seconds

    timings = interleave(
        {"fast": lambda: spend(1.0), "slow": lambda: spend(3.0)},
        threads=1,
        budget=0,
        min_rounds=2,
        clock=lambda: now,
    )
    assert timings.seconds == {"fast": [1.0, 1.0], "slow": [3.0, 3.0]}
    assert timings.ratio("slow", "fast").median == 3.0


@pytest.mark.parametrize(("budget", "rounds"), [(0, 4), (1000, 9), (1e9, 20)])
def test_rounds_follow_the_budget_within_their_limits(budget, rounds):
    now = 0.0

    def spend():
        nonlocal now
        now += 125.0

    timings = interleave(
        {"only": spend},
        threads=1,
        budget=budget + 1,
        min_rounds=4,
        max_rounds=20,
        clock=lambda: now,
    )
    assert timings.rounds == rounds


def test_garbage_collector_and_threads_are_set_and_restored():
    threads = torch.get_num_threads()
    seen = []
    ticks = count()
    interleave(
        {"only": lambda: seen.append((gc.isenabled(), torch.get_num_threads()))},
        threads=threads + 1,
        budget=0,
        min_rounds=1,
        warmup=0,
        clock=lambda: float(next(ticks)),
    )
    assert seen == [(False, threads + 1)]
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_restored_after_a_failure():
    threads = torch.get_num_threads()
    calls = count()

    def fails():
        if next(calls) == 1:
            raise ValueError("second call")

    with pytest.raises(ValueError, match="second call"):
        interleave({"only": fails}, threads=threads + 1, budget=0, warmup=1)
    assert gc.isenabled()
    assert torch.get_num_threads() == threads


def test_ratio_is_taken_round_by_round():
    timings = Timings({"a": [1.0, 10.0, 1.0], "b": [2.0, 20.0, 4.0]})
    ratio = timings.ratio("b", "a")
    assert (ratio.lower, ratio.median, ratio.upper) == (2.0, 2.0, 3.0)


def test_a_call_that_answers_seconds_has_timed_itself():
    assert by_clock(lambda: 0.0)(lambda: 0.25) == 0.25


def test_calls_that_are_not_counted_go_before():
    began, calls, readings = time.perf_counter(), [], []

    def clock():
        readings.append(len(calls))
        return float(len(calls))

    def call():
        calls.append(time.perf_counter() - began)

    assert by_clock(clock, settle=0.005)(call) == 1.0
    # All but the last: before the clock is read for the first time.
    assert readings == [len(calls) - 1, len(calls)]
    assert len(calls) > 2 and calls[-1] >= 0.005


def test_texts_of_quartiles():
    assert Quartiles(1.0, 1.256, 2.0).as_ratio() == "1.26x (1.00-2.00)"
    assert Quartiles(0.1, 0.01234, 0.1).as_time() == "12.3 ms"
    assert Quartiles(1.0, 1.5, 2.0).as_time() == "1.5 s"
