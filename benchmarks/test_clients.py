"""FastCNF's adaptive solvers against what others run. Fails on a wrong value, never on a slow one.

Where a peer is named, by ``--peers torchdiffeq,diffrax,flow_matching``; else one row. Zuko's CNF
and torchdiffeq's example are in ``clients/test_own_nets.py``.
"""

from collections.abc import Callable

import pytest
import torch

from benchmarks.clients.comparison import Comparison
from benchmarks.clients.likelihoods import LIKELIHOODS
from benchmarks.clients.training import TRAININGS
from benchmarks.common.interleave import SETTLE, by_clock, interleave
from benchmarks.common.peers import why_missing
from benchmarks.compare import CLOCKS
from benchmarks.report import Row

COMPARISONS: tuple[Comparison, ...] = (*TRAININGS, *LIKELIHOODS)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    counts = [int(count) for count in metafunc.config.getoption("threads").split(",")]
    metafunc.parametrize("threads", counts, ids="threads={}".format)
    names = [f"{c.name}-{c.peer}".replace(", ", "-").replace(" ", "-") for c in COMPARISONS]
    metafunc.parametrize("comparison", COMPARISONS, ids=names)


def test_clients(
    comparison: Comparison,
    threads: int,
    record: Callable[[Row], None],
    pytestconfig: pytest.Config,
) -> None:
    reason = why_missing(comparison.peer)
    if reason is not None:
        pytest.skip(reason)
    dtype, clock = pytestconfig.getoption("dtype"), pytestconfig.getoption("clock")
    threads_before = torch.get_num_threads()
    torch.set_num_threads(threads)  # JAX's process gets as many cores
    try:
        prepared = comparison.prepare(getattr(torch, dtype), clock)
    finally:
        torch.set_num_threads(threads_before)
    timings = interleave(
        prepared.calls,
        threads=threads,
        budget=10,
        min_rounds=5,
        warmup=1,
        clock=CLOCKS[clock],
        timer=by_clock(CLOCKS[clock], SETTLE if comparison.peer == "diffrax" else 0.0),
    )
    record(
        {
            "workload": comparison.name,
            "shape": comparison.shape,
            "mode": comparison.mode,
            "threads": threads,
            "dtype": dtype,
            "seconds": {n: [round(s, 7) for s in each] for n, each in timings.seconds.items()},
            "aims": comparison.aims,
            "evaluations": prepared.evaluations,
            "errors": prepared.errors,
        }
    )
