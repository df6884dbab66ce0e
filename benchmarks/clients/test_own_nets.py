"""Peers with nets of their own (``--peers zuko,hypernet``) beside FastCNF with the same weights."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from benchmarks.common.candidates import MODES
from benchmarks.common.interleave import interleave
from benchmarks.common.peers import why_missing
from benchmarks.compare import CLOCKS
from benchmarks.peers.hypernet import hypernet_problem
from benchmarks.peers.own_nets import OwnNet
from benchmarks.peers.zuko_flow import zuko_problem
from benchmarks.report import Row

PROBLEMS: dict[str, Callable[[int, int, torch.dtype], OwnNet]] = {
    "zuko": zuko_problem,
    "hypernet": hypernet_problem,
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    counts = [int(count) for count in metafunc.config.getoption("threads").split(",")]
    metafunc.parametrize("threads", counts, ids="threads={}".format)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("peer", "dim", "batch"), [("zuko", 2, 1000), ("zuko", 16, 256), ("hypernet", 2, 512)]
)
def test_own_nets(
    peer: str,
    dim: int,
    batch: int,
    mode: str,
    threads: int,
    record: Callable[[Row], None],
    pytestconfig: pytest.Config,
) -> None:
    reason = why_missing(peer)
    if reason is not None:
        pytest.skip(reason)
    dtype = pytestconfig.getoption("dtype")
    problem = PROBLEMS[peer](dim, batch, getattr(torch, dtype))
    problem.check(mode)
    clock = CLOCKS[pytestconfig.getoption("clock")]
    timings = interleave(
        {name: partial(getattr(problem, mode), name) for name in problem.flows},
        threads=threads,
        budget=10,
        min_rounds=10,
        clock=clock,
    )
    row: Row = {
        "workload": f"{peer} D={dim}",
        "shape": problem.shape,
        "mode": mode,
        "threads": threads,
        "dtype": dtype,
        "seconds": {name: [round(s, 7) for s in each] for name, each in timings.seconds.items()},
    }
    record(row)
