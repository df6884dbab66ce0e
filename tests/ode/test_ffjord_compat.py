"""Checkpoints and scripts of FFJORD: key names, shapes and values, written out by hand."""

import copy
import warnings

import numpy as np
import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.ode import settings

# state_dict of FFJORD's CNF(ODEfunc(ODEnet((4,), (3,), ...))): names and shapes, literally.
STATE_DICTS = {
    "ignore": {
        "odefunc.diffeq.layers.0._layer.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer.bias": (4,),
        "odefunc.diffeq.layers.1._layer.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer.bias": (3,),
    },
    "concat": {
        "odefunc.diffeq.layers.0._layer.weight": (4, 4),
        "odefunc.diffeq.layers.0._layer.bias": (4,),
        "odefunc.diffeq.layers.1._layer.weight": (3, 5),
        "odefunc.diffeq.layers.1._layer.bias": (3,),
    },
    "concat_v2": {
        "odefunc.diffeq.layers.0._layer.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer.bias": (4,),
        "odefunc.diffeq.layers.0._hyper_bias.weight": (4, 1),
        "odefunc.diffeq.layers.1._layer.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer.bias": (3,),
        "odefunc.diffeq.layers.1._hyper_bias.weight": (3, 1),
    },
    "squash": {
        "odefunc.diffeq.layers.0._layer.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer.bias": (4,),
        "odefunc.diffeq.layers.0._hyper.weight": (4, 1),
        "odefunc.diffeq.layers.0._hyper.bias": (4,),
        "odefunc.diffeq.layers.1._layer.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer.bias": (3,),
        "odefunc.diffeq.layers.1._hyper.weight": (3, 1),
        "odefunc.diffeq.layers.1._hyper.bias": (3,),
    },
    "concatsquash": {
        "odefunc.diffeq.layers.0._layer.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer.bias": (4,),
        "odefunc.diffeq.layers.0._hyper_bias.weight": (4, 1),
        "odefunc.diffeq.layers.0._hyper_gate.weight": (4, 1),
        "odefunc.diffeq.layers.0._hyper_gate.bias": (4,),
        "odefunc.diffeq.layers.1._layer.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer.bias": (3,),
        "odefunc.diffeq.layers.1._hyper_bias.weight": (3, 1),
        "odefunc.diffeq.layers.1._hyper_gate.weight": (3, 1),
        "odefunc.diffeq.layers.1._hyper_gate.bias": (3,),
    },
    "blend": {
        "odefunc.diffeq.layers.0._layer0.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer0.bias": (4,),
        "odefunc.diffeq.layers.0._layer1.weight": (4, 3),
        "odefunc.diffeq.layers.0._layer1.bias": (4,),
        "odefunc.diffeq.layers.1._layer0.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer0.bias": (3,),
        "odefunc.diffeq.layers.1._layer1.weight": (3, 4),
        "odefunc.diffeq.layers.1._layer1.bias": (3,),
    },
    "hyper": {
        "odefunc.diffeq.layers.0._hypernet.0.weight": (8, 1),
        "odefunc.diffeq.layers.0._hypernet.0.bias": (8,),
        "odefunc.diffeq.layers.0._hypernet.2.weight": (16, 8),
        "odefunc.diffeq.layers.0._hypernet.2.bias": (16,),
        "odefunc.diffeq.layers.1._hypernet.0.weight": (8, 1),
        "odefunc.diffeq.layers.1._hypernet.0.bias": (8,),
        "odefunc.diffeq.layers.1._hypernet.2.weight": (15, 8),
        "odefunc.diffeq.layers.1._hypernet.2.bias": (15,),
    },
}
STATE_DICTS["concatcoord"] = STATE_DICTS["concat"]
COMMON = {"sqrt_end_time": (), "odefunc._num_evals": ()}
SWISH = {"odefunc.diffeq.activation_fns.0.beta": ()}
END = 0.8
STEPS = 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def affine(layer_type, p, t, shape):
    """Weight and bias of one layer at time t, from FFJORD's parameters in numpy."""
    if layer_type == "ignore":
        return p["_layer.weight"], p["_layer.bias"]
    if layer_type in ("concat", "concatcoord"):
        return p["_layer.weight"][:, 1:], p["_layer.bias"] + t * p["_layer.weight"][:, 0]
    if layer_type == "concat_v2":
        return p["_layer.weight"], p["_layer.bias"] + t * p["_hyper_bias.weight"][:, 0]
    if layer_type == "squash":
        gate = sigmoid(t * p["_hyper.weight"][:, 0] + p["_hyper.bias"])
        return gate[:, None] * p["_layer.weight"], gate * p["_layer.bias"]
    if layer_type == "concatsquash":
        gate = sigmoid(t * p["_hyper_gate.weight"][:, 0] + p["_hyper_gate.bias"])
        shift = t * p["_hyper_bias.weight"][:, 0]
        return gate[:, None] * p["_layer.weight"], gate * p["_layer.bias"] + shift
    if layer_type == "blend":
        weight = (1 - t) * p["_layer0.weight"] + t * p["_layer1.weight"]
        return weight, (1 - t) * p["_layer0.bias"] + t * p["_layer1.bias"]
    assert layer_type == "hyper"
    hidden = np.tanh(t * p["_hypernet.0.weight"][:, 0] + p["_hypernet.0.bias"])
    parameters = p["_hypernet.2.weight"] @ hidden + p["_hypernet.2.bias"]
    return parameters[shape[0] :].reshape(shape), parameters[: shape[0]]


