"""Flows of other libraries, on these engines; their parameters stay theirs."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from mvae_fast.cnf import FastCNF
from mvae_fast.core.field import Field
from mvae_fast.nets import comparison
from mvae_fast.nets.readable import Readable
from mvae_fast.nets.recognise import altered
from mvae_fast.nets.sequential import Inputs, Own, Reading, own_activations, read

Shape = torch.Size | tuple[int, ...]


class ZukoVelocity(Readable):
    r"""The velocity of zuko's ``FFJTransform``, of which it is the method ``f``.

    .. math:: f(t, x, c) = \mathrm{ode}([\cos \omega t; \sin \omega t; x; c])

    Args:
        transform: It.

    Raises:
        ValueError: If its ``f`` is something else.
    """

    def __init__(self, transform: Any) -> None:
        super().__init__()
        import zuko

        kind = zuko.flows.continuous.FFJTransform
        self._kind, self._f = kind, kind.f
        linear = zuko.nn.Linear
        self._linear = ((nn.Linear, nn.Linear.forward), (linear, linear.forward))
        self._own: dict[type[nn.Module], Own] = {}
        self.transform = transform
        self.dim = int(transform.ode.out_features)
        self.context_dim = transform.ode.in_features - self.dim - 2 * len(transform.freqs)
        twin = copy.deepcopy(self).cpu().double().eval()
        self._own = twin._own = own_activations(twin.transform.ode)
        if twin.unreadable("flow") is None:
            with comparison.undisturbed():
                found = twin._difference()
            if found is not None:
                raise ValueError(f"flow: the f of its transform is not that of zuko 1: {found}")

    @property
    def state_dim(self) -> int:
        """D, the size of a state."""
        return self.dim

    def _difference(self) -> str | None:
        generator = torch.Generator().manual_seed(0)
        comparison.randomise(self.transform, generator)
        sizes = (self.dim, self.context_dim)[: 1 + bool(self.context_dim)]
        t, (z, *context) = comparison.sample(0.3, sizes, torch.float64, generator)
        field = self.field(t.reshape(1), context[0] if context else None, False)
        named = {"x": z, "t": t, **dict(self.transform.named_parameters())}
        if context:
            named["c"] = context[0]
        return comparison.difference(self(t, z, *context), field, named)

    def forward(self, t: Tensor, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The velocity at time ``t`` (0-dim), states ``z`` (B, D) and ``context`` (B, C)."""
        return self.transform.f(t, z, context)

    def unreadable(self, name: str) -> str | None:
        found, transform = altered(self, _FORWARD), self.transform
        if found is None and type(transform) is not self._kind:
            found = f".transform is {type(transform).__name__}, not {self._kind.__name__}"
        if found is None and (self._kind.f is not self._f or "f" in transform.__dict__):
            found = ".transform has an f of its own"
        if found is not None:
            return f"{name}{found}"
        reading = self._read(f"{name}.transform.ode")
        return reading if isinstance(reading, str) else None

    def _read(self, name: str) -> Reading | str:
        reading = read(self.transform.ode, name, self._linear, self._own)
        if isinstance(reading, str):
            return reading
        expected = self.dim + self.context_dim + 2 * self.transform.freqs.numel()
        if (reading.widths[0], reading.widths[-1]) != (expected, self.dim):
            return f"{name} is not a map of {expected} numbers to {self.dim}"
        return reading

    def field(self, t: Tensor, context: Tensor | None, residual: bool) -> Field:
        reading = self._read("ode")
        assert isinstance(reading, Reading), reading
        freqs = self.transform.freqs
        angles = t.unsqueeze(1) * freqs
        features = torch.cat((torch.ones_like(t).unsqueeze(1), angles.cos(), angles.sin()), 1)
        times = features.shape[1] - 1
        inputs = Inputs(times, 0, times, times + self.dim, self.context_dim)
        return reading.field(features if times else t, inputs, context, residual)


_FORWARD = ZukoVelocity.forward


class ZukoFlow(nn.Module):
    r"""A flow of zuko with a continuous transformation, in its own interface.

    Called with a context it is a distribution, as zuko's is:

    .. math:: \log p(x \mid c) = \log p(z \mid c) + \int_0^1 \operatorname{Tr}
              \frac{\partial f}{\partial x}\, dt, \qquad z = x(1)

    Args:
        cnf: The flow from data to the base, along a `ZukoVelocity`.
        base: zuko's own, called as ``base(c)``.

    Attributes:
        cnf: Its settings (solver, tolerances, trace, engine) may be set at any time.
    """

    def __init__(self, cnf: FastCNF, base: nn.Module) -> None:
        super().__init__()
        self.cnf = cnf
        self.base = base

    def forward(self, c: Tensor | None = None) -> "ZukoDistribution":
        """The distribution for a context ``c`` (..., C)."""
        base: Any = self.base(c)
        return ZukoDistribution(self.cnf, base if c is None else base.expand(c.shape[:-1]), c)


