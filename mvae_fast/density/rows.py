"""Batches of any shape through a flow, which takes rows, with the log-determinant of its map."""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from mvae_fast.checks import tensor
from mvae_fast.core import grid
from mvae_fast.nets.layers import LINEAR_LAYERS
from mvae_fast.nets.odenet import ODEnet
from mvae_fast.nets.readable import Readable
from mvae_fast.ode.called import base_of


def move(
    flow: nn.Module,
    name: str,
    x: Tensor,
    context: Tensor | None = None,
    *,
    event_dim: int = 1,
    reverse: bool = False,
    with_change: bool = True,
    **how: Any,
) -> tuple[Tensor, Tensor | None]:
    r"""Move a batch of any shape in one solve.

    Args:
        flow: Called as ``flow(rows, logp, reverse=, context=, ...) -> (rows, logp)``.
        name: What to call ``x`` in messages.
        x: (*, D), or any batch of states with ``event_dim`` axes each.
        context: (*, C); its batch and that of ``x`` are broadcast.
        event_dim: Axes of one state.
        reverse: Against the direction of the flow.
        with_change: Whether the log-determinant is wanted.
        how: Further arguments of the flow; None where they are not given.

    Returns:
        The moved states, (*, D), and ``log|det|`` of this map, (*), or None.

    Raises:
        TypeError: If an input is no dense tensor.
        ValueError: If a shape or dtype does not fit.
    """
    check_states(flow, name, x, event_dim)
    batch, event = x.shape[: x.ndim - event_dim], x.shape[x.ndim - event_dim :]
    extra = {key: value for key, value in how.items() if value is not None}
    if context is not None:
        batch = joint_batch(name, batch, context)
        extra["context"] = context.expand(*batch, -1).reshape(-1, context.shape[-1])
    times = extra.get("integration_times")
    if times is not None and (count := grid.check_times(times, x).shape[0]) != 2:
        raise ValueError(f"integration_times: got {count}, expected 2, a start and an end")
    probes = extra.pop("probes", None)
    if probes is not None and with_change:
        extra["probes"] = _rows_of_probes(probes, (*batch, *event), event_dim)
    plain = context is None and len(batch) == 1
    rows = x if plain else x.expand(*batch, *event).reshape(-1, *event)
    if not with_change:
        return flow(rows, reverse=reverse, **extra).reshape(*batch, *event), None
    moved, change = flow(rows, rows.new_zeros(rows.shape[0]), reverse=reverse, **extra)
    # A flow subtracts log|det| from the log-density that it is handed.
    if plain:
        return moved, -change
    return moved.reshape(*batch, *event), -change.reshape(batch)


def check_states(flow: nn.Module, name: str, x: Tensor, event_dim: int) -> None:
    """Raise TypeError or ValueError, by ``name``, unless ``x`` is a batch of states of the flow."""
    known = event_shape_of(flow) if event_dim == 1 else None
    size = known[0] if known else "D"
    expected = f"(*, {size})" if event_dim == 1 else f"{event_dim} axes or more"
    tensor(name, x, expected)
    if x.ndim < event_dim or (known and x.shape[-1:] != known):
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected {expected}")
    ours = getattr(flow, "sqrt_end_time", x)
    same = (x.dtype, x.device) == (ours.dtype, ours.device)
    if not same and not torch.is_autocast_enabled(x.device.type):
        raise ValueError(
            f"{name}: got {x.dtype} on {x.device}, but the flow is {ours.dtype} on {ours.device}; "
            f"remedy: {name}.to(flow.sqrt_end_time), or flow.to({name})"
        )


def joint_batch(name: str, batch: tuple[int, ...], context: Tensor) -> torch.Size:
    """The batch shape of states and context together.

    Raises:
        TypeError: If ``context`` is no dense tensor.
        ValueError: If it does not go with ``batch``, the batch of ``name``.
    """
    tensor("context", context, "(*, C)")
    with suppress(RuntimeError):
        if context.ndim:
            return torch.broadcast_shapes(batch, context.shape[:-1])
    raise ValueError(
        f"context: got shape {tuple(context.shape)}, expected (*, C), with a batch that goes with "
        f"that of {name}, {tuple(batch)}"
    )


def event_shape_of(flow: nn.Module) -> torch.Size | None:
    """``(D,)``, the shape of one state, where a flow says it, else None."""
    dim = getattr(flow, "dim", None)
    if dim is None and isinstance(odefunc := getattr(flow, "odefunc", None), nn.Module):
        net = getattr(base_of(odefunc), "diffeq", None)
        if isinstance(net, ODEnet) and type(net.layers[0]) in LINEAR_LAYERS.values():
            dim = net.widths[0]
        elif isinstance(net, Readable):
            dim = net.state_dim
    return None if dim is None else torch.Size((dim,))


def _rows_of_probes(probes: Tensor, shape: tuple[int, ...], event_dim: int) -> Tensor:
    """Noise (*, D) or (K, *, D) as the flow takes it, (B, D) or (K, B, D)."""
    tensor("probes", probes, "like the states, or (K, *) of them")
    event = shape[len(shape) - event_dim :]
    if probes.shape == shape:
        return probes.reshape(-1, *event)
    if probes.shape[1:] == shape:
        return probes.flatten(1, -event_dim - 1) if len(shape) > event_dim else probes.unsqueeze(1)
    raise ValueError(f"probes: got shape {tuple(probes.shape)}, expected {shape} or (K, *{shape})")
