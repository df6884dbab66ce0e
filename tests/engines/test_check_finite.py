"""``check_finite``: an error that names the step and the row, or nothing."""

import math

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.core import finite
from mvae_fast.core.tables import Tables
from mvae_fast.integrate import integrate
from tests.oracles import random_net

ROWS, DIM, STEPS = 6, 3, 10


def flow_of(engine, **settings):
    net = random_net((5,), DIM, "squash", "tanh")
    settings = {"trace": "exact", "check_finite": True, "n_steps": STEPS, **settings}
    return FastCNF(ODEfunc(net), engine=engine, **settings).double()


def states():
    z = torch.randn(ROWS, DIM, dtype=torch.float64)
    return z, z[:, :1] * 0


def growing(broken_at, steps=STEPS):
    """Tables of z' = z whose bias is infinite from an evaluation on."""
    weight = torch.eye(DIM).double().view(1, -1)
    bias = torch.zeros(steps, DIM).double()
    bias[broken_at:] = math.inf
    return Tables(weight, None, bias, (DIM, DIM), "identity")


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("solver", ["euler", "rk4", "dopri5"])
def test_a_start_that_is_not_finite(engine, solver, number):
    z, logp = states()
    z[2, 1] = z[4, 0] = number
    flow = flow_of(engine, solver=solver)
    with pytest.raises(FloatingPointError, match=r"z is not finite in row 2 \(first of 2 rows\)$"):
        flow(z, logp)
    with pytest.raises(FloatingPointError, match="row 2"):
        flow.log_prob(z)


@pytest.mark.parametrize("steps", [1, STEPS, 64, 65, 1000])
def test_the_first_step_is_named(engine, steps):
    z, _ = states()
    h = torch.full((steps,), 1 / steps).double()
    for broken_at in {0, steps // 3, steps - 1}:
        expected = f"not finite from step {broken_at + 1} of {steps} on, in row 0 .first of 6 rows"
        with pytest.raises(FloatingPointError, match=expected):
            integrate(z, h, growing(broken_at, steps), engine=engine, check_finite=True)


def test_the_row_that_overflows_first_is_named(engine):
    """Row 4 grows past the largest number in step 3, row 1 in step 4."""
    z, _ = states()
    largest = torch.finfo(z.dtype).max
    z[4, 0], z[1, 2] = largest / 5, largest / 12
    h = torch.ones(STEPS).double()
    with pytest.raises(FloatingPointError, match="from step 3 of 10 on, in row 4$"):
        integrate(z, h, growing(STEPS), engine=engine, check_finite=True)


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_a_log_density_alone_that_is_not_finite(engine, trace):
    """The state stays at zero, a trace of three numbers near the largest one overflows."""
    z, h = torch.zeros(ROWS, DIM).double(), torch.ones(STEPS).double()
    weight = 0.7 * torch.finfo(z.dtype).max * torch.eye(DIM).double().view(1, -1)
    tables = Tables(weight, None, torch.zeros(1, DIM).double(), (DIM, DIM), "identity")
    probes = torch.ones(1, ROWS, DIM).double() if trace == "hutchinson" else None
    how = {"trace": trace, "probes": probes, "engine": engine}
    assert (integrate(z, h, tables, **how).z == 0).all()
    with pytest.raises(FloatingPointError, match="from step 1 of 10 on, in row 0 "):
        integrate(z, h, tables, check_finite=True, **how)


def test_what_is_finite_is_as_without_it_and_takes_no_second_solve(engine, monkeypatch):
    z, logp = states()
    flow, plain = flow_of(engine), flow_of(engine, check_finite=False)
    plain.load_state_dict(flow.state_dict())
    called = []
    original = finite._first
    monkeypatch.setattr(finite, "_first", lambda p: called.append(p) or original(p))
    for x, y in zip(flow(z, logp), plain(z, logp), strict=True):
        assert torch.equal(x, y)
    z[0, 0] = math.nan
    assert plain(z, logp)[0].isnan().any()
    assert not called


def test_an_engine_that_overflows_where_the_reference_does_not(monkeypatch):
    z, _ = states()
    h = torch.ones(STEPS).double()
    tables = growing(STEPS)
    broken = integrate(z, h, tables, engine="reference")
    broken.z[0, 5] = math.inf
    monkeypatch.setitem(
        engines._ENGINES, "reference", engines.Engine(lambda problem: broken, lambda: None)
    )
    with pytest.raises(FloatingPointError, match="row 5; the steps of engine='reference' are"):
        integrate(z, h, tables, engine="reference", check_finite=True)


def test_what_it_does_not_go_with():
    z, logp = states()
    with pytest.raises(ValueError, match="check_finite: got 'no', expected True or False"):
        flow_of("auto", check_finite="no")
    with pytest.raises(ValueError, match="check_finite: got True, which is for an ODEnet"):
        flow_of("auto", solver="explicit_adams")(z, logp)
    with pytest.raises(ValueError, match="check_finite: got True, but torch.func"):
        torch.func.vmap(flow_of("reference"))(z.unsqueeze(0))
