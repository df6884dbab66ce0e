"""What each row of a batch is conditioned on, end to end: FastCNF around an ODEnet with context,
against FFJORD's scheme by hand, and the C++ engine in everything that a flow can be asked for."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.engines import cpp
from tests.contract import covering, taken
from tests.oracles import distance, gradients

needs_cpp = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")
LAYERS = ("ignore", "concat", "concat_v2", "squash", "concatsquash", "blend", "hyper")
# (B, D, hidden widths, C).
SHAPES = [
    (5, 3, (), 2),
    (1, 1, (1,), 1),
    (33, 17, (65,), 5),
    (50, 17, (33, 70), 3),
    (3, 40, (97, 20), 4),
    (5, 3, (4, 17, 3), 2),
    (3, 17, (3, 5, 4, 7), 6),
]
EPSILON = torch.finfo(torch.float32).eps


def context_net(shape, layer_type, nonlinearity):
    _, dim, hidden, size = shape
    net = ODEnet(
        hidden, (dim,), layer_type=layer_type, nonlinearity=nonlinearity, context_dim=size
    ).double()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name.endswith("beta"):
                parameter.uniform_(0.5, 1.5)
            else:
                fan_in = parameter.shape[-1] if parameter.ndim > 1 else 4
                parameter.normal_(0, 0.6 / fan_in**0.5)
    return net


def inputs(shape):
    """z, what rows are conditioned on, and noise."""
    batch, dim, _, size = shape
    noise = torch.sin(torch.arange(2.0 * batch * dim, dtype=torch.float64)).view(2, batch, dim)
    return torch.randn(batch, dim).double(), torch.randn(batch, size).double(), noise


def run(net, given, engine, dtype=torch.float64, residual=False, **settings):
    """Values, and gradients of z, context, T and every parameter, by name."""
    flow = FastCNF(
        ODEfunc(net, residual=residual),
        T=0.7,
        train_T=True,
        engine=engine,
        **{"n_steps": 3, "trace": "exact", **settings},
    ).to(dtype)
    z, context = (x.detach().to(dtype).requires_grad_() for x in given[:2])
    sampled = flow.trace == "hutchinson" or "jacobian_norm" in settings.get(
        "regularization_fns", ()
    )
    results = [
        *flow(z, z[:, :1] * 0.5, probes=given[2].to(dtype) if sampled else None, context=context)
    ]
    results += flow.get_regularization_states() if "regularization_fns" in settings else []
    leaves = {"z": z, "context": context, **dict(flow.named_parameters())}
    grads = gradients(tuple(results), list(leaves.values()))
    net.double()
    values = {f"value {i}": x for i, x in enumerate(results)}
    return {**values, **{f"d {name}": x for name, x in zip(leaves, grads, strict=True)}}


def total(values, exact):
    return sum(distance(values[name], exact[name]) for name in exact)


CHOICES = covering(
    shape=SHAPES,
    layer_type=LAYERS,
    nonlinearity=["softplus", "tanh", "swish"],
    trace=["exact", "hutchinson"],
    residual=[False, True],
    solver=["euler", "midpoint", "rk4"],
    checkpoint_every=[1, 2, 5],
    regularization_fns=[(), ("kinetic_energy", "l1int", "l2int", "jacobian_norm")],
)


@needs_cpp
@pytest.mark.parametrize("choice", CHOICES, ids=range(len(CHOICES)))
@pytest.mark.slow
def test_values_and_gradients(choice):
    shape, layer_type, nonlinearity, *_ = choice.values()
    settings = dict(list(choice.items())[3:])
    net, given = context_net(shape, layer_type, nonlinearity), inputs(shape)
    if not settings["regularization_fns"]:
        del settings["regularization_fns"]
    settings["n_steps"] = 5
    exact = run(net, given, "reference", **settings)
    assert exact["d context"].any()
    double = run(net, given, "cpp", **settings)
    for name, x in exact.items():
        assert distance(double[name], x) < 1e-13, (name, choice)
    single, eager = (
        run(net, given, engine, torch.float32, **settings) for engine in ("cpp", "reference")
    )
    assert total(single, exact) <= 2 * total(eager, exact) + EPSILON


def by_hand(net, given, residual, sampled, steps=3, end=0.7):
    """FFJORD's scheme: Euler's method over the net's own forward, the trace by autograd."""
    root = torch.tensor(end).sqrt().double().requires_grad_()  # as the flow keeps it
    z, context = (x.detach().requires_grad_() for x in given[:2])
    state, logp, h = z, z[:, 0] * 0.5, root.square() / steps
    for step in range(steps):
        f = net(step * h, state, context)
        rows = [
            torch.autograd.grad(f[:, i].sum(), state, create_graph=True)[0]
            for i in range(f.shape[1])
        ]
        full = torch.stack(rows, 1)
        if sampled:  # two probes, each of weight one half
            trace = torch.einsum("kbi,bij,kbj->b", given[2], full, given[2]) / 2
        else:
            trace = torch.einsum("bii->b", full)
        if residual:
            f, trace = f - state, trace - f.shape[1]
        state, logp = state + h * f, logp - h * trace
    leaves = [z, context, root, *net.parameters()]
    return [state, logp, *gradients((state, logp), leaves)]


