"""The reference, which all engines are held to, against the formulas themselves (tests/formula.py):
values and gradients; and what only the reference has: gates by row, half precision."""

import math

import pytest
import torch

from mvae_fast import engines
from mvae_fast.core.field import Column, Field, Layer, Structure, fourier
from mvae_fast.core.problem import PENALTIES, Problem
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.trace import exact_probes
from tests import formula
from tests.contract import (
    FORMS,
    NONLINEARITIES,
    SHAPES,
    TRACES,
    Case,
    assert_near,
    cases_covering,
    converted,
    leaves_of,
    replace,
    run,
)
from tests.oracles import distance, gradients

CASES = cases_covering(
    # Small ones: the Jacobian is made of D gradients.
    shape=[shape for shape in SHAPES if shape[1] < 10],
    form=FORMS,
    nonlinearity=NONLINEARITIES,
    trace=TRACES,
    residual=[False, True],
    context=["", "all", "some"],
    solver=list(TABLEAUS),
    outputs=[None, (1, 2)],
    steps=[2],
    penalties=[(), PENALTIES, ("mean_magnitude",), ("frobenius",)],
)


def by_formula(problem):
    """As `run`, from the formulas."""
    if problem.trace == "exact" and not problem.closed:
        # The trace takes the unit vectors, and with them the norm of the Jacobian is exact.
        problem = replace(problem, probes=exact_probes(problem.z))
    problem = converted(problem, lambda x: x.detach().clone())
    leaves = leaves_of(problem)
    for x in leaves.values():
        x.requires_grad_()
    solution = formula.solve(problem)
    grads = gradients(tuple(solution), list(leaves.values()))
    values = dict(zip(solution._fields, solution, strict=True))
    return {**values, **{f"d {name}": x for name, x in zip(leaves, grads, strict=True)}}


@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@pytest.mark.slow
def test_values_and_gradients(case):
    problem = case.problem()
    assert_near(run("reference", problem), by_formula(problem), 1e-12, case)


@pytest.mark.parametrize("form", ["tables 101", "tables EEE", "squash", "mixed", "features"])
def test_second_order(form):
    problem = Case((5, 3, (7,)), form, trace="exact", context="all", log_det="second_order")
    problem = problem.problem()
    assert_near(run("reference", problem), by_formula(problem), 1e-12)


GATED = cases_covering(
    shape=[(5, 3, ()), (4, 3, (7,)), (5, 2, (4, 3)), (3, 2, (3, 4, 2))],
    form=["ignore", "concatsquash", "mixed", "features", "pieces"],
    trace=TRACES,
    residual=[False, True],
    context=["", "all", "some"],
    solver=["euler", "rk4"],
    penalties=[(), PENALTIES],
    steps=[2],
)


def with_gates(case, which):
    """With gamma for each row in all layers, or in every other one."""
    problem = case.problem()
    gammas = tuple(
        None if which == "some" and i % 2 else torch.randn(case.shape[0], m, dtype=torch.float64)
        for i, m in enumerate(case.widths[1:])
    )
    return replace(problem, field=replace(problem.field, gate_context=gammas))


@pytest.mark.parametrize("which", ["all", "some"])
@pytest.mark.parametrize("case", GATED, ids=range(len(GATED)))
@pytest.mark.slow
def test_gates_by_row(case, which):
    problem = with_gates(case, which)
    assert_near(run("reference", problem), by_formula(problem), 1e-12, case)


@pytest.mark.parametrize("which", ["all", "some"])
def test_log_determinant_of_gates_by_row(which):
    """Of two steps, by autograd of the map that they are; and to the second order of Euler's."""
    problem = with_gates(Case((4, 3, (7,)), "mixed", trace="exact", steps=2), which)
    problem = replace(problem, log_det="exact")
    z = problem.z.clone().requires_grad_()
    *_, end = formula.solve(replace(problem, z=z, trace=None)).z
    rows = [torch.autograd.grad(end[:, i].sum(), z, retain_graph=True)[0] for i in range(3)]
    expected = -torch.linalg.slogdet(torch.stack(rows, 1)).logabsdet
    assert distance(run("reference", problem)["logp"][0], expected) < 1e-12
    problem = replace(problem, log_det="second_order")
    assert_near(run("reference", problem), by_formula(problem), 1e-12)


def test_gates_by_row_are_for_the_reference():
    problem = with_gates(Case((4, 3, (7,)), "mixed", trace="exact"), "some")
    assert engines.choose("auto", problem) == "reference"
    if engines.why_missing("cpp") is None:
        with pytest.raises(ValueError, match=r"engine: 'cpp' has no gates by row \(gate_context\)"):
            engines.solve("cpp", problem)


def test_a_layer_without_columns_has_no_gate():
    """Whether its gate is empty or full of nothing, beside gated layers or not, by every engine."""
    numbers = torch.randn(2, 2).double(), torch.randn(2).double()
    other = Column(1, 0, 1), None
    for second in ((), other):
        fields = [
            Field(
                Structure(
                    (2, 2, 2),
                    (Layer(Column(0, 0, 2), gate=first), Layer(Column(0, 0, 2), (), second)),
                    "tanh",
                ),
                numbers,
                torch.zeros(1, dtype=torch.float64),
            )
            for first in ((), (None, None), (None,))
        ]
        z = torch.randn(3, 2, dtype=torch.float64)
        for engine in engines.available():
            if "cpu" not in (engines.get(engine).devices or ("cpu",)):
                continue
            given = [Problem(z, torch.ones_like(z[0, :1]), field, (1,)) for field in fields]
            results = [engines.solve(engine, problem).z for problem in given]
            expected = formula.solve(given[0]).z
            assert all(distance(x, expected) < 1e-14 for x in results), (engine, second)


def test_a_weight_anywhere_in_a_tensor():
    """Also where the tensor is no whole number of rows, or a row goes over its end."""
    flat = torch.arange(40, dtype=torch.float64)
    for numel, offset, stride in ((40, 3, 4), (37, 3, 4), (36, 2, 4), (31, 7, 3), (40, 0, 11)):
        layer = Layer(Column(0, offset, stride))
        field = Field(Structure((3, 3), (layer,), "tanh"), (flat[:numel],), flat[:1])
        expected = [[offset + stride * i + j for j in range(3)] for i in range(3)]
        assert field.tables().weight.view(3, 3).tolist() == expected


def test_fourier():
    t = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    features = fourier(t, (2.0, 5.0))
    expected = [
        [1, math.cos(2 * x), math.cos(5 * x), math.sin(2 * x), math.sin(5 * x)] for x in t.tolist()
    ]
    torch.testing.assert_close(features, torch.tensor(expected, dtype=torch.float64))
    (slope,) = torch.autograd.grad(features.sum(), t)
    by_hand = -2 * (2 * t).sin() - 5 * (5 * t).sin() + 2 * (2 * t).cos() + 5 * (5 * t).cos()
    torch.testing.assert_close(slope, by_hand.detach())
    assert torch.autograd.gradcheck(lambda x: fourier(x, (2.0, 5.0)), t)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    problem = Case((5, 3, (7,)), nonlinearity="softplus", trace="exact").problem()
    got = run("reference", problem, dtype)
    assert got["z"].dtype == dtype
    assert distance(got["z"], run("reference", problem)["z"]) < 8 * torch.finfo(dtype).eps