def euler_in_numpy(layer_type, state, z, beta):
    """STEPS Euler steps of z and of minus the trace, for one hidden layer of swish."""

    def layer(index):
        prefix = f"odefunc.diffeq.layers.{index}."
        return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}

    h, logp = END / STEPS, np.zeros(len(z))
    for step in range(STEPS):
        first, b1 = affine(layer_type, layer(0), h * step, (4, 3))
        second, b2 = affine(layer_type, layer(1), h * step, (3, 4))
        a = z @ first.T + b1
        s = sigmoid(beta * a)
        slope = s + beta * a * s * (1 - s)
        trace = np.einsum("im,bm,mi->b", second, slope, first)
        z, logp = z + h * ((a * s) @ second.T + b2), logp - h * trace
    return z, logp


@pytest.mark.parametrize("layer_type", STATE_DICTS)
def test_checkpoint_loads_strictly_and_gives_the_right_value(engine, layer_type):
    rng = np.random.default_rng(0)
    shapes = COMMON | SWISH | STATE_DICTS[layer_type]
    state = {key: rng.normal(0, 0.7, shape) for key, shape in shapes.items()}
    state["sqrt_end_time"] = np.sqrt(END)
    state["odefunc.diffeq.activation_fns.0.beta"] = beta = 1.3
    net = ODEnet((4,), (3,), layer_type=layer_type, nonlinearity="swish")
    flow = FastCNF(ODEfunc(net, "brute_force"), n_steps=STEPS, engine=engine).double()

    flow.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in state.items()})

    assert flow.state_dict().keys() == shapes.keys()
    z = rng.normal(size=(6, 3))
    expected = euler_in_numpy(layer_type, state, z, beta)
    with torch.no_grad():
        z_t, logp = flow(torch.tensor(z), torch.zeros(6, 1, dtype=torch.float64))
    np.testing.assert_allclose(z_t, expected[0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logp[:, 0], expected[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("train_T", [False, True])
def test_end_time_is_a_buffer_or_a_parameter(train_T):
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), T=0.25, train_T=train_T)
    assert ("sqrt_end_time" in dict(flow.named_parameters())) == train_T
    assert flow.sqrt_end_time.shape == () and flow.sqrt_end_time.item() == 0.5
    assert "sqrt_end_time" in flow.state_dict()


@pytest.mark.parametrize("source", [None, (), ("l2int",)])
@pytest.mark.parametrize("target", [None, (), ("l2int",)])
def test_both_forms_of_keys_load(source, target):
    # FFJORD inserts a second "odefunc." whenever regularization_fns is not None, () included.
    def container(regularization_fns):
        flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), regularization_fns=regularization_fns)
        return torch.nn.ModuleDict({"chain": torch.nn.ModuleList([flow])})

    saved, model = container(source), container(target)
    prefix = "chain.0.odefunc." + ("" if source is None else "odefunc.")
    assert f"{prefix}diffeq.layers.0._layer.weight" in saved.state_dict()
    model.load_state_dict(saved.state_dict(), strict=True)
    first, second = (m.chain[0].odefunc.state_dict().values() for m in (saved, model))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_strict_loading_still_finds_what_is_wrong():
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))))
    state = flow.state_dict()
    state["odefunc.diffeq.layers.7._layer.weight"] = torch.zeros(1)
    del state["odefunc._num_evals"]
    with pytest.raises(RuntimeError, match=r"Missing key.*_num_evals(.|\n)*Unexpected.*layers\.7"):
        flow.load_state_dict(state)


