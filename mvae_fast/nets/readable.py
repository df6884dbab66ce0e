"""What nets have in common: a context, and to be readable as data."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mvae_fast.core.field import Field
from mvae_fast.core.tables import Tables


class Conditioned(nn.Module):
    """A velocity ``f(t, z)`` or, with a ``context_dim``, ``f(t, z, context)``."""

    #: C, the size of what each row is conditioned on; 0 for none.
    context_dim: int = 0

    def check_context(self, context: Tensor | None) -> None:
        """Raise ValueError if ``context`` is missing, or not wanted, or of another size."""
        if not self.context_dim and context is not None:
            raise ValueError("context: given, expected None, as the net has context_dim=0")
        if not self.context_dim:
            return
        if context is None or context.ndim != 2 or context.shape[1] != self.context_dim:
            got = None if context is None else f"shape {tuple(context.shape)}"
            raise ValueError(f"context: got {got}, expected (B, {self.context_dim})")


class Readable(Conditioned, ABC):
    """A velocity that says by itself what it is as data.

    Its ``forward`` is the definition. `mvae_fast.nets.recognise.unreadable` and
    `mvae_fast.nets.fields.field_of` hand on to the two methods below, once a solve.
    """

    @property
    def state_dim(self) -> int | None:
        """D, the size of a state, or None where it does not say."""
        return None

    @abstractmethod
    def unreadable(self, name: str) -> str | None:
        """Why it must be called at present, or None; ``name`` is what the answer calls it."""

    @abstractmethod
    def field(self, t: Tensor, context: Tensor | None, residual: bool) -> Field | Tables:
        """What it is at the times ``t`` (E,), differentiable; only while it is readable."""
