"""Settings as a value, and as FFJORD's attributes."""

import copy
import pickle
from dataclasses import FrozenInstanceError, fields, replace

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.ode.settings import N_STEPS, Settings
from tests.oracles import gradients, random_net

DIM = 3


def flow_of(**settings):
    net = random_net((5,), DIM, "squash", "tanh")
    return FastCNF(ODEfunc(net, rademacher=True), **{"n_steps": 3, **settings}).double()


def states():
    z = torch.randn(4, DIM, dtype=torch.float64)
    return z, torch.randn(4, 1, dtype=torch.float64)


CHANGES = (
    {"log_det": "exact", "trace": "exact"},
    {"log_det": "second_order", "trace": "exact"},
    {"trace": "exact"},
    {"trace": "hutchinson", "n_probes": 3},
    {"solver": "rk4"},
    {"solver": "dopri5", "atol": 1e-3, "rtol": 1e-3},
    {"solver": "explicit_adams", "n_steps": 7},
    {"adjoint": True},
    {"n_steps": None},
    {"engine": "reference", "checkpoint_every": 2},
    {"solver_options": {"step_size": 0.3}},
    {"test_solver": "rk4"},
)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.slow
def test_settings_of_one_call_are_those_of_a_flow_with_these_attributes(changes, training):
    flow = flow_of().train(training)
    before, (z, logp) = flow.settings, states()
    other = copy.deepcopy(flow)
    for name, value in changes.items():
        setattr(other, name, value)
    settings = replace(flow.settings, **changes)
    assert other.settings == settings
    results = []
    for a, how in ((flow, {"settings": settings}), (other, {})):
        got = a(z, logp, generator=torch.Generator().manual_seed(1), **how)
        results.append([*got, *gradients(got, list(a.parameters()))])
        assert a.num_evals() == flow.num_evals()
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)
    assert flow.settings is before and flow.settings != settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "x") for name in ("solver", "trace", "log_det", "engine", "precision")),
        *((name, 0) for name in ("n_steps", "n_probes", "checkpoint_every")),
        ("adjoint", 1),
        ("atol", -1.0),
        ("rtol", float("nan")),
        ("solver_options", 3),
        ("test_solver", "bdf"),
        ("test_atol", -1.0),
        ("test_rtol", "much"),
    ],
)
def test_errors_are_those_of_the_attributes(name, value):
    z, logp = states()
    flow = flow_of()
    settings = replace(flow.settings, **{name: value})
    setattr(flow, name, value)
    flow.train(not name.startswith("test_"))
    said = []
    for call in (
        lambda: settings.check(flow.training),
        lambda: flow(z, logp),
        lambda: flow_of().train(flow.training)(z, logp, settings=settings),
    ):
        with pytest.raises((TypeError, ValueError), match=f"^{name}: ") as error:
            call()
        said.append((type(error.value), str(error.value)))
    assert said[0] == said[1] == said[2]
    if name.startswith("test_"):  # of no account in training
        settings.check(True)
        flow.train()(z, logp)


def test_every_setting_is_an_attribute_that_may_be_set():
    flow = flow_of()
    for field in fields(Settings):
        before = flow.settings
        value = {"n_steps": 9, "solver_options": {"step_size": 0.5}}.get(field.name, "any")
        setattr(flow, field.name, value)
        assert getattr(flow, field.name) == getattr(flow.settings, field.name) == value
        assert flow.settings is not before
    assert flow.state_dict().keys() == flow_of().state_dict().keys()


def test_they_cannot_be_changed_in_place():
    flow = flow_of()
    with pytest.raises(FrozenInstanceError):
        flow.settings.solver = "rk4"
    # FFJORD's scripts write into the mapping.
    flow.solver_options["step_size"] = 0.5
    assert flow_of().solver_options == {} and flow.settings.solver_options == {"step_size": 0.5}


def test_those_of_eval_mode_replace_the_others_where_they_are_set():
    flow = flow_of(solver="midpoint", atol=0.1)
    assert (flow.test_solver, flow.test_atol, flow.test_rtol) == ("midpoint", 0.1, 1e-5)
    flow.test_solver, flow.test_rtol = "heun3", 0.2
    assert flow.settings.present(training=True) is flow.settings
    present = flow.settings.present(training=False)
    assert (present.solver, present.atol, present.rtol) == ("heun3", 0.1, 0.2)
    flow.test_solver = None
    flow.solver = "rk4"
    assert flow.settings.present(training=False).solver == flow.test_solver == "rk4"


def test_steps_that_are_not_given():
    assert Settings().steps == N_STEPS == flow_of(n_steps=None).n_steps
    assert flow_of(n_steps=None).settings.n_steps is None


def test_flows_are_copied_and_pickled_with_them():
    flow = flow_of()
    flow.test_solver, flow.trace = "rk4", "exact"
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other.settings == flow.settings
        z, logp = states()
        for a, b in zip(other.eval()(z, logp), flow.eval()(z, logp), strict=True):
            assert torch.equal(a, b)


@pytest.mark.slow
def test_settings_of_one_call_under_the_compiler():
    flow = flow_of(trace="exact")
    settings = replace(flow.settings, solver="midpoint", log_det="exact")
    compiled = torch.compile(flow, fullgraph=True, backend="eager")
    z, logp = states()
    others = ({"settings": replace(settings, n_steps=n)} for n in (4, 5))
    for how in ({"settings": settings}, *others, {}):
        torch.testing.assert_close(compiled(z, logp, **how), flow(z, logp, **how))
