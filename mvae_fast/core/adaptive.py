r"""The steps of an embedded pair, found by its estimate of the error.

One controller for all rows, as torchdiffeq has it: with

.. math:: E = \max_{y \in \{z, \ell\}} \operatorname{RMS}
          \frac{e_y}{a + r \max(|y_s|, |y_{s+1}|)}, \qquad e_y = h \sum_r e_r k_r

a step is taken if E <= 1, and the next one is ``h min(10, max(0.9 E^{-1/p}, 1 or 0.2))``, the lower
bound 1 after a step that was taken. The last step to each time ends on it. Where the steps lead is
differentiated with them held fixed, as shares of the intervals between times: the exact gradient of
what was computed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mvae_fast.checks import integer, non_negative, positive
from mvae_fast.core.grid import Grid
from mvae_fast.core.tableaus import Embedded, combine

#: Velocity (B, D) and trace (B,) or None of states at a time.
Evaluate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]


class Control(NamedTuple):
    """What decides about the steps, by torchdiffeq's names.

    Args:
        rtol, atol: What error is tolerated.
        first_step: 0 to have it estimated.
        min_step: A step of at most this size is always taken.
        max_step: The largest step.
        max_num_steps: Most attempts in each interval between times.
        safety, ifactor, dfactor: 0.9, 10 and 0.2 above.
    """

    rtol: float
    atol: float
    first_step: float = 0.0
    min_step: float = 0.0
    max_step: float = float("inf")
    max_num_steps: int = 2**31 - 1
    safety: float = 0.9
    ifactor: float = 10.0
    dfactor: float = 0.2

    @staticmethod
    def of(rtol: float, atol: float, options: Mapping[str, Any]) -> "Control":
        """From tolerances and ``solver_options``; those with the value None are not there."""
        given: dict[str, Any] = {}
        for name, value in options.items():
            if value is None:
                continue
            label = f"solver_options[{name!r}]"
            if name == "max_num_steps":
                given[name] = integer(label, value, 1)
            elif name == "min_step":
                given[name] = non_negative(label, value)
            elif name == "max_step" and value == float("inf"):
                continue
            else:
                given[name] = positive(label, value)
        return Control(float(rtol), float(atol), **given)

    def factor(self, error: float, order: int) -> float:
        """By what to multiply a step of this error."""
        if error == 0:
            return self.ifactor
        least = 1.0 if error < 1 else self.dfactor
        return min(self.ifactor, max(self.safety / error ** (1 / order), least))


#: The options of a solver that `Control` has.
OPTIONS = frozenset(Control._fields) - {"rtol", "atol"}


class Found(NamedTuple):
    """What a search found.

    Args:
        z: (n, B, D), the states at the times after the first.
        logp: (n, B), the changes of log-density.
        shares: (S,), float64: every step as a share of the interval between two times.
        counts: (n,), how many steps there are in each interval.
        evaluations: Of the velocity.
        saved: What an engine's backward over the steps needs, where it searched itself.
    """

    z: Tensor
    logp: Tensor
    shares: Tensor
    counts: Sequence[int]
    evaluations: int
    saved: Tensor | None = None


def grid_of(times: Tensor, found: Found) -> Grid:
    """The steps that were found, differentiable in ``times`` (n + 1,)."""
    ts, hs, outputs, at = [], [], [], 0
    for i, count in enumerate(found.counts):
        share = found.shares[at : at + count].to(times.device)
        begun = share.cumsum(0) - share
        interval = times[i + 1] - times[i]
        hs.append(interval * share.to(times.dtype))
        ts.append(times[i] + interval * begun.to(times.dtype))
        at += count
        outputs.append(at)
    return Grid(torch.cat(ts), torch.cat(hs), tuple(outputs))


def search(
    evaluate: Evaluate, z: Tensor, times: Sequence[float], method: Embedded, control: Control
) -> Found:
    """Find the steps in plain PyTorch: any velocity, any device; without a graph.

    Raises:
        RuntimeError: If ``max_num_steps`` are too few, or no step is small enough.
    """
    return _Search(evaluate, z, method, control).run(times)


class _Search:
    def __init__(self, evaluate: Evaluate, z: Tensor, method: Embedded, control: Control) -> None:
        self.method, self.control = method, control
        self.state = (z, z.new_zeros(z.shape[0]))
        self.given, self.evaluations = evaluate, 0

    def evaluate(self, z: Tensor, t: float) -> tuple[Tensor, Tensor]:
        self.evaluations += 1
        velocity, tau = self.given(z, torch.full((), t, dtype=z.dtype, device=z.device))
        return velocity, z.new_zeros(z.shape[0]) if tau is None else -tau

    def norm(self, parts: Sequence[Tensor], *ends: Sequence[Tensor]) -> float:
        """The largest of the parts' root mean squares over what is tolerated."""
        rtol, atol = self.control.rtol, self.control.atol
        worst = []
        for part, *values in zip(parts, *ends, strict=True):
            size = torch.stack([x.abs() for x in values]).amax(0)
            worst.append((part / (atol + rtol * size)).double().square().mean().sqrt())
        return torch.stack(worst).max().item()

    def run(self, times: Sequence[float]) -> Found:
        z, logp = self.state
        if not z.shape[0]:
            n = len(times) - 1
            shares = torch.ones(n, dtype=torch.float64)
            return Found(z.expand(n, *z.shape), logp.expand(n, 0), shares, [1] * n, 0)
        self.first = self.evaluate(z, times[0])
        h = self.control.first_step or self.initial_step(times)
        path, shares_, counts = [], [], []
        for begin, end in zip(times[:-1], times[1:], strict=True):
            taken, h = self.interval(begin, end, h, last=end == times[-1])
            shares_ += taken
            counts.append(len(taken))
            path.append(self.state)
        states, changes = (torch.stack(values) for values in zip(*path, strict=True))
        shares = torch.tensor(shares_, dtype=torch.float64)
        return Found(states, changes, shares, counts, self.evaluations)

    def initial_step(self, times: Sequence[float]) -> float:
        # Hairer, Norsett and Wanner, Solving Ordinary Differential Equations I, II.4.
        sign, (z, _) = (1 if times[1] > times[0] else -1), self.state
        d0, d1 = self.norm(self.state, self.state), self.norm(self.first, self.state)
        h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1
        ahead = self.evaluate(z + sign * h0 * self.first[0], times[0] + sign * h0)
        change = [y - x for y, x in zip(ahead, self.first, strict=True)]
        most = max(d1, self.norm(change, self.state) / h0)
        h1 = max(1e-6, h0 * 1e-3) if most <= 1e-15 else (0.01 / most) ** (1 / self.method.order)
        return min(100 * h0, h1)

    def interval(self, begin: float, end: float, h: float, last: bool) -> tuple[list[float], float]:
        """From ``begin`` to ``end``, with steps of h at first: shares, the step to go on with."""
        control, order = self.control, self.method.order
        sign, shares, t, tried = (1 if end > begin else -1), [], begin, 0
        while t != end:
            if tried >= control.max_num_steps:
                raise RuntimeError(
                    f"max_num_steps: {tried} steps were tried from {begin:g} and led to {t:g} of "
                    f"{end:g}"
                )
            tried += 1
            if not h > 0:
                raise RuntimeError(f"the velocity is not finite at time {t:g}")
            wanted = max(min(h, control.max_step), control.min_step)
            left = abs(end - t)
            ends = wanted >= left * (1 - 1e-9)
            step = left if ends else wanted
            ahead = end if ends else t + sign * step
            if ahead == t or self.same(t, ahead):
                raise RuntimeError(
                    f"no step is small enough at time {t:g}: the state or the velocity is not "
                    "finite, or rtol and atol are too small for the dtype"
                )
            error, state, stage = self.attempt(t, sign * step)
            h = step * control.factor(error, order)
            if not error <= 1 and step > control.min_step:
                h = h if h < step else step * control.dfactor  # of an error that is no number
                continue
            h = max(h, wanted) if ends else h
            shares.append(step / abs(end - begin))
            t, self.state = ahead, state
            if self.method.last_is_first:
                self.first = stage
            elif not (last and t == end):
                self.first = self.evaluate(state[0], t)
        return shares, h

    def same(self, t: float, ahead: float) -> bool:
        """Whether two times are one in the dtype of the state."""
        pair = torch.tensor([t, ahead], dtype=self.state[0].dtype)
        return bool(pair[0] == pair[1])

    def attempt(
        self, t: float, h: float
    ) -> tuple[float, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The error of a step, the state after it, and its last stage."""
        (c, a, b), stages = self.method.tableau, len(self.method.error)
        (z, logp), size = self.state, torch.full((), h, dtype=self.state[0].dtype)
        velocities, slopes = [self.first[0]], [self.first[1]]
        for r in range(1, stages):
            stage = combine(z, size, a[r * stages : r * stages + r], velocities)
            velocity, slope = self.evaluate(stage, t + c[r] * h)
            velocities.append(velocity)
            slopes.append(slope)
        after = combine(z, size, b, velocities), combine(logp, size, b, slopes)
        zero = torch.zeros_like(z), torch.zeros_like(logp)
        weights = self.method.error
        off = combine(zero[0], size, weights, velocities), combine(zero[1], size, weights, slopes)
        return self.norm(off, self.state, after), after, (velocities[-1], slopes[-1])
