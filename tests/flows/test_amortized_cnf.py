"""The amortised continuous flow, against its equation written row by row and against autograd."""

import copy

import pytest
import torch

from mvae_fast.core.nonlinearities import value
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.flows import AmortizedCNF
from tests.flows.kinds import COND, inputs, log_det
from tests.oracles import LAYER_TYPES, NONLINEARITIES

KINDS = {"bias": {"kind": "bias"}, "rank": {"kind": "rank", "rank": 2}}
kinds = pytest.mark.parametrize("kind", KINDS)


def make(kind, dim=3, hidden=(7,), **settings):
    settings = {"n_steps": 3, "T": 0.8, **settings}
    flow = AmortizedCNF(dim, COND, hidden, **KINDS[kind], **settings).double()
    with torch.no_grad():  # what starts at zero would hide errors
        flow.net.theta.linear.weight.normal_(0, 0.15)
        flow.net.theta.linear.bias.normal_(0, 0.15)
    return flow


def velocity(flow, t, z, cond):
    """By the layers' own forward, one row at a time."""
    own = flow.net.theta(cond)
    rows = []
    layers = flow.net.net.layers
    for i, y in enumerate(z):
        for n, layer in enumerate(layers):
            a = layer(t, y) + own[f"b{n}"][i]
            if flow.net.rank:
                a = a + own[f"v{n}"][i].T @ (own[f"u{n}"][i].T @ y)
            y = value(flow.net.nonlinearity, a) if n < len(layers) - 1 else a
        rows.append(y)
    return torch.stack(rows)


def euler(flow, z, cond):
    h = torch.tensor(flow.T / flow.n_steps, dtype=z.dtype)
    change = torch.zeros(len(z), dtype=z.dtype)
    for s in range(flow.n_steps):
        jacobians = []
        for i in range(len(z)):
            jacobians.append(
                torch.autograd.functional.jacobian(
                    lambda x, i=i, s=s: velocity(flow, h * s, x[None], cond[i : i + 1])[0], z[i]
                )
            )
        change = change - h * torch.stack(jacobians).diagonal(dim1=1, dim2=2).sum(1)
        z = z + h * velocity(flow, h * s, z, cond)
    return z, change