def test_options_that_scripts_set_from_outside():
    # What FFJORD's set_cnf_options does to every module of a model.
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,)), "brute_force"))
    flow.solver, flow.atol, flow.rtol = "rk4", 1e-4, 1e-3
    assert (flow.test_solver, flow.test_atol, flow.test_rtol) == ("rk4", 1e-4, 1e-3)
    flow.solver_options["step_size"] = 0.5
    flow.test_solver, flow.test_atol, flow.test_rtol = "euler", 1e-6, 1e-7
    flow.odefunc.rademacher, flow.odefunc.residual = True, False
    z = torch.randn(5, 3)
    flow.train()(z)
    assert flow.num_evals() == 2 * 4
    flow.eval()(z)
    assert flow.num_evals() == 2
    assert (flow.test_atol, flow.test_rtol) == (1e-6, 1e-7)


@pytest.mark.parametrize("divergence_fn", ["approximate", "brute_force"])
@pytest.mark.parametrize("residual", [False, True])
def test_odefunc_by_itself(divergence_fn, residual):
    # FFJORD's calling convention: (t, (z, logp)) -> (dz, -trace), noise from before_odeint.
    net = ODEnet((4,), (3,), layer_type="concat", nonlinearity="tanh").double()
    odefunc = ODEfunc(net, divergence_fn, residual)
    z, e = torch.randn(2, 5, 3, dtype=torch.float64)
    t = torch.tensor(0.3, dtype=torch.float64)
    odefunc.before_odeint(e=e)
    dz, dlogp = odefunc(t, (z, torch.zeros(5, 1, dtype=torch.float64)))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda row: net(t, row) - residual * row))(z)
    if divergence_fn == "approximate":
        expected = torch.einsum("bi,bij,bj->b", e, jacobian, e)
        # FFJORD subtracts the dimension, not |e|^2, for the residual part.
        expected = expected + residual * (e.square().sum(1) - 3)
    else:
        expected = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    torch.testing.assert_close(dz, net(t, z) - residual * z)
    torch.testing.assert_close(dlogp, -expected.unsqueeze(1), rtol=1e-12, atol=1e-12)
    assert odefunc.num_evals() == 1


def test_odefunc_keeps_its_noise_until_the_next_solve():
    odefunc = ODEfunc(ODEnet((4,), (3,)), rademacher=True)
    t, states = torch.tensor(0.0), (torch.randn(50, 3), torch.zeros(50, 1))
    first = odefunc(t, states)[1]
    assert torch.equal(first, odefunc(t, states)[1]) and odefunc.num_evals() == 2
    odefunc.before_odeint()
    assert odefunc.num_evals() == 0
    assert not torch.equal(first, odefunc(t, states)[1])


