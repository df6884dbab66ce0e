"""The CUDA kernels, compiled for the host, against the float64 reference: values and gradients."""

import itertools

import pytest
import torch

from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import second_order_table
from mvae_fast.integrate import integrate
from tests.oracles import GPU_NONLINEARITIES, distance, gradients, pairwise
from tests.test_integrate import LAYOUTS, SHAPES, TRACES, problem, run

SMALL = 4096  # bytes: no arena fits
LAUNCHES = {
    "chosen": {},
    "16 rows": {"rows": 16, "grid": 2},
    "64 rows": {"rows": 64},
    "arena in global memory": {"rows": 32, "grid": 3, "shared_limit": SMALL},
    "no resident weights": {"rows": 32, "resident_limit": 0},
    "some resident weights": {"rows": 16, "resident_limit": 640},
    "a window a step": {"rows": 16, "window_bytes": 1},
}


def solve(engine, leaves, probes, statics, dtype, wanted=None, second=None, **settings):
    """Like `run`, with every setting of `integrate`, and ``second`` among the leaves."""
    everything = [*leaves, second]
    everything = [None if x is None else x.detach().to(dtype).requires_grad_() for x in everything]
    z, h, weight, gate, bias, table, second = everything
    probes = None if probes is None else probes.to(dtype)
    tables = Tables(weight, gate, bias, *statics)
    solution = integrate(
        z, h, tables, trace=table, second=second, probes=probes, engine=engine, **settings
    )
    inputs = [x for x in (everything if wanted is None else everything[:wanted]) if x is not None]
    return [*solution, *gradients(solution, inputs)]


def assert_equal(*arguments, tolerance=1e-13, **settings):
    oracle = solve("reference", *arguments, torch.float64, **settings)
    got = solve("emulated", *arguments, torch.float64, **settings)
    for position, (ours, exact) in enumerate(zip(got, oracle, strict=True)):
        assert ours.shape == exact.shape
        assert distance(ours, exact) < tolerance, (position, settings)


@pytest.mark.parametrize(
    ("shape", "layout", "nonlinearity"), pairwise(SHAPES, list(LAYOUTS), GPU_NONLINEARITIES)
)
def test_values_and_gradients(emulated, shape, layout, nonlinearity):
    errors = {}
    for trace, residual in itertools.product(TRACES, (False, True)):
        arguments = problem(shape, layout, nonlinearity, trace, residual)
        oracle = run("reference", *arguments, torch.float64)
        for got, exact in zip(run("emulated", *arguments, torch.float64), oracle, strict=True):
            assert distance(got, exact) < 1e-13, (trace, residual)
        for engine in ("emulated", "reference"):
            single = run(engine, *arguments, torch.float32)
            errors.setdefault(engine, []).append(
                sum(distance(x, y) for x, y in zip(single, oracle, strict=True))
            )
    # float32 as sums of tf32 numbers: as near as eager PyTorch in float32, whose sums are shorter.
    assert sum(errors["emulated"]) <= 2 * sum(errors["reference"]) + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
@pytest.mark.parametrize("shape", [(129, 33, (65,)), (65, 8, (40, 31)), (33, 5, (3, 17, 4))])
def test_every_launch(emulated, launch, shape):
    emulated.using(**launch)
    for layout, trace in itertools.product(("squash", "all"), TRACES):
        assert_equal(*problem(shape, layout, "softplus", trace, residual=trace == "exact"))


@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 4), (4, 3, 5)])
def test_runge_kutta(emulated, method, hidden):
    tableau = TABLEAUS[method]
    stages = len(tableau.b)
    for layout, trace in itertools.product(("squash", "blend", "all"), ("exact", "hutchinson")):
        arguments = problem((18, 3, hidden), layout, "tanh", trace, steps=3 * stages)
        arguments[0][1] = arguments[0][1][:3].abs()
        for window_bytes in (0, 1):
            emulated.using(rows=16, window_bytes=window_bytes)
            assert_equal(*arguments, tableau=tableau)


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 7, 2**40])
@pytest.mark.parametrize("layout", ["squash", "blend", "all"])
def test_checkpoints(emulated, layout, every, method):
    tableau = TABLEAUS[method]
    stages = len(tableau.b)
    arguments = problem((21, 3, (5, 4)), layout, "tanh", "exact", True, steps=7 * stages)
    arguments[0][1] = arguments[0][1][:7]
    # Windows of all steps, of one and of three or four: where one begins between two checkpoints,
    # its states take weights from before it.
    for window_bytes in (0, 1, 200_000 * stages):
        emulated.using(rows=16, window_bytes=window_bytes)
        assert_equal(*arguments, tableau=tableau, checkpoint_every=every)


