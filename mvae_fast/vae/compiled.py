"""What compiled code does otherwise, because none of its shapes may depend on values.

Eager code runs each network on exactly the rows that count. In compiled code they run on all rows,
those that are missing hold 0, and what the networks make of them is masked: losses and gradients
are the same, unless a network lets its rows see each other.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Method = TypeVar("Method", bound=Callable[..., Any])


def harmless(x: Tensor, here: Tensor) -> Tensor:
    """Data ``(B, ...)`` with 0 in the rows that are not ``here``, ``(B,)``, whatever they hold.

    Example:
        >>> harmless(torch.tensor([1.0, torch.nan]), torch.tensor([True, False]))
        tensor([1., 0.])
    """
    rows = here.to(x.device).view(-1, *[1] * (x.dim() - 1))
    return torch.where(rows, x, torch.zeros((), dtype=x.dtype, device=x.device))


def places(here: Tensor) -> Tensor:
    """Where a mask ``(n,)`` is True; in compiled code all places."""
    if torch.compiler.is_compiling():
        return torch.arange(len(here), device=here.device)
    # Found on the mask's device: without a mask that is the CPU, and a GPU never waits.
    return here.nonzero().squeeze(1)


def places_of_terms(subsets: Tensor | Sequence[Sequence[bool]], i: int, batch: int) -> Tensor:
    """Places in ``(S, B)``, laid flat, of the terms that may score modality ``i``.

    Args:
        subsets: Boolean ``(S, N)``; of a tensor compiled code does not know the content.

    Returns:
        ``(n,)``, in order.

    Example:
        >>> places_of_terms([[True, True], [True, False], [False, True]], 1, batch=2)
        tensor([0, 1, 4, 5])
    """
    listed = not isinstance(subsets, Tensor)
    terms = [s for s, subset in enumerate(subsets) if not listed or subset[i]]
    return (torch.tensor(terms)[:, None] * batch + torch.arange(batch)).flatten()


def eager_where_rows_meet(method: Method) -> Method:
    """A method ``(model, x, mask)`` that breaks the graph where batch norm in training mode would
    take rows that are missing into its statistics."""

    @functools.wraps(method)
    def call(model: nn.Module, x: Any, mask: Any = None, **options: Any) -> Any:
        if torch.compiler.is_compiling() and _rows_meet(model, x, mask):
            return torch.compiler.disable(method)(model, x, mask, **options)
        return method(model, x, mask, **options)

    return cast(Method, call)


def _rows_meet(model: nn.Module, x: Mapping[str, Any], mask: Mapping[str, Any] | None) -> bool:
    missing = mask or any(x.get(name) is None for name in model.modalities)  # type: ignore[union-attr]
    return bool(missing) and any(
        isinstance(part, _BatchNorm) and part.training for part in model.modules()
    )
