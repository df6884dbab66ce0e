"""The distribution at a flow's other end."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from mvae_fast.density.rows import event_shape_of


def standard_normal(flow: nn.Module) -> Independent:
    """N(0, I) over the states of a flow.

    Raises:
        ValueError: If the flow does not say how many dimensions these have.
    """
    event = event_shape_of(flow)
    if event is None:
        raise ValueError(
            f"base: got None, but {type(flow).__name__} does not say the size D of its states; "
            "remedy: base=Independent(Normal(torch.zeros(D), torch.ones(D)), 1)"
        )
    like = getattr(flow, "sqrt_end_time", None)
    like = next(flow.parameters()) if like is None else like
    zeros = torch.zeros(event, dtype=like.dtype, device=like.device)
    return Independent(Normal(zeros, torch.ones_like(zeros), validate_args=False), 1)


def log_standard_normal(z: Tensor) -> Tensor:
    """log N(z; 0, I): (*, D) to (*)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(-1)


def log_base(base: Distribution, z: Tensor) -> Tensor:
    """The log-density of z under a base."""
    if z.numel():
        return base.log_prob(z)
    # Of no states: torch's Independent finds no shape for their sum.
    event_dim = len(base.event_shape)
    sums = z.flatten(z.ndim - event_dim).sum(-1)
    return sums.expand(torch.broadcast_shapes(sums.shape, base.batch_shape))


def check_base(base: Distribution) -> int:
    """How many axes one of its samples has.

    Raises:
        TypeError: If ``base`` is no distribution.
        ValueError: If its samples are numbers.
    """
    if not isinstance(base, Distribution):
        raise TypeError(
            f"base: got a {type(base).__name__}, expected a torch.distributions.Distribution"
        )
    if not base.event_shape:
        raise ValueError(
            f"base: got event_shape (), with batch_shape {tuple(base.batch_shape)}, expected "
            "event_shape (D,); remedy: torch.distributions.Independent(base, 1)"
        )
    return len(base.event_shape)


def draw(
    base: Distribution, shape: torch.Size, generator: torch.Generator | None, grad: bool = True
) -> Tensor:
    """Samples of ``base``, reparametrised where a gradient is wanted.

    Raises:
        NotImplementedError: If ``base`` has no reparametrised samples.
        ValueError: If a ``generator`` is given, which torch's distributions do not take, and
            ``base`` is none whose noise is known.
    """
    if generator is None:
        return base.rsample(shape) if grad else base.sample(shape)
    normal = base.base_dist if isinstance(base, Independent) else base
    if not isinstance(normal, Normal):
        raise ValueError(
            f"generator: given, but a {type(base).__name__} takes none; expected None, or a base "
            "that is an Independent(Normal(...), 1)"
        )
    noise = normal.loc.new_empty((*shape, *normal.loc.shape)).normal_(generator=generator)
    return normal.loc + normal.scale * noise