def test_odefunc_passes_extra_states_to_the_net():
    class Conditional(torch.nn.Module):
        def forward(self, t, z, context):
            return z * context + t

    odefunc = ODEfunc(Conditional(), "brute_force")
    z, context = torch.randn(2, 5, 3)
    dz, dlogp, dcontext = odefunc(torch.tensor(0.5), (z, torch.zeros(5, 1), context))
    torch.testing.assert_close(dz, z * context + 0.5)
    torch.testing.assert_close(dlogp, -context.sum(1, keepdim=True))
    assert torch.equal(dcontext, torch.zeros_like(context))


def test_odefunc_errors_are_named():
    net = ODEnet((4,), (3,))
    with pytest.raises(ValueError, match="divergence_fn: got 'exact', expected 'approximate' or"):
        ODEfunc(net, "exact")
    odefunc = ODEfunc(net)
    with pytest.raises(ValueError, match="divergence_fn: got 'exact'"):
        odefunc.divergence_fn = "exact"
    with pytest.raises(TypeError, match="diffeq: got <function .*, expected an nn.Module; remedy"):
        ODEfunc(lambda t, z: -z)
    for name in ("residual", "rademacher"):
        with pytest.raises(ValueError, match=f"{name}: got 'False', expected True or False"):
            ODEfunc(net, **{name: "False"})
    with pytest.raises(ValueError, match=r"states: got 1, expected \(z, logp, \.\.\.\)"):
        odefunc(torch.tensor(0.0), (torch.zeros(5, 3),))


def divergence_bf(dx, y, **unused):
    raise AssertionError("known by its name, and never called")


def divergence_approx(f, y, e=None):
    raise AssertionError("known by its name, and never called")


def test_divergence_may_be_set_as_scripts_do(engine):
    # override_divergence_fn: FFJORD's, and that of everybody who took it over.
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,)), divergence_bf), n_steps=3, engine=engine)
    assert flow.odefunc.divergence_fn == "brute_force"
    z, zero = torch.randn(5, 3), torch.zeros(5, 1)
    assert torch.equal(flow(z, zero)[1], flow(z, zero)[1])
    flow.odefunc.divergence_fn = divergence_approx
    assert flow.odefunc.divergence_fn == "approximate"
    assert not torch.equal(flow(z, zero)[1], flow(z, zero)[1])
    for foreign in (lambda f, y, e=None: f.sum(), test_divergence_may_be_set_as_scripts_do, None):
        with pytest.raises(ValueError, match=r"divergence_fn: got .* called divergence_approx or"):
            flow.odefunc.divergence_fn = foreign


@pytest.mark.parametrize("regularization_fns", [None, ("l2int",)])
@pytest.mark.parametrize(("solver", "count"), [("euler", 3), ("rk4", 12)])
def test_evaluations_may_be_read_from_the_buffer(regularization_fns, solver, count):
    flow = FastCNF(
        ODEfunc(ODEnet((4,), (3,))),
        regularization_fns=regularization_fns,
        solver=solver,
        n_steps=3,
    )
    keys = list(flow.state_dict())
    flow(torch.randn(5, 3), torch.zeros(5, 1))
    assert flow.odefunc._num_evals.item() == flow.num_evals() == count
    assert list(flow.state_dict()) == keys and any(key.endswith("_num_evals") for key in keys)
    assert flow.to(torch.float64).odefunc._num_evals.dtype == torch.float64
    restored = FastCNF(ODEfunc(ODEnet((4,), (3,))), regularization_fns=regularization_fns)
    restored.load_state_dict(flow.state_dict(), strict=True)


# FFJORD's functions, under its names (the spelling is its own), written from their definitions.
def l1_regularzation_fn(x, logp, dx, dlogp, unused_context):
    return dx.abs().mean()


def l2_regularzation_fn(x, logp, dx, dlogp, unused_context):
    return (dx.flatten(1).norm(dim=1) / dx[0].numel() ** 0.5).mean()


