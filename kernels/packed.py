"""A problem as the Triton kernels take it: packed tables, constants, sizes."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from . import launch
from .device.sweep import CONSTANT, MATRIX, NO_TRACE, PROBES, VECTOR
from .forward import forward_kernel
from .layout import Shapes, pad, padded

# By the ops' number for the operands of products.
_FULL = 0
_HALVES = {1: torch.bfloat16, 2: torch.float16}


@dataclass(frozen=True)
class Net:
    """A net by its tables; shapes as in `mvae_fast.integrate.integrate`."""

    weight: Tensor
    gate: Tensor | None
    bias: Tensor
    trace: Tensor | None
    second: Tensor | None
    probes: Tensor | None
    widths: tuple[int, ...]
    nonlinearity: int
    residual: bool


@dataclass(frozen=True)
class Plan:
    """How to integrate it: the static arguments of the ops."""

    a: tuple[float, ...]
    b: tuple[float, ...]
    outputs: tuple[int, ...]
    checkpoint: int
    penalties: int
    operands: int


class Solve:
    """What forward and backward have in common: packed tables, constants, sizes."""

    def __init__(self, z: Tensor, h: Tensor, net: Net, plan: Plan) -> None:
        self.net, self.plan = net, plan
        self.z, self.h = z, h
        self.batch, self.dim = z.shape
        self.steps, self.stages = h.shape[0], len(plan.b)
        self.operand = _HALVES.get(plan.operands, z.dtype)
        self.processors = _processors(z.device)
        full = plan.operands == _FULL and z.dtype == torch.float32
        self.config = launch.choose(self.batch, self.operand.itemsize, self.processors, full)

        self.widths = widths = padded(net.widths)
        self.features = sum(widths[1:])
        # As they are: of the weights, of gates and biases, and of the tables of Tr J and Tr J^2.
        self.matrices: Shapes = list(zip(net.widths[1:], net.widths[:-1], strict=True))
        self.vectors: Shapes = [(m,) for m in net.widths[1:]]
        depth = len(widths) - 1
        self.trace = NO_TRACE.value if net.probes is None else PROBES.value
        if net.trace is not None:
            self.trace = (CONSTANT, VECTOR, MATRIX)[depth - 1].value
        self.slopes = self.trace == MATRIX.value or net.second is not None
        matrix = self.trace == MATRIX.value
        self.trace_shapes = self.matrices[1:2] if matrix else self.vectors[:1]
        self.second_shapes: Shapes = [(net.widths[1], net.widths[1])]
        #: Widths of the extra columns of the two tapes.
        self.extra_x = widths[1] if self.slopes else 0
        self.extra_delta = widths[2 if matrix else 1] if self.slopes else 0
        self.x_ld = sum(widths[:-1]) + self.extra_x
        self.delta_ld = self.features + self.extra_delta
        self.probes = 0 if net.probes is None else net.probes.shape[0]

        bias = trace = second = pad(net.bias, self.vectors)
        gate = bias if net.gate is None else pad(net.gate, self.vectors)
        if net.trace is not None:
            trace = net.trace if depth == 1 else pad(net.trace, self.trace_shapes)
            trace = trace.to(self.operand) if matrix else trace
        if net.second is not None:
            second = pad(net.second, self.second_shapes).to(self.operand)
        weight = pad(net.weight, self.matrices).to(self.operand)
        #: One of them where there is none.
        self.tables = {
            "weight": weight, "gate": gate, "bias": bias, "trace": trace, "second": second
        }  # fmt: skip

    @property
    def signature(self) -> tuple[Any, ...]:
        """What the best configuration depends on; batches of about the same size share it."""
        batch = (self.batch - 1).bit_length()
        net, plan = self.net, self.plan
        kind = (net.widths, self.trace, self.probes, plan.b, plan.operands, plan.penalties)
        return (batch, *kind, self.z.dtype, str(self.z.device))

    def constants(self, **more: Any) -> dict[str, Any]:
        """The compile-time arguments that all sweeps share."""
        net, config = self.net, self.config
        return {
            "KIND": net.nonlinearity, "GATED": net.gate is not None, "RESIDUAL": net.residual,
            "TRACE": self.trace, "TANGENTS": self.probes > 0, "SECOND": net.second is not None,
            "SLOPES": self.slopes, "PENALTIES": self.plan.penalties,
            "BM": config.rows, "BN": config.columns, "BK": config.depth,
            "DT": TRITON_TYPES[self.z.dtype], "PRECISION": self.precision,
            "num_warps": config.warps, "num_stages": config.stages,
            **more,
        }  # fmt: skip

    @property
    def precision(self) -> str:
        """Of the products, as `tl.dot` names it."""
        if self.z.dtype == torch.float64:
            return "ieee"
        # TF32 alone rounds operands to 10 bits; three products of it make up for that, where "ieee"
        # would leave the tensor cores, and spill.
        return "tf32x3" if self.plan.operands == _FULL else "tf32"

    @property
    def penalties(self) -> int:
        """Their number."""
        return self.plan.penalties.bit_count()

    def net_arguments(self) -> dict[str, Any]:
        """The tables, the probes and the distances of their rows."""
        net = self.net
        probes = self.z if net.probes is None else net.probes
        strides = (0, 0) if net.probes is None else net.probes.stride()[:2]
        return {
            **self.tables,
            **{
                f"{name}_stride": 0 if table.shape[0] == 1 else table.shape[1]
                for name, table in self.tables.items()
            },
            "probes": probes, "probe_stride": strides[0], "probe_row_stride": strides[1],
            "widths": self.table(self.widths, torch.int32),
            "a": self.table(self.plan.a, self.z.dtype),
            "b": self.table(self.plan.b, self.z.dtype),
            "B": self.batch, "D": self.dim, "K": self.probes,
            "L": len(net.widths) - 1, "R": self.stages,
            "x_ld": self.x_ld, "n_penalties": self.penalties,
        }  # fmt: skip

    def table(self, values: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        return launch.table(tuple(values), dtype, self.z.device)

    def empty(self, *shape: int) -> Tensor:
        """In the dtype of the state."""
        return self.z.new_empty(shape)

    def empty_operands(self, *shape: int) -> Tensor:
        """In the dtype of the products' operands."""
        return torch.empty(shape, dtype=self.operand, device=self.z.device)

    def reports(self) -> tuple[int, ...]:
        """For each step, which output follows it, or -1."""
        order = {step - 1: n for n, step in enumerate(self.plan.outputs)}
        return tuple(order.get(s, -1) for s in range(self.steps))

    def following(self) -> tuple[int, ...]:
        """For each step, the first output after it."""
        return tuple(sum(step <= s for step in self.plan.outputs) for s in range(self.steps))

    def run_forward(
        self,
        z: Tensor,
        first: int,
        steps: int,
        reports: tuple[int, ...],
        outputs: tuple[Tensor, Tensor, Tensor],
        states: Tensor,
        checkpoint: int,
        **constants: Any,
    ) -> None:
        """Steps ``first .. first + steps`` from ``z``; ``states`` may be empty: none are saved."""
        grid = launch.programs(self.batch, self.config, self.processors)
        rows, width = self.config.rows, self.widths[0]
        forward_kernel[(grid,)](
            z=z, h=self.h, **self.net_arguments(),
            z_out=outputs[0], logp_out=outputs[1], penalty_out=outputs[2], states=states,
            x_scratch=self.empty_operands(grid, 1 + self.probes, rows, self.x_ld),
            d_scratch=self.empty(grid, 2 + self.stages, rows, width),
            report=self.table(reports, torch.int32),
            first_step=first, steps=steps, checkpoint=checkpoint,
            **self.constants(SAVE=states.numel() > 0, **constants),
        )  # fmt: skip


TRITON_TYPES = {torch.float32: triton.language.float32, torch.float64: triton.language.float64}


def _processors(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).multi_processor_count
    return 2  # Triton's interpreter: enough to have several programs