@pytest.mark.parametrize("layer_type", LAYERS)
@pytest.mark.slow
def test_ffjord_by_hand(engine, layer_type):
    for hidden, residual, sampled in itertools.product(
        ((7,), (5, 4)), (False, True), (False, True)
    ):
        shape = (5, 3, hidden, 2)
        net, given = context_net(shape, layer_type, "swish"), inputs(shape)
        trace = "hutchinson" if sampled else "exact"
        got = run(net, given, engine, residual=residual, trace=trace)
        expected = by_hand(net, given, residual, sampled)
        for (name, x), y in zip(got.items(), expected, strict=True):
            assert distance(x.flatten(), y.flatten()) < 1e-12, name


@needs_cpp
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("layer_type", ["concatsquash", "blend"])
@pytest.mark.parametrize("hidden", [(65,), (70, 33)])
@pytest.mark.slow
def test_threads(layer_type, hidden, n_threads, threads):
    threads(n_threads)
    shape = (129, 33, hidden, 4)
    net, given = context_net(shape, layer_type, "tanh"), inputs(shape)
    # With blend, windows of two steps: between checkpoints the weights of no more are held.
    exact, got = (
        run(net, given, name, n_steps=6, checkpoint_every=2) for name in ("reference", "cpp")
    )
    for name, x in exact.items():
        assert distance(got[name], x) < 1e-13, name


@needs_cpp
@pytest.mark.parametrize("layer_type", LAYERS)
@pytest.mark.slow
def test_bf16(layer_type):
    ours = eager = 0.0
    for hidden, trace in itertools.product(((65,), (40, 70), (9, 8, 7)), ("exact", "hutchinson")):
        shape = (50, 17, hidden, 5)
        net, given = context_net(shape, layer_type, "softplus"), inputs(shape)
        exact = run(net, given, "reference", trace=trace)
        for_each = (
            total(run(net, given, name, torch.float32, trace=trace, precision=precision), exact)
            for name, precision in (("cpp", "bf16"), ("reference", taken("cpp", "bf16")))
        )
        ours, eager = (x + y for x, y in zip((ours, eager), for_each, strict=True))
    assert {"bf16": 1e-3, "full": 0}[taken("cpp", "bf16")] < ours <= 2 * eager


def test_no_rows(engine):
    shape = (0, 3, (7,), 2)
    results = run(context_net(shape, "squash", "tanh"), inputs(shape), engine)
    assert results["value 0"].shape == (0, 3) and results["d context"].shape == (0, 2)
    assert not any(x.any() for name, x in results.items() if name.startswith("d "))


def test_each_row_has_its_own(engine):
    """Rows together, with a context each, and one after the other."""
    shape = (4, 3, (7, 5), 2)
    net, (z, context, _) = context_net(shape, "concatsquash", "tanh"), inputs(shape)
    flow = FastCNF(ODEfunc(net), n_steps=3, trace="exact", engine=engine).double()
    together = flow(z, z[:, :1], context=context)
    for i in range(4):
        alone = flow(z[i : i + 1], z[i : i + 1, :1], context=context[i : i + 1])
        for x, y in zip(together, alone, strict=True):
            torch.testing.assert_close(x[i : i + 1], y, rtol=1e-13, atol=1e-13)
    shared = context[:1].expand(4, -1)
    same = flow(z, z[:, :1], context=shared)
    expected = flow(z, z[:, :1], context=shared.contiguous())
    assert all(torch.equal(x, y) for x, y in zip(same, expected, strict=True))


@pytest.mark.parametrize("what", ["context", "z", "weights"])
def test_gradients_of_one_thing_only(engine, what):
    shape = (5, 3, (7, 5), 2)
    net, given = context_net(shape, "squash", "tanh"), inputs(shape)
    full = run(net, given, engine)
    flow = FastCNF(ODEfunc(net), T=0.7, train_T=True, n_steps=3, trace="exact", engine=engine)
    flow = flow.double().requires_grad_(what == "weights")
    z, context = (
        x.clone().requires_grad_(what == name)
        for x, name in zip(given[:2], ("z", "context"), strict=True)
    )
    results = flow(z, z[:, :1] * 0.5, context=context)
    wanted = {"z": z, "context": context} if what != "weights" else dict(flow.named_parameters())
    wanted = {name: x for name, x in wanted.items() if x.requires_grad}
    for (name, _), x in zip(wanted.items(), gradients(results, [*wanted.values()]), strict=True):
        torch.testing.assert_close(x, full[f"d {name}"], rtol=1e-12, atol=1e-12)
