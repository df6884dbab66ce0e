"""The log-determinant of the steps in the C++ engine, against core/logdet.py in float64."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines
from mvae_fast.core.problem import Problem
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp
from tests.contract import (
    COEFFICIENTS,
    FORMS,
    LARGER,
    NONLINEARITIES,
    SHAPES,
    Case,
    cases_covering,
    converted,
    replace,
)
from tests.oracles import distance

pytestmark = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")
CPP = [f"cpp:{name}" for name in cpp.capabilities()]
EPSILON = torch.finfo(torch.float32).eps
#: From 32 rows on one hidden layer takes reduced tables, whatever its width.
MANY = [(40, 17, (65,)), (33, 33, (33,)), (32, 40, (20,)), (47, 1, (1,)), (35, 5, (2,))]
CASES = cases_covering(
    shape=[*SHAPES, *LARGER, *MANY],
    form=FORMS,
    nonlinearity=NONLINEARITIES,
    context=["", "all", "some"],
    solver=list(TABLEAUS),
    residual=[False, True],
    outputs=[None, (1, 3)],
    trace=["exact"],
    log_det=["exact"],
)


@torch.no_grad()
def solve(engine, problem, dtype=torch.float64):
    return engines.solve(engine, converted(problem, lambda x: x.to(dtype)))[:2]


def each(some):
    """The best instruction set takes all cases, the others share them."""
    others = max(1, len(CPP) - 1)
    return [
        pytest.param(name, case, id=f"{name}-{n}", marks=() if not i and n % 8 == 0 else SLOW)
        for i, name in enumerate(CPP)
        for n, case in enumerate(some)
        if not i or n % others == i - 1
    ]


SLOW = pytest.mark.slow


@pytest.mark.parametrize(("contestant", "case"), each(CASES), indirect=["contestant"])
def test_values(contestant, case):
    ours, theirs = [], []
    for seed in range(case.seed, case.seed + 3):
        problem = replace(case, seed=seed).problem()
        exact = solve("reference", problem)
        for got, wanted in zip(solve(contestant, problem), exact, strict=True):
            assert got.shape == wanted.shape
            assert distance(got, wanted) < 1e-12, case
        pairs = (solve(name, problem, torch.float32)[1] for name in (contestant, "reference"))
        for errors, got in zip((ours, theirs), pairs, strict=True):
            assert got.dtype == torch.float32
            errors.append(distance(got, exact[1]))
    # The mean of three problems, since a single one may come out exact by luck.
    assert sum(ours) <= 2 * sum(theirs) + 3 * EPSILON, (ours, theirs, case)


def linear(matrix, h, rows=3):
    """Steps of z' = matrix z."""
    dim = len(matrix)
    tables = Tables(
        matrix.reshape(1, -1), None, torch.zeros(1, dim).double(), (dim, dim), "identity"
    )
    z, steps = torch.zeros(rows, dim).double(), torch.tensor([h]).double()
    return Problem(z, steps, tables, (1,), trace="exact", log_det="exact")