def test_regularisers_may_be_functions_of_ffjord(engine):
    fns = (l2_regularzation_fn, l1_regularzation_fn)
    net = ODEnet((4,), (3,))
    flow = FastCNF(ODEfunc(net), regularization_fns=fns, n_steps=4, engine=engine)
    assert flow.fused
    z, zero = torch.randn(5, 3), torch.zeros(5, 1)
    flow(z, zero)
    got = flow.get_regularization_states()
    totals, h = [0.0, 0.0], 0.25
    for step in range(4):
        dz = net(torch.tensor(step * h), z)
        totals = [
            total + h * fn(z, zero, dz, zero, None) for total, fn in zip(totals, fns, strict=True)
        ]
        z = z + h * dz
    torch.testing.assert_close(got, tuple(totals))


def test_regularisers_of_other_arguments_are_named():
    def of_trajectorynet(x, logp, dx, dlogp, t, unused_context):
        return x.sum()

    def l1_regularzation_fn(x, t, dx, unused_context):  # RNODE's kind of arguments
        return x.sum()

    for fn in (of_trajectorynet, l1_regularzation_fn):
        with pytest.raises(TypeError, match=rf"regularization_fns: got {fn.__name__}\(x, .*expect"):
            FastCNF(ODEfunc(ODEnet((4,), (3,))), regularization_fns=(fn,))


@pytest.mark.parametrize(
    "odefunc", [ODEnet((4,), (3,)), lambda t, z: -z, torch.nn.Linear(3, 3), None, "ODEfunc"]
)
def test_what_is_no_ode_function_is_named(odefunc):
    with pytest.raises(TypeError, match=r"odefunc: got \w+, expected an ODEfunc; remedy: FastCNF"):
        FastCNF(odefunc)


def options_of_a_script(flow, solver, step_size=None):
    """FFJORD's set_cnf_options, as its scripts call it for every module of a model."""
    flow.solver, flow.atol, flow.rtol = solver, 1e-5, 1e-5
    if step_size is not None:
        flow.solver_options["step_size"] = step_size
    flow.test_solver, flow.test_atol, flow.test_rtol = solver, 1e-5, 1e-5


def small_flow(**arguments):
    return FastCNF(ODEfunc(ODEnet((4,), (3,))), **arguments)


@pytest.fixture
def steps_not_told_yet():
    settings._warn_once.cache_clear()


def test_steps_that_nobody_named_are_told_once(steps_not_told_yet):
    flow, other, z = small_flow(), small_flow(), torch.randn(5, 3)
    options_of_a_script(flow, "euler")
    with pytest.warns(UserWarning, match="takes 20, .* n_steps=1 for FFJORD's") as told:
        flow(z)
        flow.eval()(z)
        options_of_a_script(other, "rk4")
        other(z)
    assert len(told) == 1
    assert flow.num_evals() == 20


def test_eval_mode_tells_of_its_own_solver(steps_not_told_yet):
    flow, z = small_flow(solver="dopri5"), torch.randn(5, 3)
    flow.test_solver = "midpoint"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow(z)
    with pytest.warns(UserWarning, match="n_steps=1"):
        flow.eval()(z)


@pytest.mark.parametrize("given", ["argument", "attribute"])
@pytest.mark.parametrize("n_steps", [1, 20])
def test_steps_that_were_named_are_not_told(steps_not_told_yet, given, n_steps):
    flow = small_flow(**({"n_steps": n_steps} if given == "argument" else {}))
    if given == "attribute":
        flow.n_steps = n_steps
    options_of_a_script(flow, "euler")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        flow(torch.randn(5, 3))
        flow.eval()(torch.randn(5, 3))
    assert flow.num_evals() == n_steps


def test_nothing_is_told_where_nothing_was_set(steps_not_told_yet):
    by_default, by_keyword = small_flow(), small_flow(solver="rk4")
    stepped, adaptive = small_flow(), small_flow()
    options_of_a_script(stepped, "euler", step_size=0.25)
    options_of_a_script(adaptive, "dopri5")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for flow in (by_default, by_keyword, stepped, adaptive):
            flow(torch.randn(5, 3))
            flow.eval()(torch.randn(5, 3))
            copy.deepcopy(flow)(torch.randn(5, 3))
