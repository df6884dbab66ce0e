"""What every flow here has in common: how it is called, and what it refuses."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mvae_fast.checks import NotScriptable, boolean, integer, tensor

__all__ = ["Flow"]


class Flow(NotScriptable, nn.Module, ABC):
    r"""An invertible map of :math:`R^D` that keeps the log-density along.

    .. math:: z' = g(z; c), \qquad \log p'(z') = \log p(z) - \log \left| \det \frac{\partial
              z'}{\partial z} \right|

    The calling convention is that of `mvae_fast.FastCNF`. A subclass implements ``_move``.

    Args:
        dim: Size D of the state, >= 1.
        cond_dim: Size C of the condition ``cond``; with 0 the parameters are free and shared by
            all rows, else they are amortised: every row has its own, made from its ``cond``.

    Raises:
        ValueError: If a size does not fit.

    References:
        Variational Inference with Normalizing Flows (Rezende and Mohamed, 2015), eq. 5,
        https://arxiv.org/abs/1505.05770; amortised parameters: Sylvester Normalizing Flows for
        Variational Inference (van den Berg et al., 2018), https://arxiv.org/abs/1803.05649

    Example:
        >>> class Scale(Flow):
        ...     def __init__(self, dim):
        ...         super().__init__(dim)
        ...         self.log = nn.Parameter(torch.ones(dim))
        ...
        ...     def _move(self, z, cond, reverse, with_change, generator):
        ...         log = -self.log if reverse else self.log
        ...         return z * log.exp(), -log.sum().expand(len(z))
        >>> Scale(3)(torch.ones(2, 3), torch.zeros(2))[1].tolist()
        [-3.0, -3.0]
    """

    dim: int
    cond_dim: int

    def __init__(self, dim: int, cond_dim: int = 0) -> None:
        super().__init__()
        self.dim = integer("dim", dim, 1)
        self.cond_dim = integer("cond_dim", cond_dim, 0)

    def forward(
        self,
        z: Tensor,
        logp: Tensor | None = None,
        reverse: bool = False,
        *,
        cond: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Move states along the flow.

        Args:
            z: (B, D), the states; under autocast taken to the dtype of the flow.
            logp: (B, 1) or (B,), their log-density; None for the states alone.
            reverse: The inverse map.
            cond: (B, C), what the parameters are made from; None if and only if ``cond_dim`` is 0.
            generator: Source of the noise, of which only an `AmortizedCNF` has any.

        Returns:
            The moved states, shaped like ``z``; with ``logp`` also their log-density, shaped like
            ``logp``.

        Raises:
            TypeError: If an input is no dense tensor.
            ValueError: If a shape or dtype does not fit, or ``cond`` is missing or not wanted.
        """
        check_types(z, logp, reverse, cond)
        device = z.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            # Rounded to half precision the map would not be the one whose density is kept.
            dtype = next(self.parameters()).dtype
            logp = None if logp is None else logp.to(dtype)
            cond = None if cond is None else cond.to(dtype)
            with torch.autocast(device, enabled=False):
                return self.forward(z.to(dtype), logp, reverse, cond=cond, generator=generator)
        self._check_input(z, logp, cond)
        z_out, change = self._move(z, cond, reverse, logp is not None, generator)
        if logp is None:
            return z_out
        assert change is not None
        return z_out, logp + change.view(logp.shape)

    @abstractmethod
    def _move(
        self,
        z: Tensor,
        cond: Tensor | None,
        reverse: bool,
        with_change: bool,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The moved states (B, D) and ``-log|det|`` (B,), which may be None if it is not wanted."""

    def _check_input(self, z: Tensor, logp: Tensor | None, cond: Tensor | None) -> None:
        if z.ndim != 2 or z.shape[1] != self.dim:
            raise ValueError(f"z: got shape {tuple(z.shape)}, expected (B, {self.dim})")
        batch = z.shape[0]
        if logp is not None and logp.shape != (batch, 1) and logp.shape != (batch,):
            raise ValueError(
                f"logp: got shape {tuple(logp.shape)}, expected ({batch}, 1) or ({batch},)"
            )
        check_cond(cond, self.cond_dim, batch)
        ours = next(self.parameters())
        for name, given in (("z", z), ("logp", logp), ("cond", cond)):
            if given is not None and (given.dtype, given.device) != (ours.dtype, ours.device):
                raise ValueError(
                    f"{name}: got {given.dtype} on {given.device}, but the flow is {ours.dtype} "
                    f"on {ours.device}; remedy: flow.to({name})"
                )


def takes_generator(flow: Callable[..., object]) -> bool:
    """Whether a flow, a module or any callable, can be told the source of its noise."""
    # Compiled and distributed flows take whatever the flow inside of them takes.
    while isinstance(inner := getattr(flow, "_orig_mod", getattr(flow, "module", None)), nn.Module):
        flow = inner
    call = flow.forward if isinstance(flow, nn.Module) else flow
    return "generator" in inspect.signature(call).parameters


def check_types(z: Tensor, logp: Tensor | None, reverse: bool, cond: Tensor | None) -> None:
    """Raise TypeError or ValueError unless these are what every flow takes."""
    tensor("z", z, "(B, D)")
    if logp is not None:
        tensor("logp", logp, "(B, 1) or (B,)")
    boolean("reverse", reverse)
    if cond is not None:
        tensor("cond", cond, "(B, C)")


def check_cond(cond: Tensor | None, cond_dim: int, batch: int) -> None:
    """Raise ValueError unless ``cond`` is (batch, cond_dim), or None where ``cond_dim`` is 0."""
    if cond_dim == 0:
        if cond is not None:
            raise ValueError("cond: given, but the flow is not amortised (cond_dim=0)")
    elif cond is None:
        raise ValueError(f"cond: got None, expected ({batch}, {cond_dim}): the flow is amortised")
    elif cond.shape != (batch, cond_dim):
        raise ValueError(f"cond: got shape {tuple(cond.shape)}, expected ({batch}, {cond_dim})")
