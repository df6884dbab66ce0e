"""FastCNF and its peers on a CPU, interleaved. Fails on a wrong value, never on a slow one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from benchmarks.common.candidates import CANDIDATES, MODES, OURS, Problem, call, check_agreement
from benchmarks.common.interleave import SETTLE, by_clock, interleave
from benchmarks.common.peers import LONG, PEERS, candidates_of, select_peers, why_missing
from benchmarks.common.replay import REPLAY
from benchmarks.common.workloads import WORKLOADS, Workload, select
from benchmarks.compare import CLOCKS
from benchmarks.report import Row

HALF = f"{OURS} bf16"
TORCHDIFFEQ = (OURS, f"{OURS} hutchinson", HALF, "odeint", "odeint_adjoint")
QUICK = (OURS, "odeint")
FULL = (*TORCHDIFFEQ, *PEERS["compile"])


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        mode: ``"train"``: forward, and backward to z and all parameters; or ``"inference"``.
        names: Candidates, ours first.
        budget: Seconds to spend.
        min_rounds: At least so many samples.
        max_rounds: At most so many.
        settle: As of `benchmarks.common.interleave.by_clock`.
    """

    workload: Workload
    mode: str
    names: tuple[str, ...]
    budget: float
    min_rounds: int
    max_rounds: int = 200
    settle: float = 0.0


def cases(config: pytest.Config) -> Iterator[Case]:
    """What the options ask for."""
    named = config.getoption("workloads")
    workloads = WORKLOADS if named is None else select(named.split(","))
    peers = [p for p in select_peers(config.getoption("peers")) if why_missing(p) is None]
    for workload in workloads:
        if config.getoption("peers") is not None:
            yield from _against(workload, peers)
        elif config.getoption("full"):
            yield Case(workload, "train", FULL, 15, 15)
            # Without gradients the adjoint is plain odeint, and the compiled peers matter less
            # than the minutes that compiling them once more takes.
            yield Case(workload, "inference", TORCHDIFFEQ[:4], 5, 15)
        elif named is not None or workload.name == "W2":
            yield Case(workload, "train", TORCHDIFFEQ, 15, 15)
            yield Case(workload, "inference", QUICK, 5, 15)
        else:
            yield Case(workload, "train", QUICK, 3, 5)


def _against(workload: Workload, peers: list[str]) -> Iterator[Case]:
    """All of these peers on a workload."""
    for mode in MODES:
        names = [name for peer in peers for name in candidates_of(peer, workload, mode)]
        if names:
            yield Case(workload, mode, (*TORCHDIFFEQ[:3], *names), 15, 10, settle=SETTLE)
        if "jax" in peers:
            yield Case(workload, mode, (OURS, LONG), 0, 3, max_rounds=3, settle=SETTLE)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    thread_counts = [int(count) for count in metafunc.config.getoption("threads").split(",")]
    chosen = list(cases(metafunc.config))
    metafunc.parametrize("threads", thread_counts, ids="threads={}".format)
    metafunc.parametrize("case", chosen, ids=list(map(_id, chosen)))


def _id(case: Case) -> str:
    return "-".join((case.workload.name, case.mode, *[LONG] * (LONG in case.names)))


@pytest.mark.benchmark(timer=REPLAY)
def test_cpu(
    case: Case,
    threads: int,
    benchmark: Any,
    record: Callable[[Row], None],
    pytestconfig: pytest.Config,
) -> None:
    dtype = getattr(torch, pytestconfig.getoption("dtype"))
    problem = Problem(case.workload, dtype)
    # Compiled code is made for the thread count at hand, as is the order of summation.
    threads_before = torch.get_num_threads()
    # Each case compiles anew; without this the limit on recompilations ends a long run.
    torch.compiler.reset()
    torch.set_num_threads(threads)
    single = dtype == torch.float32
    names = [name for name in case.names if single or CANDIDATES[name].precision == "full"]
    try:
        modules = {name: CANDIDATES[name].build(problem) for name in names}
        check_agreement(modules, problem, case.mode)
    finally:
        torch.set_num_threads(threads_before)

    clock = pytestconfig.getoption("clock")
    calls = {name: call(module, problem, case.mode, clock) for name, module in modules.items()}
    timings = interleave(
        calls,
        threads=threads,
        budget=case.budget,
        min_rounds=case.min_rounds,
        max_rounds=case.max_rounds,
        warmup=min(3, case.min_rounds // 3),
        clock=CLOCKS[clock],
        timer=by_clock(CLOCKS[clock], case.settle),
    )
    seconds = {
        name: [round(sample, 7) for sample in samples] for name, samples in timings.seconds.items()
    }
    row: Row = {
        "workload": case.workload.name,
        "shape": case.workload.shape,
        "mode": case.mode,
        "threads": threads,
        "dtype": pytestconfig.getoption("dtype"),
        "seconds": seconds,
        "traces": {n: CANDIDATES[n].trace for n in names if CANDIDATES[n].precision == "full"},
    }
    record(row)
    for name in names[1:]:
        benchmark.extra_info[f"ratio {name}"] = timings.ratio(name, OURS).median
    benchmark.extra_info |= row
    REPLAY.into(benchmark, row["seconds"][OURS])
