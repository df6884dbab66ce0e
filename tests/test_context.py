"""Flows conditioned row by row, against the net's own forward and autograd."""

import copy

import pytest
import torch
from torch import nn

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.ode.regularization import REGULARIZATION_FNS
from tests.oracles import (
    LAYER_TYPES,
    NONLINEARITIES,
    distance,
    ffjord_euler,
    gradients,
    pairwise,
)

DIM, COND, ROWS, STEPS = 3, 4, 5, 4


def net_of(hidden=(7,), layer_type="concatsquash", nonlinearity="tanh"):
    net = ODEnet(
        hidden, (DIM,), layer_type=layer_type, nonlinearity=nonlinearity, context_dim=COND
    ).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("beta"):
                parameter.uniform_(0.5, 1.5)
            else:
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
                parameter.normal_(0, 0.6 / fan_in**0.5)
    return net


def flow_of(net, **settings):
    settings = {"n_steps": STEPS, "trace": "exact", "T": 0.8, "train_T": True, **settings}
    return FastCNF(ODEfunc(net), **settings).double()


def inputs(rows=ROWS):
    z = torch.randn(rows, DIM, dtype=torch.float64, requires_grad=True)
    context = torch.randn(rows, COND, dtype=torch.float64, requires_grad=True)
    return z, torch.randn(rows, 1, dtype=torch.float64), context


def by_hand(flow, z, logp, context, noise=None):
    base = flow._base
    z_t, change = ffjord_euler(
        lambda t, x: base.diffeq(t, x, context),
        z,
        flow.sqrt_end_time.square(),
        STEPS,
        noise,
        base.residual,
    )
    return z_t, logp + change.unsqueeze(1)


def assert_same(got, expected, leaves, tolerance=1e-11):
    for ours, theirs in zip(
        [*got, *gradients(got, leaves)], [*expected, *gradients(expected, leaves)], strict=True
    ):
        assert distance(ours, theirs) < tolerance


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize(
    ("layer_type", "nonlinearity", "hidden"),
    [
        pytest.param(*names, marks=[pytest.mark.slow] * (i % 5 > 0))
        for i, names in enumerate(
            pairwise(LAYER_TYPES, NONLINEARITIES, [(), (7,), (5, 4), (4, 5, 3)])
        )
    ],
)
@pytest.mark.slow
def test_a_solve_is_that_of_the_nets_own_forward(layer_type, nonlinearity, hidden, trace):
    flow = flow_of(net_of(hidden, layer_type, nonlinearity), trace=trace)
    assert flow.fused
    z, logp, context = inputs()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    leaves = [z, context, *flow.parameters()]
    got = flow(z, logp, context=context, probes=noise)
    assert_same(got, by_hand(flow, z, logp, context, noise), leaves)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("rows", [1, 37])
@pytest.mark.slow
def test_on_every_engine_and_instruction_set(capability, engine, residual, rows):
    flow = flow_of(net_of((9, 6)), engine=engine, checkpoint_every=2)
    flow.odefunc.residual = residual
    z, logp, context = inputs(rows)
    got = flow(z, logp, context=context)
    assert_same(got, by_hand(flow, z, logp, context), [z, context, *flow.parameters()])


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("layer_type", ["squash", pytest.param("hyper", marks=pytest.mark.slow)])
def test_gradients_are_those_of_differences(layer_type, trace):
    flow = flow_of(net_of((4,), layer_type), trace=trace)
    z, logp, context = inputs(2)
    noise = torch.randn_like(z.detach()) if trace == "hutchinson" else None
    names = [name for name, _ in flow.named_parameters()]

    def call(z, context, *values):
        tensors = dict(zip(names, values, strict=True))
        how = {"context": context, "probes": noise}
        return torch.func.functional_call(flow, tensors, (z, logp), how)

    values = [p.detach().clone().requires_grad_() for p in flow.parameters()]
    assert torch.autograd.gradcheck(call, (z, context, *values))


@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("kind", ["tables", "autograd", "hooks"])
@pytest.mark.parametrize("residual", [False, True])
def test_torchdiffeqs_euler_is_the_same(trace, kind, residual):
    net = net_of()
    flow = flow_of(net if kind != "autograd" else Velocity(net), trace=trace)
    flow.odefunc.residual = residual
    flow.solver_options = {"interp": "linear"}  # without effect, but for torchdiffeq only
    calls = []
    if kind == "hooks":
        flow.odefunc.register_forward_hook(lambda *args: calls.append(1))
    assert not flow.fused
    z, logp, context = inputs()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    got = flow(z, logp, context=context, probes=noise)
    assert len(calls) == (STEPS if kind == "hooks" else 0)
    assert flow.num_evals() == STEPS
    leaves = [z, context, *flow.parameters()]
    assert_same(got, by_hand(flow, z, logp, context, noise), leaves)


