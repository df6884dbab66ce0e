"""The CUDA kernels, compiled for the host: launches of every kind, and what else is theirs alone.

tests/engines/test_contract.py holds them to the float64 oracle as they are launched.
"""

import itertools

import pytest
import torch

from mvae_fast.core.tableaus import TABLEAUS
from tests.contract import SHAPES, TABLES, TRACES, Case, assert_near, eager, oracle, run, totals

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


def check(case):
    assert_near(run("emulated", case.problem()), oracle(case), note=case)


@pytest.mark.parametrize("launch", LAUNCHES.values(), ids=LAUNCHES)
@pytest.mark.parametrize("shape", [(129, 33, (65,)), (65, 8, (40, 31)), (33, 5, (3, 17, 4))])
def test_every_launch(emulated, launch, shape):
    emulated.using(**launch)
    for form, trace in itertools.product(("tables 1EE", "tables EEE"), TRACES):
        check(Case(shape, form, "softplus", trace, residual=trace == "exact"))


@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("hidden", [(), (7,), (5, 4), (4, 3, 5)])
def test_runge_kutta(emulated, method, hidden):
    forms = ("tables 1EE", "tables E0E", "tables EEE")
    for form, trace in itertools.product(forms, ("exact", "hutchinson")):
        for window_bytes in (0, 1):
            emulated.using(rows=16, window_bytes=window_bytes)
            check(Case((18, 3, hidden), form, trace=trace, solver=method))


@pytest.mark.parametrize("method", ["euler", "midpoint", "rk4"])
@pytest.mark.parametrize("every", [1, 2, 3, 4, 7, 2**40])
@pytest.mark.parametrize("form", ["tables 1EE", "tables E0E", "tables EEE"])
def test_checkpoints(emulated, form, every, method):
    stages = len(TABLEAUS[method].b)
    # Windows of all steps, of one and of three or four: where one begins between two checkpoints,
    # its states take weights from before it.
    for window_bytes in (0, 1, 200_000 * stages):
        emulated.using(rows=16, window_bytes=window_bytes)
        check(Case((21, 3, (5, 4)), form, "tanh", "exact", True, "", method, 7, every=every))


@pytest.mark.parametrize("count", [3, 12])  # some come with the launch, more in a table
@pytest.mark.parametrize("trace", TRACES)
def test_outputs(emulated, count, trace):
    outputs = (*range(1, count), 14)
    for window_bytes in (0, 20_000):
        emulated.using(window_bytes=window_bytes)
        check(Case((20, 3, (7,)), trace=trace, steps=14, outputs=outputs, every=2))


@pytest.mark.parametrize("form", TABLES)
def test_second_order_in_windows(emulated, form):
    emulated.using(window_bytes=1)
    check(Case((37, 5, (19,)), form, "softplus", "exact", log_det="second_order"))


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("shape", [(40, 3, ()), (40, 3, (7,)), (40, 3, (7, 5))])
def test_gradients_of_the_state_only(emulated, shape, trace):
    problem = Case(shape, trace=trace).problem()
    full = run("emulated", problem, wanted=["z", "h"])
    emulated.using(table_grads=False)
    alone = run("emulated", problem, wanted=["z", "h"])
    assert all(torch.equal(full[name], alone[name]) for name in full)


@pytest.mark.parametrize("trace", TRACES)
def test_same_bits_whatever_the_grid(emulated, trace):
    problem = Case((129, 17, (33,)), nonlinearity="softplus", trace=trace).problem()
    results = []
    for launch in ({"grid": 1}, {"grid": 7}, {"grid": 100}, {"grid": 5, "shared_limit": SMALL}):
        emulated.using(rows=16, **launch)
        results.append(run("emulated", problem, torch.float32))
    for other in results[1:]:
        assert all(torch.equal(x, other[name]) for name, x in results[0].items())


@pytest.mark.parametrize("form", ["tables 101", "tables 1EE", "tables EEE"])
@pytest.mark.parametrize("nonlinearity", ["softplus", "tanh"])
def test_tf32_operands(emulated, form, nonlinearity):
    # Rounded as eager PyTorch rounds them, so at most twice its error; tf32 has fp16's mantissa.
    ours = eagers = 0.0
    emulated.using(tf32=True)
    for shape, trace in itertools.product([*SHAPES, (65, 33, (65,)), (64, 8, (65, 31))], TRACES):
        case = Case(shape, form, nonlinearity, trace)
        got = run("emulated", case.problem(), torch.float32)
        pair = totals(got, eager(case, "fp16"), oracle(case))
        ours, eagers = ours + pair[0], eagers + pair[1]
    assert 1e-4 < ours <= 2 * eagers