def check_euler(flow, dim):
    z, logp, cond = inputs(dim, COND, rows=4)
    got = flow(z, logp, **cond)
    z_out, change = euler(flow, z, cond["cond"])
    torch.testing.assert_close(got[0], z_out, rtol=0, atol=1e-12)
    torch.testing.assert_close(got[1], logp + change.unsqueeze(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(flow(z, **cond), z_out, rtol=0, atol=1e-12)


@kinds
@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.slow
def test_every_layer_type(kind, layer_type):
    check_euler(make(kind, layer_type=layer_type), 3)


@kinds
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.slow
def test_every_nonlinearity(kind, nonlinearity):
    check_euler(make(kind, nonlinearity=nonlinearity, layer_type="concatsquash"), 3)


@kinds
@pytest.mark.parametrize("hidden", [(), (5,), (5, 4), (4, 5, 3)])
@pytest.mark.parametrize("dim", [1, 2, pytest.param(17, marks=pytest.mark.slow)])
@pytest.mark.slow
def test_every_depth_and_size(kind, hidden, dim):
    check_euler(make(kind, dim, hidden, layer_type="squash"), dim)


@kinds
@pytest.mark.parametrize(
    "solver",
    [
        name if name in ("euler", "heun2") else pytest.param(name, marks=pytest.mark.slow)
        for name in TABLEAUS
    ],
)
@pytest.mark.parametrize("hidden", [(), (7,), pytest.param((5, 4), marks=pytest.mark.slow)])
@pytest.mark.slow
def test_exact_is_that_of_the_map(kind, solver, hidden):
    for dim in (1, 2, 3, 17):
        flow = make(kind, dim, hidden, solver=solver, log_det="exact", layer_type="squash")
        z, logp, cond = inputs(dim, COND, rows=3)
        z_out, logp_out = flow(z, logp, **cond)
        expected = logp - log_det(flow, z, cond).unsqueeze(1)
        torch.testing.assert_close(logp_out, expected, rtol=0, atol=1e-10)
        torch.testing.assert_close(flow(z, **cond), z_out, rtol=0, atol=1e-13)


@kinds
def test_the_trace_converges_to_the_exact_change_with_the_order_of_the_solver(kind):
    z, logp, cond = inputs(3, COND)
    for solver, order in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
        errors = []
        for n_steps in (8, 16):
            flow = make(kind, solver=solver, n_steps=n_steps)
            torch.manual_seed(1)
            with torch.no_grad():
                for parameter in flow.parameters():
                    parameter.normal_(0, 0.4)
            trace = flow(z, logp, **cond)[1]
            flow.log_det = "exact"
            errors.append((trace - flow(z, logp, **cond)[1]).abs().mean())
        assert 0.75 * 2**order < errors[0] / errors[1] < 1.35 * 2**order


@kinds
def test_reverse_undoes_the_flow_as_the_steps_shrink(kind):
    flow = make(kind, solver="rk4", n_steps=60)
    z, logp, cond = inputs(3, COND)
    back, logp_back = flow(*flow(z, logp, **cond), reverse=True, **cond)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-8)
    torch.testing.assert_close(logp_back, logp, rtol=0, atol=1e-8)


@kinds
@pytest.mark.parametrize("hidden", [(7,), (5, 4)])
def test_hutchinsons_estimate_is_unbiased(kind, hidden):
    flow = make(kind, hidden=hidden, trace="hutchinson", n_probes=4000)
    z, logp, cond = inputs(3, COND, rows=5)
    estimate = flow(z, logp, **cond)[1]
    again = flow(z, logp, **cond)[1]
    assert not torch.equal(estimate, again)
    flow.trace = "exact"
    exact = flow(z, logp, **cond)[1]
    # Two estimates' difference tells their standard error.
    spread = (estimate - again).square().mean().sqrt()
    assert (estimate - exact).abs().max() < 4 * spread


@kinds
@pytest.mark.parametrize("solver", ["euler", "dopri5"])
def test_generator_is_the_source_of_the_noise(kind, solver):
    flow = make(kind, trace="hutchinson", solver=solver)
    z, logp, cond = inputs(3, COND)

    def density(seed):
        return flow(z, logp, **cond, generator=torch.Generator().manual_seed(seed))[1]

    before = torch.get_rng_state()
    assert torch.equal(density(0), density(0))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(density(0), density(1))


@pytest.mark.slow
@kinds
@pytest.mark.parametrize("hidden", [(7,), (5, 4)])
@pytest.mark.parametrize("solver", ["explicit_adams", "dopri5"])
def test_other_solvers_of_torchdiffeq(kind, hidden, solver):
    flow = make(kind, hidden=hidden, solver=solver, n_steps=200, atol=1e-9, rtol=1e-9)
    z, logp, cond = inputs(3, COND)
    got = flow(z, logp, **cond)
    flow.solver = "rk4"
    for ours, theirs in zip(got, flow(z, logp, **cond), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    flow.solver = solver
    torch.testing.assert_close(flow(z, **cond), got[0], rtol=0, atol=1e-6)
    back = flow(*got, reverse=True, **cond)
    torch.testing.assert_close(back[0], z, rtol=0, atol=1e-5)


@kinds
@pytest.mark.parametrize("log_det_kind", ["trace", "exact"])
@pytest.mark.parametrize("hidden", [(5,), (4, 3)])
@pytest.mark.slow
def test_gradients(kind, log_det_kind, hidden):
    flow = make(kind, 2, hidden, log_det=log_det_kind, n_steps=2, layer_type="squash")
    z, logp, cond = inputs(2, COND, rows=2)
    names, leaves = zip(*flow.named_parameters(), strict=True)
    tensors = [t.detach().clone().requires_grad_() for t in (z, cond["cond"], *leaves)]

    def call(z, cond, *parameters):
        values = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(flow, values, (z, logp), {"cond": cond})

    assert torch.autograd.gradcheck(call, tensors, fast_mode=True)


@kinds
def test_rows_depend_on_their_own_condition_only(kind):
    flow = make(kind)
    z, logp, cond = inputs(3, COND)
    cond = cond["cond"].requires_grad_()
    z_out, logp_out = flow(z, logp, cond=cond)
    (gradient,) = torch.autograd.grad(z_out[2].sum() + logp_out[2].sum(), cond)
    assert (gradient[2] != 0).all()
    gradient[2] = 0
    assert not gradient.any()


@kinds
@pytest.mark.parametrize("log_det_kind", ["trace", "exact"])
def test_an_empty_batch_and_strides(kind, log_det_kind):
    flow = make(kind, log_det=log_det_kind)
    z, logp, cond = inputs(3, COND, rows=0)
    z_out, logp_out = flow(z.requires_grad_(), logp, **cond)
    assert z_out.shape == (0, 3) and logp_out.shape == (0, 1)
    (z_out.sum() + logp_out.sum()).backward()
    z, logp, cond = inputs(3, COND)
    strided = {name: torch.stack((x, x), 2)[..., 0] for name, x in cond.items()}
    got = flow(z.T.contiguous().T, torch.cat((logp, logp), 1)[:, :1], **strided)
    for ours, theirs in zip(got, flow(z, logp, **cond), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@kinds
def test_float32_is_near_float64(kind):
    flow = make(kind, 17, (32,))
    z, logp, cond = inputs(17, COND, rows=50)
    oracle = flow(z, logp, **cond)
    single = copy.deepcopy(flow).float()
    got = single(z.float(), logp.float(), cond=cond["cond"].float())
    for ours, theirs in zip(got, oracle, strict=True):
        error = (ours.double() - theirs).norm() / theirs.norm()
        assert ours.dtype == torch.float32 and error < 64 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("solver", ["euler", "implicit_adams", "dopri5"])
def test_no_rows(solver):
    flow = make("rank")
    flow.solver = solver
    z, logp, cond = inputs(3, COND, rows=0)
    z_t, logp_t = flow(z, logp, **cond)
    assert z_t.shape == (0, 3) and logp_t.shape == (0, 1)


@kinds
def test_state_dict_round_trip(kind):
    flow, other = make(kind), make(kind)
    z, logp, cond = inputs(3, COND)
    other.load_state_dict(flow.state_dict())
    assert torch.equal(flow(z, logp, **cond)[1], other(z, logp, **cond)[1])


def test_an_update_of_rank_r_starts_at_zero():
    torch.manual_seed(1)
    flow = AmortizedCNF(3, COND, (7,), kind="rank", rank=2)
    own = flow.net.theta(torch.randn(5, COND))
    for layer in range(2):
        assert own[f"u{layer}"].all() and own[f"b{layer}"].all()
        assert not own[f"v{layer}"].any()


def test_size_of_the_condition_s_layer():
    # FFJORD's counts: sum of outputs, and with rank r also r (inputs + outputs).
    sizes = {kind: make(kind, 3, (7,)).net.theta.linear.out_features for kind in KINDS}
    assert sizes == {"bias": 10, "rank": 10 + 2 * (3 + 7 + 7 + 3)}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "hyper"}, "kind: got 'hyper', expected 'bias' or 'rank'"),
        ({"kind": "rank", "rank": 0}, "rank: got 0, expected an integer >= 1"),
        ({"cond_dim": 0}, "cond_dim: got 0, expected an integer >= 1"),
        ({"T": 0.0}, "T: got 0.0, expected > 0"),
        ({"nonlinearity": "cubic"}, "nonlinearity: got 'cubic', expected one of 'softplus'"),
        ({"layer_type": "odd"}, "layer_type: got 'odd'"),
        ({"solver": "bdf"}, "solver: 'bdf' is gone from torchdiffeq"),
        ({"trace": "none"}, "trace: got 'none', expected 'exact' or 'hutchinson'"),
        ({"log_det": "second_order"}, "log_det: got 'second_order', expected 'trace' or 'exact'"),
        ({"log_det": "exact", "solver": "dopri5"}, "log_det: 'exact' is that of the steps of"),
        ({"n_steps": 0}, "n_steps: got 0, expected an integer >= 1"),
        ({"n_probes": 0}, "n_probes: got 0, expected an integer >= 1"),
    ],
)
def test_what_does_not_fit_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        AmortizedCNF(**{"dim": 3, "cond_dim": COND, **settings})


