"""FastCNF as a module: copies, frozen parameters, layouts, autocast, what it prints and refuses."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from tests.contract import taken
from tests.oracles import LAYER_TYPES, cnf, random_net, states


def test_state_dict_round_trip():
    flow, other = cnf(train_T=True), cnf(train_T=True)
    z, logp = states()
    flow(z, logp)
    file = io.BytesIO()
    torch.save(flow.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    assert torch.equal(flow(z, logp)[1], other(z, logp)[1])


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))])
def test_copies(engine, copier):
    flow = cnf(regularization_fns=("l2int",))
    flow.test_solver = "rk4"
    z, logp = states()
    flow(z, logp)
    flow.engine = engine
    other = copier(flow).eval()
    other.test_solver = "euler"
    assert other.regularization_states is None and flow.test_solver == "rk4"
    flow.eval().test_solver = "euler"
    assert torch.equal(flow(z, logp)[1], other(z, logp)[1])
    with torch.no_grad():
        other.odefunc.odefunc.diffeq.layers[0]._layer.weight.zero_()
    assert not torch.equal(flow(z, logp)[1], other(z, logp)[1])


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_without_gradients(engine, mode, trace):
    flow = cnf(engine=engine, trace=trace)
    z, logp = states()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    expected = flow(z, logp, probes=noise)
    with mode():
        got = flow(z, logp, probes=noise)
    for a, b in zip(got, expected, strict=True):
        assert torch.equal(a, b.detach()) and not a.requires_grad


def test_partially_frozen(engine):
    flow = cnf(engine=engine)
    z, logp = states()
    flow(z, logp)[1].sum().backward()
    full = {name: p.grad.clone() for name, p in flow.named_parameters()}
    flow.zero_grad()
    flow.odefunc.diffeq.layers[0].requires_grad_(False)
    flow(z, logp)[1].sum().backward()
    for name, parameter in flow.named_parameters():
        if ".layers.0." in name:
            assert parameter.grad is None
        else:
            torch.testing.assert_close(parameter.grad, full[name], rtol=1e-13, atol=1e-13)
    flow.requires_grad_(False)
    (gradient,) = torch.autograd.grad(flow(z.requires_grad_(), logp)[1].sum(), z)
    assert gradient.abs().max() > 0
    assert not flow(z.detach(), logp)[1].requires_grad


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_every_parameter_gets_a_gradient_in_one_step(engine, layer_type):
    # At t = 0 time weights have no effect, but DDP wants every gradient: zeros, not None.
    flow = cnf(layer_type=layer_type, n_steps=1, engine=engine)
    flow(*states())[1].sum().backward()
    assert all(parameter.grad is not None for parameter in flow.parameters())


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (129, 17)])
def test_odd_shapes(engine, shape):
    flow = cnf((33,), shape[1], engine=engine)
    z, logp = states(*shape)
    z.requires_grad_()
    z_t, logp_t = flow(z, logp)
    assert z_t.shape == shape and logp_t.shape == (shape[0], 1)
    (z_t.sum() + logp_t.sum()).backward()
    assert z.grad.shape == shape


def test_any_layout(engine):
    flow = cnf(engine=engine)
    z, logp = states()
    transposed = z.mT.contiguous().mT
    assert not transposed.is_contiguous()
    torch.testing.assert_close(flow(z, logp), flow(transposed, logp))
    expanded = flow(z[:1].expand(5, 3), logp[:1].expand(5, 1))
    torch.testing.assert_close(expanded[0], flow(z, logp)[0][:1].expand(5, 3))


def test_autocast_rounds_the_operands_of_products_only(engine):
    flow = cnf(engine=engine).float()
    z, logp = (x.float() for x in states())
    full = flow(z, logp)
    flow.precision = "bf16"
    expected = flow(z, logp)
    flow.precision = None
    with torch.autocast("cpu", torch.bfloat16):
        got = flow(z, logp)
        coarse = flow(z.bfloat16(), logp.bfloat16())
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))
    assert torch.equal(got[0], full[0]) == (taken(engine, "bf16") == "full")
    for result in (got, coarse):
        assert result[0].dtype == result[1].dtype == torch.float32
        torch.testing.assert_close(result[0], full[0], rtol=0.02, atol=0.02)


@pytest.mark.parametrize(
    "settings",
    [
        {"precision": "full"},
        {"solver": "dopri5"},
        {"solver": "dopri8"},
        {"log_det": "exact", "trace": "exact"},
        {"log_det": "second_order", "trace": "exact"},
    ],
)
def test_autocast_is_off_inside_where_it_does_not_apply(settings):
    flow = cnf(**settings).float()
    z, logp = (x.float() for x in states())
    expected = flow(z, logp)
    with torch.autocast("cpu", torch.bfloat16):
        got = flow(z, logp)
    assert all(torch.equal(a, b) for a, b in zip(got, expected, strict=True))


def test_autocast_leaves_states_of_more_axes_alone():
    flow = cnf().float()
    z = torch.randn(2, 4, 3)
    expected = flow(z)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(flow(z), expected)


def test_bf16_needs_an_engine_and_float32():
    z, logp = (x.float() for x in states())
    with pytest.raises(ValueError, match="precision: 'bf16' is for an ODEnet with one of"):
        cnf(solver="dopri8", precision="bf16").float()(z, logp)
    with pytest.raises(ValueError, match="precision: 'bf16' needs a float32 z, got torch.float64"):
        cnf(precision="bf16", engine="reference")(z.double(), logp.double())
    flow = cnf(precision="bf16", trace="exact", log_det="exact").float()
    with pytest.raises(ValueError, match="precision: 'bf16' does not go with log_det='exact'"):
        flow(z, logp)
    with pytest.raises(ValueError, match="precision: got 'fp8', expected one of None, 'full'"):
        cnf(precision="fp8")


def test_no_host_synchronisation():
    # On the meta device any read of a value raises.
    flow = cnf(engine="reference", train_T=True, layer_type="concatsquash").to("meta")
    z, logp = (x.to("meta") for x in states())
    times = torch.zeros(3, dtype=torch.float64, device="meta")
    assert flow(z, logp)[0].shape == (5, 3)
    assert flow(z, logp, times, reverse=True)[1].shape == (3, 5, 1)
    assert flow.eval()(z, logp)[1].shape == (5, 1)


def test_repr_says_what_runs(engine):
    flow = cnf(engine=engine, n_steps=7)
    assert f"engine={engine}, solver=euler, n_steps=7, trace=exact" in repr(flow)
    flow = cnf(trace=None)
    assert "engine=auto (" in repr(flow) and "trace=as divergence_fn=approximate" in repr(flow)
    flow.solver = "dopri8"
    assert "engine=auto (torchdiffeq), solver=dopri8" in repr(flow)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"T": 0.0}, "T: got 0.0, expected > 0"),
        ({"n_steps": 0}, "n_steps: got 0, expected an integer >= 1"),
        ({"n_steps": 2.0}, "n_steps: got 2.0, expected an integer >= 1"),
        ({"n_steps": True}, "n_steps: got True, expected an integer >= 1"),
        ({"n_steps": "2"}, "n_steps: got '2', expected an integer >= 1"),
        ({"checkpoint_every": 1.5}, "checkpoint_every: got 1.5, expected an integer >= 1"),
        ({"n_probes": 0}, "n_probes: got 0, expected an integer >= 1"),
        ({"trace": "brute_force"}, "trace: got 'brute_force', expected None, 'exact' or"),
        (
            {"engine": "tvm"},
            "engine: got 'tvm', expected one of 'auto', 'cpp', 'cuda', 'triton', 'reference'",
        ),
        ({"solver": "euler2"}, "solver: got 'euler2', expected one of 'euler', 'midpoint'"),
        ({"regularization_fns": ("l3int",)}, "regularization_fns: got 'l3int', expected a call"),
    ],
)
def test_bad_settings_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        FastCNF(ODEfunc(ODEnet((4,), (3,))), **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"z": torch.zeros(3)}, r"z: got shape \(3,\), expected \(B, D\)"),
        ({"z": torch.zeros(5, 4)}, r"z: got shape \(5, 4\), expected \(B, 3\)"),
        (
            {"z": torch.zeros(5, 3, dtype=torch.float64)},
            "z: got torch.float64 on cpu, but the flow",
        ),
        ({"z": torch.zeros(5, 3, device="meta")}, "z: got torch.float32 on meta, but the flow"),
        ({"logpz": torch.zeros(5, 3)}, r"logpz: got shape \(5, 3\), expected \(5, 1\) or \(5,\)"),
        ({"logpz": torch.zeros(5, dtype=torch.float64)}, "logpz: got torch.float64 on cpu"),
        ({"integration_times": torch.zeros(1)}, r"integration_times: got shape \(1,\)"),
        ({"probes": torch.zeros(4, 3)}, r"probes: got shape \(4, 3\), expected \(5, 3\) or \(K, 5"),
        ({"probes": torch.zeros(5, 3).double()}, "probes: got torch.float64 on cpu"),
        ({"probes": torch.zeros(5, 3), "logpz": None}, "probes: given, but no trace is wanted"),
    ],
)
def test_bad_inputs_are_named(arguments, message):
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))))
    with pytest.raises(ValueError, match=message):
        flow(**{"z": torch.zeros(5, 3), "logpz": torch.zeros(5), **arguments})


def test_counts_may_be_integers_of_other_libraries(engine):
    flow = cnf(engine=engine, n_steps=2)
    z, logp = states()
    expected = flow(z, logp)
    flow.n_steps, flow.checkpoint_every = np.int64(2), np.int32(2)
    torch.testing.assert_close(flow(z.requires_grad_(), logp), expected)


def test_bad_attributes_are_named_when_they_are_used():
    flow = cnf()
    z, logp = states()
    with pytest.raises(ValueError, match="probes: given, but trace is exact"):
        flow(z, logp, probes=torch.zeros_like(z))
    flow.n_steps = 0
    with pytest.raises(ValueError, match="n_steps: got 0"):
        flow(z)
    flow.n_steps, flow.solver_options["step_size"] = 1, -0.1
    with pytest.raises(ValueError, match=r"solver_options\['step_size'\]: got -0.1, expected > 0"):
        flow(z)


def test_settings_of_another_type_are_refused():
    flow = FastCNF(ODEfunc(random_net((5,), 3)))
    with pytest.raises(TypeError, match="settings: got a dict, expected a Settings"):
        flow(torch.zeros(4, 3), settings={"n_steps": 2})
