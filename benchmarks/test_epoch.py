"""A training epoch on data of MNIST's shape, MVAE-CNF and MVAE: ours and the original's way."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks.common.interleave import interleave
from benchmarks.common.replay import REPLAY
from benchmarks.compare import CLOCKS
from benchmarks.peers.epoch import MNIST, OURS, PEER, slices
from benchmarks.report import Row

#: Mini-batches that a sample times, of an epoch's 600: enough to hide the ends, and a few seconds.
SLICE = 8

#: Euler steps of the flow: as trained here, and the single one of the original's code; 0: no flow.
MODELS = {"MVAE-CNF, 10 steps": 10, "MVAE-CNF, 1 step": 1, "MVAE": 0}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    thread_counts = [int(count) for count in metafunc.config.getoption("threads").split(",")]
    metafunc.parametrize("threads", thread_counts, ids="threads={}".format)


@pytest.mark.benchmark(timer=REPLAY)
@pytest.mark.parametrize("model", MODELS)
def test_epoch(
    model: str,
    threads: int,
    benchmark: Any,
    record: Callable[[Row], None],
    pytestconfig: pytest.Config,
) -> None:
    dtype = pytestconfig.getoption("dtype")
    calls = slices(MNIST, MODELS[model], SLICE, getattr(torch, dtype))
    timings = interleave(
        calls,
        threads=threads,
        budget=30,
        min_rounds=15,
        max_rounds=60,
        warmup=2,
        clock=CLOCKS[pytestconfig.getoption("clock")],
    )
    epoch = MNIST.batches / SLICE
    row: Row = {
        "workload": model,
        "shape": (
            f"784-{MNIST.width}-{MNIST.width}, {MNIST.classes} classes, D={MNIST.latent}, "
            f"B={MNIST.batch}, Adam; each sample times {SLICE} of {MNIST.batches} mini-batches, "
            "the seconds are those of an epoch at that speed"
        ),
        "mode": "epoch",
        "threads": threads,
        "dtype": dtype,
        "seconds": {
            name: [round(sample * epoch, 4) for sample in samples]
            for name, samples in timings.seconds.items()
        },
    }
    record(row)
    benchmark.extra_info[f"ratio {PEER}"] = timings.ratio(PEER, OURS).median
    benchmark.extra_info |= row
    REPLAY.into(benchmark, row["seconds"][OURS])
