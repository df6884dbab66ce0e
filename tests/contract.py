"""Problems in every form, how to run them, and what an engine owes: tests/engines/test_contract.py
is the suite, and the tests of the single engines take their problems from here."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from mvae_fast import engines
from mvae_fast.core.field import Column, Field, Layer, Structure, fourier
from mvae_fast.core.problem import Problem
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp
from mvae_fast.engines.enums import NONLINEARITIES as NUMBERS
from mvae_fast.nets.fields import field_of
from tests.oracles import distance, gradients, random_net

__all__ = [
    "COEFFICIENTS",
    "FORMS",
    "LARGER",
    "MODES",
    "NONLINEARITIES",
    "replace",
    "SHAPES",
    "TABLES",
    "TRACES",
    "Case",
    "assert_near",
    "cases_covering",
    "converted",
    "covering",
    "eager",
    "leaves_of",
    "oracle",
    "run",
    "taken",
    "totals",
]

#: Those that all engines have.
NONLINEARITIES: tuple[str, ...] = tuple(NUMBERS)
#: Tables by their rows of (weight, gate, bias): 0 stands for no gate, "E" for one row an
#: evaluation.
TABLES: dict[str, tuple[Any, Any, Any]] = {
    "tables 101": (1, 0, 1),
    "tables 111": (1, 1, 1),
    "tables 10E": (1, 0, "E"),
    "tables 1EE": (1, "E", "E"),
    "tables E0E": ("E", 0, "E"),
    "tables E1E": ("E", 1, "E"),
    "tables EEE": ("E", "E", "E"),
}
_FFJORD = ("ignore", "concat", "concat_v2", "squash", "concatsquash")
# Of "mixed" and those after it, layer by layer, which features the bias, the gate and the late bias
# have; a layer without a gate may have a late bias.
_MIXED = (
    ((0, 1), (), (1,)),
    ((), (0,), (0, 1)),
    ((1,), (0, 1), ()),
    ((), (), ()),
    ((0,), (1,), (0,)),
)
#: Coefficients: the layers of FFJORD; gated layers beside others, with every kind of column there
#: or not; features of time given as a table; all numbers in one tensor that has more.
COEFFICIENTS: tuple[str, ...] = (*_FFJORD, "mixed", "features", "fourier", "pieces")
FORMS: tuple[str, ...] = (*TABLES, *COEFFICIENTS)

Shape = tuple[int, int, tuple[int, ...]]
#: (B, D, hidden widths): no hidden layer to four, sizes off every vector and tile width.
SHAPES: list[Shape] = [
    (5, 3, ()),
    (1, 1, (1,)),
    (17, 3, (33,)),
    (33, 17, (5,)),
    (3, 2, (17, 33)),
    (17, 5, (1, 3)),
    (5, 3, (4, 17, 3)),
    (3, 17, (3, 5, 4, 7)),
]
#: Two panels of the trace's table and more; two tiles of rows and more.
LARGER: list[Shape] = [
    (33, 17, (65,)),
    (7, 129, (33,)),
    (50, 17, (33, 70)),
    (3, 40, (97, 20)),
]
TRACES: tuple[str | None, ...] = (None, "exact", "hutchinson")
MODES: list[tuple[str | None, bool]] = list(itertools.product(TRACES, (False, True)))


def replace(value: Any, **changes: Any) -> Any:
    """`dataclasses.replace`, of a named tuple too."""
    if hasattr(value, "_replace"):
        return value._replace(**changes)
    return dataclasses.replace(value, **changes)


@dataclass(frozen=True)
class Case:
    """A problem by what it is like; its numbers follow from the seed.

    Args:
        shape: B, D and the hidden widths.
        form: One of `FORMS`.
        nonlinearity: One of `NONLINEARITIES`.
        context: What each row adds: ``""`` nothing, ``"all"`` to every layer, ``"some"`` to every
            other one from the first or, of one layer, to that.
        solver: One of `mvae_fast.core.tableaus.TABLEAUS`.
        every: Of ``checkpoint_every``.
        probes: K.
    """

    shape: Shape = (5, 3, (7,))
    form: str = "tables 1EE"
    nonlinearity: str = "tanh"
    trace: str | None = None
    residual: bool = False
    context: str = ""
    solver: str = "euler"
    steps: int = 3
    outputs: tuple[int, ...] | None = None
    every: int = 1
    penalties: tuple[str, ...] = ()
    log_det: str = "trace"
    probes: int = 2
    seed: int = 0

    @property
    def widths(self) -> tuple[int, ...]:
        """m_0 .. m_L."""
        _, dim, hidden = self.shape
        return (dim, *hidden, dim)

    def problem(self) -> Problem:
        """In float64, without gradients."""
        batch, dim, _ = self.shape
        generator = torch.Generator().manual_seed(self.seed)

        def noise(*size: int) -> Tensor:
            return torch.randn(*size, dtype=torch.float64, generator=generator)

        # The square of a square of ...: only small numbers stay in range through four layers.
        scale = 0.25 if self.nonlinearity == "square" else 1.0
        rows = self.steps * len(TABLEAUS[self.solver].b)
        field = (_tables if self.form in TABLES else _field)(self, rows, noise, scale)
        h = 0.1 + 0.2 * torch.rand(self.steps, dtype=torch.float64, generator=generator)
        h[-1] *= -1
        sampled = self.trace == "hutchinson" or "frobenius" in self.penalties
        return Problem(
            noise(batch, dim) * scale,
            h,
            replace(field, context=_context(self, noise, scale), residual=self.residual),
            self.outputs or (self.steps,),
            trace=self.trace,
            probes=noise(self.probes, batch, dim) if sampled else None,
            log_det=self.log_det,
            tableau=TABLEAUS[self.solver],
            checkpoint_every=self.every,
            penalties=self.penalties,
        )


def cases_covering(**choices: Sequence[Any]) -> list[Case]:
    """Cases in which any two choices of different kinds occur together; each has its own seed."""
    return [Case(**{"seed": seed, **choice}) for seed, choice in enumerate(covering(**choices))]


Noise = Callable[..., Tensor]


def _context(case: Case, noise: Noise, scale: float) -> tuple[Tensor | None, ...]:
    if not case.context:
        return ()
    step = 1 if case.context == "all" else 2
    return tuple(
        noise(case.shape[0], m) * 0.5 * scale if i % step == 0 else None
        for i, m in enumerate(case.widths[1:])
    )


def _tables(case: Case, rows: int, noise: Noise, scale: float) -> Tables:
    n_weight, n_gate, n_bias = (rows if n == "E" else n for n in TABLES[case.form])
    size = sum(case.widths[1:])
    weight = torch.cat(
        [
            noise(n_weight, m_out * m_in) * 0.7 / m_in**0.5
            for m_in, m_out in itertools.pairwise(case.widths)
        ],
        dim=1,
    )
    gate = noise(n_gate, size).sigmoid() + 0.3 if n_gate else None
    bias = noise(n_bias, size) * 0.5 * scale
    return Tables(weight, gate, bias, case.widths, case.nonlinearity)


class _Store:
    """Numbers of a field, each kind in a tensor of its own or, with gaps, all in one."""

    def __init__(self, noise: Noise, scale: float, one: bool) -> None:
        self.noise, self.scale, self.one = noise, scale, one
        self.pieces: list[Tensor] = []

    def add(self, values: Tensor, gap: int) -> Column:
        """(m, n), in rows that are ``gap`` numbers longer, after one number that is not used."""
        count, width = values.shape
        if not self.one:
            self.pieces.append(values.squeeze(1) if width == 1 and gap else values)
            return Column(len(self.pieces) - 1, 0, width)
        offset = 1 + sum(piece.numel() for piece in self.pieces)
        spread = self.noise(count, width + gap)
        spread[:, :width] = values
        self.pieces += [self.noise(1), spread.flatten()]
        return Column(0, offset, width + gap)

    def weight(self, m: int, before: int) -> Column:
        return self.add(self.noise(m, before) * 0.7 / before**0.5, 2)

    def columns(self, m: int, features: int, there: Iterable[int]) -> tuple[Column | None, ...]:
        """With the last of those that are there the tuple ends, as those after it are zeros."""
        kept = sorted(there)
        last = kept[-1] + 1 if kept else 0
        made: list[Column | None] = []
        for k in range(last):
            values = self.noise(m, 1) * 0.5 * self.scale
            made.append(self.add(values, 2) if k in kept and k < features else None)
        return tuple(made)

    def tensors(self) -> tuple[Tensor, ...]:
        return (torch.cat(self.pieces),) if self.one else tuple(self.pieces)


def _field(case: Case, rows: int, noise: Noise, scale: float) -> Field:
    time = torch.linspace(0.1, 0.9, rows, dtype=torch.float64)
    if case.form in _FFJORD:
        return _ffjord(case, time, scale)
    features = {"features": 3, "fourier": 5}.get(case.form, 2)
    if case.form == "features":
        time = noise(rows, features)
    elif case.form == "fourier":
        time = fourier(time, (1.5, 4.0))
    store = _Store(noise, scale, case.form == "pieces")
    layers = []
    for i, (before, m) in enumerate(itertools.pairwise(case.widths)):
        weight = store.weight(m, before)
        kinds = _MIXED[(i + case.seed) % len(_MIXED)]
        # More features than two: those that are there of two, and their neighbours.
        spread = [{(k + j) % features for k in kind for j in range(features - 1)} for kind in kinds]
        used = kinds if features == 2 else spread
        layers.append(Layer(weight, *(store.columns(m, features, kind) for kind in used)))
    structure = Structure(case.widths, tuple(layers), case.nonlinearity, features)
    return Field(structure, store.tensors(), time)


def _ffjord(case: Case, time: Tensor, scale: float) -> Field:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        net = random_net(case.shape[2], case.shape[1], case.form, "tanh")
    field = field_of(net, time)
    assert isinstance(field, Field)
    structure = replace(field.structure, nonlinearity=case.nonlinearity)
    tensors = tuple(x.detach() * (scale if x.ndim == 1 else 1) for x in field.tensors)
    return replace(field, structure=structure, tensors=tensors)


def leaves_of(problem: Problem) -> dict[str, Tensor]:
    """Every tensor that gets a gradient, by name."""
    field = problem.field
    found: dict[str, Tensor | None] = {"z": problem.z, "h": problem.h}
    if isinstance(field, Tables):
        found |= {name: getattr(field, name) for name in ("weight", "gate", "bias", "inner")}
    else:
        found |= {f"tensor {i}": x for i, x in enumerate(field.tensors)} | {"time": field.time}
    found |= {f"u {i}": u for i, u in enumerate(field.context, 1)}
    found |= {f"gamma {i}": u for i, u in enumerate(field.gate_context, 1)}
    return {name: x for name, x in found.items() if x is not None}


def converted(problem: Problem, convert: Callable[[Tensor], Tensor]) -> Problem:
    """The same problem, of other tensors."""

    def one(x: Tensor | None) -> Tensor | None:
        return None if x is None else convert(x)

    field = problem.field
    rows: dict[str, Any] = {
        name: tuple(map(one, getattr(field, name))) for name in ("context", "gate_context")
    }
    if isinstance(field, Tables):
        names = ("weight", "gate", "bias", "inner")
        made: Any = replace(field, **{name: one(getattr(field, name)) for name in names}, **rows)
    else:
        tensors = tuple(map(convert, field.tensors))
        made = replace(field, tensors=tensors, time=convert(field.time), **rows)
    z, h = convert(problem.z), convert(problem.h)
    return replace(problem, z=z, h=h, field=made, probes=one(problem.probes))


def run(
    engine: str,
    problem: Problem,
    dtype: torch.dtype = torch.float64,
    device: str = "cpu",
    wanted: Sequence[str] | None = None,
    **changes: Any,
) -> dict[str, Tensor]:
    """Values and gradients of a problem.

    Args:
        engine: Its name.
        problem: Its tensors stay as they are.
        dtype: Of the tensors that the engine gets.
        device: Where these are.
        wanted: The leaves that need a gradient; default all.
        changes: Of the problem.
    """
    problem = replace(
        converted(problem, lambda x: x.detach().to(device=device, dtype=dtype)), **changes
    )
    leaves = leaves_of(problem)
    wanted = list(leaves) if wanted is None else wanted
    for name in wanted:
        leaves[name].requires_grad_()
    problem.check()
    solution = engines.solve(engine, problem)
    values = dict(zip(solution._fields, solution, strict=True))
    grads = gradients(tuple(solution), [leaves[name] for name in wanted])
    return {**values, **{f"d {name}": x for name, x in zip(wanted, grads, strict=True)}}


def taken(engine: str, precision: str) -> str:
    """What an engine takes for a precision: without bf16 instructions the C++ one has float32."""
    return "full" if engine == "cpp" and not cpp.multiplies_bf16() else precision


@cache
def oracle(case: Case) -> dict[str, Tensor]:
    """Of the reference in float64."""
    return run("reference", case.problem())


@cache
def eager(case: Case, precision: str = "full") -> dict[str, Tensor]:
    """Of PyTorch in float32."""
    return run("reference", case.problem(), torch.float32, precision=precision)


def assert_near(
    got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-13, note: Any = ""
) -> None:
    """All values and gradients, in units of their norm."""
    assert got.keys() == expected.keys()
    for name, exact in expected.items():
        assert got[name].shape == exact.shape, (name, note)
        off = distance(got[name], exact)
        assert off < tolerance, f"{name} is off by {off:.1e}: {note}"


def totals(
    got: dict[str, Tensor], eagers: dict[str, Tensor], exact: dict[str, Tensor]
) -> tuple[float, float]:
    """How far an engine and eager PyTorch are off, all tensors together: a single one may come out
    exact by luck."""
    ours, theirs = (sum(distance(x[name], exact[name]) for name in exact) for x in (got, eagers))
    return ours, theirs


Value = tuple[str, int]


def _pair(names: list[str], one: Value, other: Value) -> tuple[Value, Value]:
    return (one, other) if names.index(one[0]) < names.index(other[0]) else (other, one)


def covering(**factors: Sequence[Any]) -> list[dict[str, Any]]:
    """Few choices of all factors in which every pair of values of two factors occurs.

    Greedy: each choice begins with a pair that has not occurred yet, and takes of each other factor
    the value that makes the most such pairs.
    """
    names = list(factors)
    missing = {
        ((a, x), (b, y))
        for a, b in itertools.combinations(names, 2)
        for x in range(len(factors[a]))
        for y in range(len(factors[b]))
    }
    # In the order of the factors: the result does not depend on how Python hashes strings.
    order = sorted(missing, key=lambda p: (names.index(p[0][0]), names.index(p[1][0]), p))
    choices = []
    uses: dict[tuple[str, int], int] = {}
    for pair in order:
        if pair not in missing:
            continue
        chosen = dict(pair)
        for name in names:
            if name in chosen:
                continue

            gains = [
                (sum(_pair(names, (name, x), other) in missing for other in chosen.items()), x)
                for x in range(len(factors[name]))
            ]
            # Of equal ones that which has been taken least.
            _, _, chosen[name] = max((n, -uses.get((name, x), 0), x) for n, x in gains)
        for one in chosen.items():
            uses[one] = uses.get(one, 0) + 1
        ordered = [(name, chosen[name]) for name in names]
        missing -= set(itertools.combinations(ordered, 2))
        choices.append({name: factors[name][value] for name, value in ordered})
    return choices
