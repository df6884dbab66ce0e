"""The CUDA engine's kernels on the host: emulator.cpp by ctypes, as an engine of the tests."""

from __future__ import annotations

import ctypes
import fcntl
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.trace import second_order_table, trace_table
from mvae_fast.engines.enums import NONLINEARITIES, OPERANDS, PENALTY_BITS

ROOT = Path(__file__).parents[2]
Int, Pointer = ctypes.c_int64, ctypes.c_void_p


def _structure(name: str, **fields: Any) -> type[ctypes.Structure]:
    return type(name, (ctypes.Structure,), {"_fields_": list(fields.items())})


# As in csrc/problem.h.
_PROBLEM = _structure(
    "Problem",
    **dict.fromkeys(("B", "S", "L", "K"), Int),
    widths=Pointer,
    nonlinearity=ctypes.c_int,
    operands=ctypes.c_int,
    residual=ctypes.c_bool,
    **dict.fromkeys(("penalties", "R"), Int),
    **dict.fromkeys(("a", "b"), Pointer),
    checkpoint=Int,
    **dict.fromkeys(("z", "h", "probes"), Pointer),
    **dict.fromkeys(("probe_stride", "probe_row_stride"), Int),
    outputs=Pointer,
    n_outputs=Int,
    **dict.fromkeys(("weight", "gate", "bias", "trace", "second"), Pointer),
    **{f"{name}_stride": Int for name in ("weight", "gate", "bias", "trace", "second")},
    **dict.fromkeys(("layers", "time"), Pointer),
    F=Int,
    features=ctypes.c_bool,
    exact=ctypes.c_bool,
    context=Pointer,
)
_RESULTS = ("z", "logp", "penalty", "states", "kept")
_FORWARD = _structure("Forward", **dict.fromkeys(_RESULTS, Pointer))
_INPUTS = _structure("Inputs", **dict.fromkeys(_RESULTS, Pointer))
_GRADIENTS = ("z", "h", "weight", "gate", "bias", "trace", "second")
_BACKWARD = _structure(
    "Backward", **dict.fromkeys((*_GRADIENTS, "layers", "time", "context"), Pointer)
)
_DEVICE = _structure("Device", **dict.fromkeys(("sms", "per_block"), Int))
_SETTINGS = _structure(
    "Settings",
    rows=ctypes.c_int,
    **dict.fromkeys(("grid", "shared_limit", "resident_limit", "window_bytes"), Int),
)


@dataclass(frozen=True)
class Launch:
    """What the launch arithmetic would choose, or (not 0, not -1) what a test wants instead."""

    rows: int = 0
    grid: int = 0
    shared_limit: int = -1
    resident_limit: int = -1
    window_bytes: int = 0
    table_grads: bool = True
    tf32: bool = False  # float32 operands as TF32


