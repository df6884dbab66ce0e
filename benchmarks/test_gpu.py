"""FastCNF's GPU engines and their peers, interleaved. Fails on a wrong value, never on a slow one.

Without the `benchmark` fixture: it would time the host, and this runs where pytest-benchmark is
not installed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from benchmarks.common.workloads import WORKLOADS, select
from benchmarks.gpu.row import Case, Machine, measure
from benchmarks.gpu.timing import why_no_gpu
from benchmarks.report import Row

DEFAULT = "W1,W2,W3,W5"

pytestmark = pytest.mark.skipif(why_no_gpu() is not None, reason=str(why_no_gpu()))


def cases(config: pytest.Config) -> Iterator[Case]:
    """What the options ask for."""
    full, named = config.getoption("full"), config.getoption("workloads")
    workloads = WORKLOADS if full and named is None else select((named or DEFAULT).split(","))
    for batch in (int(rows) for rows in config.getoption("batches").split(",")):
        for workload in workloads:
            sized = replace(workload, name=f"{workload.name} B={batch}", batch=batch)
            for precision in config.getoption("precisions").split(","):
                for mode in ("train", "inference"):
                    compile_peers = mode == "train" and (full or config.getoption("compiled"))
                    yield Case(sized, mode, precision, full, compile_peers)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    chosen = list(cases(metafunc.config))
    names = [f"{c.workload.name}-{c.mode}-{c.precision}".replace(" ", "-") for c in chosen]
    metafunc.parametrize("case", chosen, ids=names)


@pytest.fixture(scope="module")
def machine() -> Machine:
    return Machine.gpu()


def test_gpu(case: Case, machine: Machine, record: Callable[[Row], None]) -> None:
    record(measure(case, machine))
