"""A row of the GPU table, measured on the CPU: everything but the GPU itself."""

import shutil
from dataclasses import replace

import pytest
import torch

from benchmarks.common.candidates import Problem, check_agreement
from benchmarks.common.workloads import Workload
from benchmarks.gpu import report as gpu_report
from benchmarks.gpu.candidates import GPU_ENGINES, candidates, usable
from benchmarks.gpu.row import Case, Machine, measure
from mvae_fast import engines
from tests.gpu.places import rerun

SMALL = Workload("W2 B=5", 7, (11,), "squash", "softplus", 5, 4, "")
OURS = tuple(name for name in ("cpp", "reference") if name in engines.available())


def machine(**changes):
    parts = {
        "device": "cpu",
        "engines": OURS,
        "timer": lambda call: (call(), 0.25)[1],
        "capture": rerun,
        "peak": lambda call: (call(), 1000)[1],
    }
    return Machine(**(parts | changes))


@pytest.mark.parametrize("precision", ["full", "tf32", "bf16"])
@pytest.mark.parametrize("mode", ["train", "inference"])
def test_row(precision, mode):
    row = measure(Case(SMALL, mode, precision, hutchinson=True, budget=0), machine())
    ours = list(OURS)
    assert list(row["seconds"]) == [
        ours[0],
        *(f"{name} graph" for name in ours),
        *ours[1:],
        *(f"{name} hutchinson" for name in ours),
        "odeint",
        "odeint_adjoint",
    ]
    assert all(set(samples) == {0.25} for samples in row["seconds"].values())
    assert row["precision"] == precision and row["steps"] == 4 and row["batch"] == 5
    assert (set(row["memory"].values()) == {1000}) == (mode == "train")
    assert row["sizes"]["states"] == 4 * 3 * 5 * 7
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_graph_that_differs_is_noticed():
    def wrong(call):
        replay, outputs = rerun(call)
        return lambda: (replay(), outputs[0].add_(1)), outputs

    with pytest.raises(AssertionError, match="replay of the graph differs"):
        measure(Case(SMALL, "train", "full", budget=0), machine(capture=wrong))


def test_what_no_engine_can_do_is_no_row():
    with pytest.raises(ValueError, match=r"engines: none of \('cpp',\) runs here in fp16"):
        measure(Case(SMALL, "train", "fp16"), machine(engines=("cpp",)))


def test_engines_that_cannot_do_it_are_left_out():
    assert usable(["reference"], "cpu", "fp16") == ("reference",)
    assert usable(["cpp"], "cpu", "fp16") == ()
    assert usable(["cpp"], "cuda", "full") == ()
    assert set(GPU_ENGINES) <= set(engines.ENGINES) - {"cpp", "reference"}


def test_candidates():
    names = list(candidates("tf32", ["one", "two"], compile_peers=True))
    assert names[:2] == ["one", "two"] and names[2:4] == ["odeint", "odeint_adjoint"]
    assert names[4:] == ["compile exact", "compile hutchinson"]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ on a CPU")
def test_compiled_peer_agrees():
    # One step of one peer: compiling in this mode takes long.
    problem = Problem(replace(SMALL, steps=1), torch.float32)
    known = candidates("bf16", [], compile_peers=True)
    module = known["compile exact"].build(problem)
    torch.compiler.reset()
    check_agreement({"compile exact": module}, problem, "train", known, engine="reference")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_peers_really_run_in_half_precision(precision):
    problem = Problem(SMALL, torch.float32)
    known = candidates(precision, ["reference"])
    for name in ("odeint", "reference"):
        module = known[name].build(problem)
        check_agreement({name: module}, problem, "train", known)
        as_if_full = candidates("full", ["reference"])
        with pytest.raises(AssertionError):
            check_agreement({name: module}, problem, "train", as_if_full)


def synthetic(**changes):
    row = {
        "workload": "W2 B=1024",
        "mode": "train",
        "precision": "tf32",
        "batch": 1024,
        "steps": 20,
        "ours": ["one", "one graph"],
        "seconds": {
            "one": [0.001, 0.002, 0.003],
            "one graph": [0.001, 0.001, 0.001],
            "odeint": [0.062, 0.1, 0.15],
            "compile exact": [0.004, 0.006, 0.009],
            "compile hutchinson": [0.008, 0.012, 0.018],
        },
        "memory": {"one": 2_700_000, "odeint": 90_000_000},
        "sizes": {"states": 2_000_000, "packed": 100_000, "outputs": 500_000},
    }
    return row | changes


def test_latency_is_per_step_and_of_few_rows_only():
    rows = [synthetic(), synthetic(workload="W2 B=256", batch=256, steps=10)]
    lines = gpu_report.latency(rows).splitlines()
    assert lines[0].startswith("Latency of one step at B=256")
    assert len(lines) == 2 + 2 + 1
    assert lines[-1].startswith("| W2 B=256 | train | tf32 | 200.0 | 100.0 | 10000.0 |")
    assert gpu_report.latency(rows[:1]) == ""


def test_memory_is_over_the_states():
    one_step = synthetic(sizes={"states": 0, "packed": 1, "outputs": 1}, precision="bf16")
    lines = gpu_report.memory([synthetic(), one_step]).splitlines()
    assert lines[-2] == "| W2 B=1024 | tf32 | 2.0 | 0.1 | 0.5 | 2.7 (1.10x) | 90.0 (44.75x) |"
    assert lines[-1] == "| W2 B=1024 | bf16 | 0.0 | 0.0 | 0.0 | 2.7 | 90.0 |"
    assert gpu_report.memory([synthetic(memory={})]) == ""


def test_aims_say_what_was_reached():
    lines = gpu_report.aims([synthetic(), synthetic(mode="inference")]).splitlines()
    table = [line.strip("| ").split(" | ") for line in lines[4:]]
    assert [line[2:] for line in table] == [
        ["one", "odeint's time over it", ">= 60x", "50.00x", "no"],
        ["one", "the best compiled peer's time over it", ">= 5x", "3.00x", "no"],
        ["one graph", "odeint's time over it", ">= 60x", "100.00x", "yes"],
        ["one graph", "the best compiled peer's time over it", ">= 5x", "6.00x", "yes"],
        ["one", "peak memory over saved states", "<= 1.2x", "1.10x", "yes"],
    ]
    assert gpu_report.aims([synthetic(mode="inference")]) == ""