@pytest.mark.parametrize("count", [3, 12])  # some come with the launch, more in a table
@pytest.mark.parametrize("trace", TRACES)
def test_outputs(emulated, count, trace):
    arguments = problem((20, 3, (7,)), "squash", "tanh", trace, steps=14)
    outputs = (*range(1, count), 14)
    for window_bytes in (0, 20_000):
        emulated.using(window_bytes=window_bytes)
        assert_equal(*arguments, outputs=outputs, checkpoint_every=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", ["ignore", "squash", "all"])
def test_penalties(emulated, shape, layout):
    for trace, residual in itertools.product(("exact", "hutchinson"), (False, True)):
        if trace == "exact" and len(shape[2]) > 2:
            continue
        leaves, _, statics = problem(shape, layout, "tanh", trace, residual)
        probes = torch.randn(2, *shape[:2], dtype=torch.float64)
        assert_equal(leaves, probes, statics, penalties=PENALTIES, outputs=(1, 3))


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("method", ["euler", "heun3", "rk4"])
def test_each_penalty(emulated, penalty, method):
    leaves, _, statics = problem((5, 3, (7, 4)), "concat", "softplus", "exact", steps=12)
    leaves[4] = leaves[4].expand(12, -1)
    leaves[1] = leaves[1].abs()[: 12 // len(TABLEAUS[method].b)]
    probes = torch.randn(1, 5, 3, dtype=torch.float64)
    if penalty != "frobenius":
        leaves[5] = None
    assert_equal(leaves, probes, statics, penalties=(penalty,), tableau=TABLEAUS[method])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("frobenius", [False, True])
def test_second_order(emulated, layout, frobenius):
    leaves, _, statics = problem((37, 5, (19,)), layout, "softplus", "exact")
    square = second_order_table(Tables(*leaves[2:5], *statics))
    probes = torch.randn(1, 37, 5, dtype=torch.float64) if frobenius else None
    penalties = ("frobenius",) if frobenius else ()
    for window_bytes in (0, 1):
        emulated.using(window_bytes=window_bytes)
        assert_equal(leaves, probes, statics, second=square, penalties=penalties)


def test_shared_probes_and_an_expanded_state(emulated):
    leaves, _, statics = problem((6, 4, (7,)), "squash", "tanh", "none")
    leaves[0] = leaves[0][:1].expand(6, 4)
    assert_equal(leaves, torch.randn(2, 1, 4, dtype=torch.float64).expand(2, 6, 4), statics)


def test_hidden_units_that_overflow_a_careless_formula(emulated):
    for nonlinearity in ("softplus", "tanh", "elu", "swish"):
        leaves, probes, statics = problem((5, 3, (7,)), "ignore", nonlinearity, "exact")
        leaves[4] = torch.full_like(leaves[4], 1000.0)
        leaves[4][:, ::2] *= -1
        oracle = run("reference", leaves, probes, statics, torch.float64)
        for ours, exact in zip(
            run("emulated", leaves, probes, statics, torch.float32), oracle, strict=True
        ):
            assert distance(ours, exact) < 4 * torch.finfo(torch.float32).eps * 1000


@pytest.mark.parametrize("trace", TRACES)
def test_no_rows(emulated, trace):
    results = run("emulated", *problem((0, 3, (7,)), "squash", "tanh", trace), torch.float32)
    assert results[0].shape == (1, 0, 3) and results[1].shape == (1, 0)
    assert all((gradient == 0).all() for gradient in results[3:])


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("shape", [(40, 3, ()), (40, 3, (7,)), (40, 3, (7, 5))])
def test_gradients_of_the_state_only(emulated, shape, trace):
    arguments = problem(shape, "squash", "tanh", trace)
    full = solve("emulated", *arguments, torch.float64, wanted=2)
    emulated.using(table_grads=False)
    alone = solve("emulated", *arguments, torch.float64, wanted=2)
    assert all(torch.equal(a, b) for a, b in zip(full, alone, strict=True))


@pytest.mark.parametrize("trace", TRACES)
def test_same_bits_whatever_the_grid(emulated, trace):
    arguments = problem((129, 17, (33,)), "squash", "softplus", trace)
    results = []
    for launch in ({"grid": 1}, {"grid": 7}, {"grid": 100}, {"grid": 5, "shared_limit": SMALL}):
        emulated.using(rows=16, **launch)
        results.append(run("emulated", *arguments, torch.float32))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("layout", ["ignore", "squash", "all"])
@pytest.mark.parametrize("nonlinearity", ["softplus", "tanh"])
@pytest.mark.parametrize("operands", ["bf16", "fp16", "tf32"])
def test_rounded_operands(emulated, operands, layout, nonlinearity):
    # Rounded as eager PyTorch rounds them, so at most twice its error; tf32 has fp16's mantissa.
    errors = dict.fromkeys(("emulated", "reference"), 0.0)
    like = "fp16" if operands == "tf32" else operands
    for shape, trace in itertools.product([*SHAPES, (65, 33, (65,)), (64, 8, (65, 31))], TRACES):
        arguments = problem(shape, layout, nonlinearity, trace)
        oracle = run("reference", *arguments, torch.float64)
        for engine in errors:
            emulated.using(tf32=operands == "tf32")
            precision = "full" if (operands, engine) == ("tf32", "emulated") else like
            values = run(engine, *arguments, torch.float32, precision=precision)
            errors[engine] += sum(distance(x, y) for x, y in zip(values, oracle, strict=True))
    assert 1e-4 < errors["emulated"] <= 2 * errors["reference"]