def test_settings_are_checked_again_when_it_is_called():
    flow = make("bias")
    flow.n_steps = 0
    z, _, cond = inputs(3, COND)
    with pytest.raises(ValueError, match="n_steps: got 0"):
        flow(z, **cond)


@pytest.mark.parametrize("solver", ["rk4", "dopri5", "tsit5"])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("layer_type", ["concat", "ignore", "blend"])
def test_engines_agree_with_plain_pytorch(layer_type, trace, solver, monkeypatch):
    torch.manual_seed(0)
    settings = {"layer_type": layer_type, "trace": trace, "solver": solver, "hidden": (7, 5)}
    flow = make("bias", n_steps=30, atol=1e-10, rtol=1e-10, **settings)
    z, logp, cond = inputs(3, COND, rows=6)
    results = []
    for engine in ("auto", "cpp", "reference", "none"):
        if engine == "none":  # its own steps
            monkeypatch.setattr(flow.net, "field", lambda *args: None)
            solver = "rk4" if solver == "tsit5" else solver
            flow.solver = solver
        flow.engine = "auto" if engine == "none" else engine
        got = flow(z, logp, **cond, generator=torch.Generator().manual_seed(1))
        loss = got[0].sin().sum() + got[1].sum()
        results.append([*got, *torch.autograd.grad(loss, list(flow.parameters()))])
    for other in results[:-1]:
        for a, b in zip(other, results[-1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "change", [{"kind": "rank"}, {"layer_type": "squash"}, {"solver": "dopri8"}]
)
def test_an_engine_that_does_not_take_it_says_so(change):
    flow = make(change.pop("kind", "bias"), engine="cpp", **change)
    z, logp, cond = inputs(3, COND, rows=2)
    with pytest.raises(ValueError, match="engine: 'cpp' takes biases of rows without gates"):
        flow(z, logp, **cond)
