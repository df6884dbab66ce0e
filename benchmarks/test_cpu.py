"""FastCNF and its peers on a CPU, interleaved. Fails on a wrong value, never on a slow one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from benchmarks.common.candidates import CANDIDATES, MODES, OURS, Problem, check_agreement
from benchmarks.common.interleave import interleave
from benchmarks.common.workloads import WORKLOADS, Workload, select
from benchmarks.compare import CLOCKS
from benchmarks.report import Row

HALF = f"{OURS} bf16"
TORCHDIFFEQ = (OURS, f"{OURS} hutchinson", HALF, "odeint", "odeint_adjoint")
QUICK = (OURS, "odeint")


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Args:
        mode: ``"train"``: forward, and backward to z and all parameters; or ``"inference"``.
        names: Candidates, ours first.
        budget: Seconds to spend.
        min_rounds: At least so many samples.
    """

    workload: Workload
    mode: str
    names: tuple[str, ...]
    budget: float
    min_rounds: int


def cases(config: pytest.Config) -> Iterator[Case]:
    """What the options ask for."""
    named = config.getoption("workloads")
    workloads = WORKLOADS if named is None else select(named.split(","))
    for workload in workloads:
        if config.getoption("full"):
            yield Case(workload, "train", tuple(CANDIDATES), 15, 15)
            # Without gradients the adjoint is plain odeint, and the compiled peers matter less
            # than the minutes that compiling them once more takes.
            yield Case(workload, "inference", TORCHDIFFEQ[:4], 5, 15)
        elif named is not None or workload.name == "W2":
            yield Case(workload, "train", TORCHDIFFEQ, 15, 15)
            yield Case(workload, "inference", QUICK, 5, 15)
        else:
            yield Case(workload, "train", QUICK, 3, 5)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    thread_counts = [int(count) for count in metafunc.config.getoption("threads").split(",")]
    chosen = list(cases(metafunc.config))
    metafunc.parametrize("threads", thread_counts, ids="threads={}".format)
    metafunc.parametrize("case", chosen, ids=[f"{c.workload.name}-{c.mode}" for c in chosen])


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

    run = MODES[case.mode]
    calls = {name: partial(run, module, problem) for name, module in modules.items()}
    timings = interleave(
        calls,
        threads=threads,
        budget=case.budget,
        min_rounds=case.min_rounds,
        clock=CLOCKS[pytestconfig.getoption("clock")],
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
    }
    record(row)
    for name in names[1:]:
        benchmark.extra_info[f"ratio {name}"] = timings.ratio(name, OURS).median
    benchmark.extra_info |= row
    benchmark.pedantic(calls[OURS], rounds=3)