class ZukoDistribution(Distribution):
    """What a `ZukoFlow` is called for.

    Args:
        cnf: The flow from data to the base.
        base: Of event shape (D,).
        context: (..., C) or None.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, cnf: FastCNF, base: Distribution, context: Tensor | None) -> None:
        self.cnf = cnf
        self.base = base
        self.context = context
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density (...) of values (..., D), which go together with the context's rows."""
        z, change = self._move(value, False)
        assert change is not None
        return self.base.log_prob(z) - change

    def rsample(self, sample_shape: Shape = ()) -> Tensor:  # type: ignore[override]
        """Samples (*sample_shape, *batch_shape, D), from the noise that zuko would take."""
        return self._move(self.base.rsample(torch.Size(sample_shape)), True, False)[0]

    def rsample_and_log_prob(self, shape: Shape = ()) -> tuple[Tensor, Tensor]:
        """Samples and their log-density (*shape, *batch_shape), for one integration."""
        z = self.base.rsample(torch.Size(shape))
        x, change = self._move(z, True)
        assert change is not None
        return x, self.base.log_prob(z) + change

    def _move(
        self, x: Tensor, reverse: bool, with_change: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        context, batch = self.context, x.shape[:-1]
        if context is not None:
            batch = torch.broadcast_shapes(batch, context.shape[:-1])
            context = context.expand(*batch, context.shape[-1]).reshape(-1, context.shape[-1])
        rows = x.expand(*batch, x.shape[-1]).reshape(-1, x.shape[-1])
        velocity: Any = self.cnf.odefunc.diffeq
        times = velocity.transform.times
        if not with_change:
            end = self.cnf(rows, None, times, reverse, context=context)
            return end.view(*batch, -1), None
        end, change = self.cnf(rows, rows.new_zeros(len(rows)), times, reverse, context=context)
        return end.view(*batch, x.shape[-1]), change.view(batch)


def from_zuko(flow: Any, **settings: Any) -> ZukoFlow:
    """A continuous flow of zuko on these engines: the same ``flow(c).log_prob(x)`` and samples.

    Nothing is copied: base, transformation and parameters are those of ``flow``, which goes on to
    work and is trained along. Solver (``"dopri5"``), tolerances and the kind of trace are those
    of ``flow`` unless ``settings`` say else. With one of the solvers of
    `mvae_fast.core.tableaus`, such as ``solver="rk4", n_steps=20``, all steps run in one call of an
    engine. With ``print(flow)`` one sees whether; a net that cannot be read (``normalize=True``,
    hooks, other activations) is called.

    Args:
        flow: A ``zuko.flows.CNF``, or any ``zuko.lazy.Flow`` with an ``FFJTransform``.
        settings: Arguments of `mvae_fast.FastCNF`.

    Raises:
        TypeError: If ``flow`` is none of these.
        ValueError: If it has hooks, or a ``forward`` of its own, which the result would not call.

    References:
        zuko (Rozet et al., 2022), https://github.com/probabilists/zuko
    """
    import zuko

    transform: Any = getattr(flow, "transform", None)
    lazy, kind = zuko.lazy.Flow, zuko.flows.continuous.FFJTransform
    if not isinstance(flow, lazy) or type(transform) is not kind:
        inside = "" if transform is None else f" with a {type(transform).__name__}"
        raise TypeError(
            f"flow: got a {type(flow).__name__}{inside}, expected a zuko.flows.CNF, or a flow of "
            "zuko with an FFJTransform"
        )
    for name, module, forward in (
        ("flow", flow, lazy.forward),
        ("flow.transform", transform, kind.forward),
    ):
        found = altered(module, forward)
        if found is not None:
            raise ValueError(f"{name}{found}, which the result would not call")
    settings = {
        "solver": "dopri5",
        "atol": transform.atol,
        "rtol": transform.rtol,
        "trace": "exact" if transform.exact else "hutchinson",
        **settings,
    }
    return ZukoFlow(FastCNF.from_module(ZukoVelocity(transform), **settings), flow.base)
