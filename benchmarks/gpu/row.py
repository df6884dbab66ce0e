"""One row of the GPU table: agreement, device time, peak memory."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from benchmarks.common.candidates import MODES, Candidate, Problem, check_agreement
from benchmarks.common.interleave import interleave
from benchmarks.common.precision import products
from benchmarks.common.sizes import sizes
from benchmarks.common.workloads import Workload
from benchmarks.gpu.candidates import GPU_ENGINES, candidates, usable
from benchmarks.gpu.timing import DeviceTimer, captured
from benchmarks.memory import forward_backward, output_gradients
from benchmarks.report import Row


@dataclass(frozen=True)
class Case:
    """What a row is about.

    Args:
        workload: Its name says the batch, too.
        hutchinson: As of `benchmarks.gpu.candidates.candidates`.
        compile_peers: Likewise.
        budget: Seconds to spend on samples.
    """

    workload: Workload
    mode: str
    precision: str
    hutchinson: bool = False
    compile_peers: bool = False
    budget: float = 0.3


@dataclass(frozen=True)
class Machine:
    """How a row is measured.

    Args:
        device: Where the tensors live.
        engines: Ours; each row takes those that can do its precision.
        timer: As of `benchmarks.common.interleave.interleave`.
        capture: As `benchmarks.gpu.timing.captured`.
        peak: As `peak_bytes`.
    """

    device: str
    engines: tuple[str, ...]
    timer: Callable[[Callable[[], object]], float]
    capture: Callable[[Callable[[], Any]], tuple[Callable[[], object], Any]]
    peak: Callable[[Callable[[], object]], int]

    @classmethod
    def gpu(cls) -> "Machine":
        """The current GPU."""
        return cls("cuda", GPU_ENGINES, DeviceTimer.on_gpu(), captured, peak_bytes)


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that a call takes of PyTorch's GPU memory above what was taken before."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def measure(case: Case, machine: Machine) -> Row:
    """Check that the candidates agree with the reference, then time them in turns.

    Raises:
        AssertionError: If a candidate is wrong, or a graph's replay differs in a bit.
        ValueError: If there is no engine to measure.
    """
    ours = usable(machine.engines, machine.device, case.precision)
    if not ours:
        raise ValueError(f"engines: none of {machine.engines} runs here in {case.precision}")
    problem = Problem(case.workload, torch.float32, device=machine.device)
    known = candidates(
        case.precision, ours, hutchinson=case.hutchinson, compile_peers=case.compile_peers
    )
    # Each case compiles anew; without this the limit on recompilations ends a long run.
    torch.compiler.reset()
    with products(case.precision):
        modules = {name: candidate.build(problem) for name, candidate in known.items()}
        check_agreement(modules, problem, case.mode, known, engine="reference")
        run = MODES[case.mode]
        calls: dict[str, Callable[[], Any]] = {
            name: partial(run, module, problem) for name, module in modules.items()
        }
        graphs = {f"{name} graph": _replay(calls[name], machine) for name in ours}
        first, *others = calls
        timings = interleave(
            {first: calls[first], **graphs, **{name: calls[name] for name in others}},
            threads=torch.get_num_threads(),
            budget=case.budget,
            min_rounds=7,  # the slowest peers take 0.1 s a call
            timer=machine.timer,
        )
        memory = _memory(modules, known, problem, machine) if case.mode == "train" else {}
    return {
        "workload": case.workload.name,
        "shape": case.workload.shape,
        "mode": case.mode,
        "precision": case.precision,
        "dtype": "float32",
        "batch": case.workload.batch,
        "steps": case.workload.steps,
        "ours": [name for engine in ours for name in (engine, f"{engine} graph")],
        "seconds": {name: [round(x, 9) for x in xs] for name, xs in timings.seconds.items()},
        "memory": memory,
        "sizes": asdict(sizes(case.workload)),
    }


def _replay(call: Callable[[], Any], machine: Machine) -> Callable[[], object]:
    expected = call()
    replay, outputs = machine.capture(call)
    replay()
    for got, wanted in zip(outputs, expected, strict=True):
        assert torch.equal(got, wanted), "the replay of the graph differs from the call"
    return replay


def _memory(
    modules: dict[str, nn.Module], known: dict[str, Candidate], problem: Problem, machine: Machine
) -> dict[str, int]:
    """Bytes above the inputs of a training step without its loss.

    Compiled peers are left out: their graphs hold memory of their own between the calls.
    """
    gradients = output_gradients(problem.workload, machine.device)
    return {
        name: machine.peak(partial(forward_backward, modules[name], problem, *gradients))
        for name in known
        if not name.startswith("compile")
    }