@cache
def build(directory: Path) -> ctypes.CDLL:
    """Compile the kernels for the host, where no other process has done it."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        raise RuntimeError("no C++ compiler")
    library = directory / "emulator.so"
    flags = "-std=c++17 -O2 -fPIC -shared -Wall -Wextra -Werror".split()
    source = ROOT / "tests" / "cuda" / "emulator.cpp"
    command = [compiler, *flags, "-I", str(ROOT / "csrc"), str(source), "-o", str(library)]
    with (directory / "emulator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():  # a compiler that fails leaves none
            subprocess.run(command, check=True)
    return ctypes.CDLL(str(library))


def _address(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _stride(table: Tensor | None) -> int:
    return 0 if table is None or table.shape[0] == 1 else table.shape[1]


class Emulator:
    """An engine: `solve`, on the host, with the launch that `using` says."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.launch = Launch()
        self.device = _DEVICE(132, 227 << 10)  # of an H100

    def using(self, **changes: Any) -> None:
        """Launch as these changes of `Launch` say from now on."""
        self.launch = replace(Launch(), **changes)

    def solve(self, problem: Problem) -> Solution:
        tables = problem.field.tables()
        table = trace_table(tables) if problem.closed else None
        second = second_order_table(tables) if problem.log_det == "second_order" else None
        tensors = (problem.z, problem.h, tables.weight, tables.gate, tables.bias, table, second)
        dense = [None if x is None else x.contiguous() for x in tensors]
        return Solution(*_Solve.apply(self, problem, *dense)[:3])

    def call(self, name: str, z: Tensor, *arguments: Any) -> None:
        function = getattr(
            self.library, f"{name}_{'double' if z.dtype == torch.float64 else 'float'}"
        )
        launch = self.launch
        settings = _SETTINGS(
            launch.rows,
            launch.grid,
            launch.shared_limit,
            launch.resident_limit,
            launch.window_bytes,
        )
        everything = [*arguments, self.device, settings]
        function(*(ctypes.byref(x) for x in everything))

    def describe(self, problem: Problem, tensors: list[Tensor | None]) -> tuple[Any, list[Any]]:
        """The C++ struct of a problem, and what has to live as long as it does."""
        z, h, weight, gate, bias, trace, second = tensors
        assert z is not None and h is not None and weight is not None and bias is not None
        field, tableau = problem.field, problem.tableau
        probes = problem.probes
        if probes is not None and probes.stride()[1:] not in ((z.shape[1], 1), (0, 1)):
            probes = probes.contiguous()
        operands = OPERANDS["tf32" if self.launch.tf32 else problem.precision]
        penalties = sum(PENALTY_BITS[name] for name in problem.penalties)

        def array(kind: Any, values: Any) -> Any:
            return (kind * len(values))(*values)

        kept = [
            array(Int, field.widths),
            array(ctypes.c_double, tableau.a),
            array(ctypes.c_double, tableau.b),
            array(Int, problem.outputs),
            tensors,
            probes,
        ]
        widths, a_array, b_array, output_array = (ctypes.addressof(x) for x in kept[:4])
        count = 0 if probes is None else probes.shape[0]
        struct = _PROBLEM(
            *(z.shape[0], h.shape[0], len(field.widths) - 1, count, widths),
            *(NONLINEARITIES[field.nonlinearity], operands, field.residual),
            *(penalties, len(tableau.b), a_array, b_array, problem.checkpoint_every),
            *map(_address, (z, h, probes)),
            *((0, 0) if probes is None else probes.stride()[:2]),
            *(output_array, len(problem.outputs)),
            *map(_address, tensors[2:]),
            *map(_stride, tensors[2:]),
            *(None, None, 0, False, False, None),
        )
        return struct, kept


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, emulator: Emulator, problem: Problem, *tensors: Tensor | None) -> Any:
        z, h = tensors[:2]
        assert z is not None and h is not None
        count, penalties = len(problem.outputs), len(problem.penalties)
        saved = (h.shape[0] - 1) // problem.checkpoint_every
        outputs = [
            z.new_full(shape, float("nan"))
            for shape in (
                (count, *z.shape),
                (count, z.shape[0]),
                (count, penalties, z.shape[0]),
                (saved, *z.shape),
            )
        ]
        struct, _ = emulator.describe(problem, list(tensors))
        emulator.call("forward", z, struct, _FORWARD(*map(_address, outputs)))
        ctx.emulator, ctx.problem = emulator, problem
        ctx.mark_non_differentiable(outputs[3])
        ctx.save_for_backward(*tensors, outputs[3])
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        *tensors, states = ctx.saved_tensors
        emulator = ctx.emulator
        struct, _ = emulator.describe(ctx.problem, tensors)
        incoming = [x.contiguous() for x in grads[:3]]
        wanted = [True, True, *(emulator.launch.table_grads for _ in tensors[2:])]
        results = [
            None if x is None or not want else torch.full_like(x, float("nan"))
            for x, want in zip(tensors, wanted, strict=True)
        ]
        emulator.call(
            "backward",
            tensors[0],
            struct,
            _INPUTS(*map(_address, (*incoming, states))),
            _BACKWARD(*map(_address, results), None, None, None),
        )
        return None, None, *results