class Velocity(nn.Module):
    """A user's own module with a context."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, t, y, context):
        return self.net(t, y, context)


@pytest.mark.parametrize("trace", ["exact", pytest.param("hutchinson", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind",
    ["autograd", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("tables", "hooks"))],
)
@pytest.mark.slow
def test_dopri5_and_its_adjoint(kind, trace):
    net = net_of()
    z, logp, context = inputs()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    results = []
    for settings in ({"solver": "rk4", "n_steps": 60}, {"adjoint": False}, {"adjoint": True}):
        settings = {"solver": "dopri5", "atol": 1e-10, "rtol": 1e-10, **settings}
        fine = settings["solver"] == "rk4"
        flow = flow_of(Velocity(net) if kind == "autograd" and not fine else net, **settings)
        flow.trace = trace
        if kind == "hooks" and not fine:
            flow.odefunc.register_forward_hook(lambda *args: None)
        assert flow.fused == (fine or (kind == "tables" and not settings["adjoint"]))
        got = flow(z, logp, context=context, probes=noise)
        results.append([*got, *gradients(got, [z, context, *net.parameters()])])
    fine, direct, adjoint = results
    assert fine[3].abs().max() > 1e-3  # the gradient of the context
    for a, b, c in zip(fine, direct, adjoint, strict=True):
        assert distance(b, a) < 1e-6 and distance(c, a) < 1e-6


@pytest.mark.parametrize("hooks", [False, True])
def test_no_trace_and_many_times(hooks):
    flow = flow_of(net_of())
    if hooks:
        flow.odefunc.register_forward_hook(lambda *args: None)
    z, logp, context = inputs()
    times = torch.tensor([0.0, 0.3, 0.8], dtype=torch.float64)
    path, logp_path = flow(z, logp, times, context=context)
    assert path.shape == (3, ROWS, DIM) and logp_path.shape == (3, ROWS, 1)
    torch.testing.assert_close(flow(z, None, times, context=context), path)
    first = flow(z, logp, times[:2], context=context)
    torch.testing.assert_close((path[1], logp_path[1]), first)
    back = flow(path[-1], logp_path[-1], times, True, context=context)
    assert distance(back[0][-1], z) < 0.1


def test_rows_do_not_see_each_other():
    flow = flow_of(net_of())
    z, logp, context = inputs()
    together = flow(z, logp, context=context)
    for i in range(ROWS):
        alone = flow(z[i : i + 1], logp[i : i + 1], context=context[i : i + 1])
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[i], rtol=0, atol=1e-13)


def without_context(net, row):
    """A net that is the same for one context: its share is in the biases."""
    plain = ODEnet(
        net.widths[1:-1], (DIM,), layer_type=net.layer_type, nonlinearity=net.nonlinearity
    ).double()
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if "context" not in k})
    with torch.no_grad():
        for layer, matrix in zip(plain.layers, net.context_layers, strict=True):
            layer._layer.bias += matrix.weight @ row
    return plain


@pytest.mark.parametrize("layer_type", ["concat", "squash"])
@pytest.mark.parametrize("names", [*([name] for name in REGULARIZATION_FNS), [*REGULARIZATION_FNS]])
def test_regularisers(layer_type, names):
    net = net_of((7,), layer_type)
    z, logp, context = inputs()
    row = context.detach()[0]
    results = []
    for diffeq, how in (
        (net, {"context": row.expand(ROWS, COND)}),
        (without_context(net, row), {}),
    ):
        flow = flow_of(diffeq, regularization_fns=names)
        got = flow(z, logp, generator=torch.Generator().manual_seed(3), **how)
        penalties = flow.get_regularization_states()
        results.append([*got, *penalties, *gradients((*got, *penalties), [z])])
    for a, b in zip(*results, strict=True):
        assert distance(a, b) < 1e-12


def test_no_hooks_with_regularisers_and_a_context():
    flow = flow_of(net_of(), regularization_fns=["l2int"])
    flow.odefunc.odefunc.register_forward_hook(lambda *args: None)
    z, logp, context = inputs()
    with pytest.raises(ValueError, match="context: an odefunc that must be called takes none with"):
        flow(z, logp, context=context)


def test_the_log_determinant_of_the_steps():
    flow = flow_of(net_of(), log_det="exact")
    z, logp, context = inputs()
    got = flow(z, logp, context=context)[1]
    for i in range(ROWS):
        jacobian = torch.autograd.functional.jacobian(
            lambda x, i=i: flow(x[None], context=context[i : i + 1])[0], z[i].detach()
        )
        expected = logp[i, 0] - torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(got[i, 0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"engine": "reference"},
        {"solver": "dopri5"},
        {"adjoint": True},
        {"regularization_fns": ["l2int"]},
        {"hooks": True},
    ],
    ids=str,
)
def test_a_context_that_does_not_fit_is_refused_before_any_work(settings):
    settings = dict(settings)
    hooks = settings.pop("hooks", False)
    z, logp, context = inputs()
    calls = []
    for net, wrong, message in (
        (net_of(), None, rf"^context: got None, expected \(B, {COND}\)"),
        (net_of(), context[:, 1:], rf"^context: got shape \(5, 3\), expected \(B, {COND}\)"),
        (net_of(), context[1:], r"^context: got shape \(4, 4\), expected \(5, C\)"),
        (net_of(), context[0], r"^context: got shape \(4,\), expected \(5, C\)"),
        (net_of(), context.float(), "^context: got torch.float32 on cpu, expected those of z"),
        (ODEnet((7,), (DIM,)), context, "^context: given, expected None, as the net has context_d"),
    ):
        flow = flow_of(net, **settings)
        if hooks:
            flow.odefunc.register_forward_pre_hook(lambda *args: calls.append(1))
        flow._base.evaluations = -1
        with pytest.raises(ValueError, match=message):
            flow(z, logp, context=wrong)
        assert flow._base.evaluations == -1 and not calls
    with pytest.raises(TypeError, match="^context: got a list, expected a torch.Tensor"):
        flow(z, logp, context=[[0.0] * COND] * ROWS)


def test_autocast_takes_the_context_to_the_flows_dtype():
    flow = flow_of(net_of(), precision="full").float()
    z, logp, context = (x.detach().float() for x in inputs())
    expected = flow(z, logp, context=context)
    with torch.autocast("cpu"):
        half = flow(z, logp, context=context.bfloat16())
        torch.testing.assert_close(flow(z, logp, context=context), expected)
    assert half[0].dtype == torch.float32
    torch.testing.assert_close(half, flow(z, logp, context=context.bfloat16().float()))


def test_no_rows():
    for settings in ({}, {"solver": "dopri5"}):
        z, logp, context = inputs(0)
        z_t, logp_t = flow_of(net_of(), **settings)(z, logp, context=context)
        assert z_t.shape == (0, DIM) and logp_t.shape == (0, 1)
        (z_t.sum() + logp_t.sum()).backward()
        assert context.grad is not None and context.grad.shape == (0, COND)


@pytest.mark.slow
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("layer_type", ["squash", "hyper"])
def test_under_the_compiler(layer_type, trace):
    flow = flow_of(net_of((7,), layer_type), trace=trace)
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    z, logp, context = inputs()
    noise = torch.randn_like(z) if trace == "hutchinson" else None
    got = compiled(z, logp, context=context, probes=noise)
    expected = flow(z, logp, context=context, probes=noise)
    assert_same(got, expected, [z, context, *flow.parameters()])


@pytest.mark.parametrize("engine", ["auto", pytest.param("reference", marks=pytest.mark.slow)])
def test_an_exported_flow_takes_a_context_for_any_number_of_rows(engine):
    flow = flow_of(net_of(), engine=engine).eval()
    dim = torch.export.Dim("rows", min=1)
    z, logp, context = (x.detach() for x in inputs())
    program = torch.export.export(
        flow,
        (z, logp),
        {"context": context},
        dynamic_shapes={"z": {0: dim}, "logpz": {0: dim}, "context": {0: dim}},
    )
    for rows in (1, ROWS, 9):
        z, logp, context = (x.detach() for x in inputs(rows))
        got = program.module()(z, logp, context=context)
        torch.testing.assert_close(got, flow(z, logp, context=context))


def test_flows_with_a_context_are_copied_and_saved():
    flow = flow_of(net_of())
    other = copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(flow.state_dict())
    z, logp, context = inputs()
    assert torch.equal(flow(z, context=context), other(z, context=context))
