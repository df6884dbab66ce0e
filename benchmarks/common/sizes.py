"""What a training step has to hold, computed from its shapes, and batches that fit a size."""

from dataclasses import dataclass, replace
from math import ceil

import torch

from benchmarks.common.candidates import Problem
from benchmarks.common.workloads import Workload
from mvae_fast.core.trace import trace_table
from mvae_fast.engines.memory import kept_pieces

_ITEM = 4  # bytes of a float32


@dataclass(frozen=True)
class Sizes:
    """What a training step of FastCNF with the exact trace has to hold, in bytes.

    Args:
        states: The states saved for the backward.
        kept: With ``memory="activations"`` what else is kept for it.
        packed: The engine's tables: weights in both orientations, gates, biases and traces of all
            steps, and the matrix of a two-hidden-layer trace for one step, in both orientations.
        outputs: End states and log-densities, the gradients of the start and of the parameters.
    """

    states: int
    kept: int
    packed: int
    outputs: int

    @property
    def held(self) -> int:
        """All but the outputs."""
        return self.states + self.kept + self.packed


def sizes(workload: Workload, memory: str = "states") -> Sizes:
    """From the shapes; what the engine pads its rows with is left out.

    Example:
        >>> sizes(Workload("", 3, (5,), "ignore", "tanh", batch=10, steps=4, note="")).states
        360
    """
    one_row = Problem(replace(workload, batch=1), torch.float32)
    tables = one_row.field()[0].tables()
    trace = trace_table(tables)
    vectors = [x.numel() for x in (tables.gate, tables.bias) if x is not None]
    matrices = [tables.weight.numel()]
    if trace is not None and len(tables.widths) == 4:
        # A matrix, by which both sweeps multiply; held for the step that is under way.
        matrices.append(trace.shape[1])
    elif trace is not None:
        vectors.append(trace.numel())
    parameters = sum(weight.numel() for weight in one_row.weights.values())
    state = workload.batch * workload.dim
    pieces = kept_pieces(tables.widths, trace is not None, 0, 1) if memory == "activations" else []
    return Sizes(
        states=_ITEM * (workload.steps - 1) * state,
        kept=_ITEM * workload.steps * workload.batch * sum(m for m, _ in pieces),
        packed=_ITEM * (2 * sum(matrices) + sum(vectors)),
        outputs=_ITEM * (2 * state + workload.batch + parameters),
    )


def enlarged(workload: Workload, states: int) -> Workload:
    """With so many rows that the saved states, or those of a single step, take ``states`` bytes."""
    saved = max(workload.steps - 1, 1)
    return replace(workload, batch=ceil(states / (_ITEM * workload.dim * saved)))


def affordable(workload: Workload, limit: int) -> Workload:
    """With no more rows than the peer is expected to take ``limit`` bytes for.

    Measured, it keeps 4 to 6 numbers for each feature of each layer, step and row, and 2 steps'
    worth for one step.
    """
    features = sum((workload.dim, *workload.hidden, workload.dim))
    row = _ITEM * 6 * features * (workload.steps + 1)
    return replace(workload, batch=max(1, min(workload.batch, limit // row)))