@pytest.mark.parametrize("contestant", CPP, indirect=True)
@pytest.mark.parametrize("dim", [*range(1, 36), 64, 127, 128, 129])
def test_factorisation_of_matrices_that_need_pivots(contestant, dim):
    torch.manual_seed(dim)
    matrix = torch.randn(dim, dim, dtype=torch.float64)
    matrix[:, : dim // 2] *= 1e-6
    h = -1.5
    wanted = torch.linalg.slogdet(torch.eye(dim).double() + h * matrix)
    got = solve(contestant, linear(matrix, h))[1]
    # Of either sign: it is the magnitude. Columns of 1e-6 cost some digits of float64's 16.
    torch.testing.assert_close(got, -wanted.logabsdet.expand(1, 3), rtol=1e-10, atol=1e-10)


def test_a_singular_step_has_an_infinite_log_determinant():
    for matrix in (torch.eye(5).double(), torch.diag(torch.tensor([1.0, 0, 2, 0.5, 0]).double())):
        problem = linear(matrix, -1.0)
        for engine in ("cpp", "reference"):
            assert (solve(engine, problem)[1] == torch.inf).all()


@pytest.mark.parametrize("shape", [(37, 17, (33,)), (7, 17, (33, 20)), (9, 5, ())])
@pytest.mark.parametrize("form", ["squash", "tables EEE"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_same_bits_for_every_number_of_threads(shape, form, dtype, threads):
    problem = Case(shape, form, "softplus", "exact", context="all", log_det="exact").problem()
    problem = replace(problem, h=problem.h * 0.3)
    results = []
    for n in (1, 2, 3, 1):
        threads(n)
        results.append(solve("cpp", problem, dtype))
    for z, logp in results[1:]:
        assert torch.equal(z, results[0][0]) and torch.equal(logp, results[0][1])


@pytest.mark.parametrize("contestant", CPP, indirect=True)
@pytest.mark.parametrize("shape", [(40, 17, (33,)), (20, 3, (7,)), (20, 3, (7, 5)), (20, 19, ())])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_in_its_row(contestant, shape, value):
    problem = Case(shape, "squash", trace="exact", log_det="exact", solver="euler").problem()
    clean = solve(contestant, problem, torch.float32)
    problem.z[1, 0] = value
    z, logp = solve(contestant, problem, torch.float32)
    others = torch.arange(shape[0]) != 1
    assert torch.equal(z[:, others], clean[0][:, others])
    assert torch.equal(logp[:, others], clean[1][:, others])
    assert not z[:, 1].isfinite().all()
    if shape[2] and value != value:  # of no hidden layer the Jacobian is the same everywhere
        assert logp[:, 1].isnan().all()


@pytest.mark.parametrize("hidden", [(), (7,), (5, 4)])
@pytest.mark.parametrize("solver", ["euler", "rk4"])
def test_an_empty_batch(hidden, solver):
    case = Case((0, 3, hidden), trace="exact", log_det="exact", solver=solver, outputs=(1, 3))
    z, logp = solve("cpp", case.problem())
    assert z.shape == (2, 0, 3) and logp.shape == (2, 0)


def chosen(grad=False, **changes):
    problem = Case(**{"trace": "exact", "log_det": "exact", **changes}).problem()
    if grad:
        problem.z.requires_grad_()
    return engines.choose("auto", problem), problem


def test_auto_takes_it_where_it_applies():
    for form in ("tables 1EE", *COEFFICIENTS):
        assert chosen(form=form)[0] == "cpp"
    assert chosen(solver="rk4", shape=(5, 3, (4, 4, 4)))[0] == "cpp"
    name, problem = chosen(grad=True)
    assert name == "reference"
    with torch.no_grad():
        assert engines.choose("auto", problem) == "cpp"
    assert chosen(log_det="second_order", shape=(5, 3, (7, 4)))[0] == "reference"
    rows = torch.zeros(5, 7, dtype=torch.float64), None
    problem = chosen(form="mixed")[1]
    gated = replace(problem, field=replace(problem.field, gate_context=rows))
    assert engines.choose("auto", gated) == "reference"
    half = problem._replace(precision="bf16")
    assert engines.choose("auto", half) == "reference"
    assert engines.choose("auto", half._replace(follow=True)) == "cpp"


def test_what_it_has_not_is_refused_with_the_remedy():
    problem = chosen(grad=True)[1]
    with pytest.raises(ValueError, match="engine: 'cpp' has log_det='exact' without derivatives"):
        engines.solve("cpp", problem)
    problem = converted(chosen()[1]._replace(precision="bf16"), torch.Tensor.float)
    with pytest.raises(ValueError, match="has log_det='exact' with precision='full', got 'bf16'"):
        engines.solve("cpp", problem)


def test_gradients_are_those_of_the_reference():
    torch.manual_seed(0)
    flow = FastCNF(ODEfunc(ODEnet((7,), (3,))), n_steps=2, trace="exact", log_det="exact")
    z = torch.randn(4, 3, requires_grad=True)
    logp = flow(z, torch.zeros(4, 1))[1]
    (gradient,) = torch.autograd.grad(logp.sum(), z)
    assert gradient.abs().sum() > 0
    with torch.no_grad():
        torch.testing.assert_close(flow(z, torch.zeros(4, 1))[1], logp)
    jacobian = torch.func.jacrev(lambda x: flow(x, torch.zeros(4, 1))[1].sum())(z.detach())
    torch.testing.assert_close(jacobian, gradient)


@pytest.mark.slow
def test_compiled_and_exported():
    torch.manual_seed(0)
    flow = FastCNF(ODEfunc(ODEnet((7,), (3,))), n_steps=2, trace="exact", log_det="exact")
    flow.requires_grad_(False)
    z, logp = torch.randn(4, 3), torch.zeros(4, 1)
    wanted = flow(z, logp)
    program = torch.export.export(flow, (z, logp))
    assert any("mvae_fast.log_det" in str(node.target) for node in program.graph.nodes)
    compiled = torch.compile(flow, fullgraph=True)
    for got in (compiled(z, logp), program.module()(z, logp)):
        torch.testing.assert_close(got, wanted)


def test_products_are_counted():
    D, m, S, B = 3, 8, 4, 5
    flow = FastCNF(ODEfunc(ODEnet((m,), (D,))), n_steps=S, trace="exact", log_det="exact")
    z, logp = torch.randn(B, D), torch.zeros(B, 1)
    for solver, stages in (("euler", 1), ("rk4", 4)):
        flow.solver = solver
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            flow(z, logp)
        # The first Jacobian of a step takes one product, the others two.
        jacobians = (2 * stages - 1) * D * D * m
        row = stages * 2 * D * m + jacobians + D**3 // 3
        assert counter.get_total_flops() == 2 * B * S * row


def test_the_op_checks_its_arguments():
    problem = Case(form="tables 111", trace="exact").problem()
    tensors, layout, _ = cpp.ops.tables(problem)
    given = [problem.z, problem.h, tensors, problem.field.widths, layout, 0, False, [0.0], [1.0]]
    run = torch.ops.mvae_fast.log_det.default
    with pytest.raises(RuntimeError, match="a trace table, which a log-determinant does not take"):
        run(*given, [3])
    with pytest.raises(RuntimeError, match="outputs must end with the number of steps, 3"):
        run(*given, [2])
    with pytest.raises(RuntimeError, match="z must be float32 or float64"):
        run(problem.z.half(), *given[1:], [3])
