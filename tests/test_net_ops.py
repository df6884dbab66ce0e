"""The C++ engine from a net's parameters: against the float64 reference, values and gradients."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.core.grid import from_zero
from mvae_fast.core.problem import Method
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import cpp as ops
from mvae_fast.engines import net_ops, table_ops
from tests.oracles import NONLINEARITIES, distance, gradients, random_net

needs_cpp = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")

LAYERS = ("ignore", "concat", "concat_v2", "squash", "concatsquash")
# (B, D, hidden widths), off every vector and tile width; two panels of M and more.
SHAPES = [
    (5, 3, ()),
    (1, 1, (1,)),
    (33, 17, (65,)),
    (7, 129, (33,)),
    (5, 3, (1, 1)),
    (50, 17, (33, 70)),
    (3, 40, (97, 20)),
    (5, 3, (4, 17, 3)),
]


def run(net, engine, dtype, z, **settings):
    """Values and gradients of z, T and every parameter."""
    flow = FastCNF(
        ODEfunc(net, residual=settings.pop("residual", False)),
        T=0.7,
        train_T=True,
        engine=engine,
        **{"n_steps": 3, "trace": "exact", **settings},
    ).to(dtype)
    noise = None
    if flow.trace == "hutchinson":
        noise = torch.sin(torch.arange(2.0 * z.numel(), dtype=torch.float64)).view(2, *z.shape)
    start = z.detach().to(dtype).requires_grad_()
    results = flow(start, start[:, :1] * 0.5, probes=None if noise is None else noise.to(dtype))
    values = [*results, *gradients(results, [start, *flow.parameters()])]
    net.double()
    return values


def check(shape, layer_type, **settings):
    errors, eagers = distances(shape, layer_type, **settings)
    assert errors <= 2 * eagers + torch.finfo(torch.float32).eps


def distances(shape, layer_type, nonlinearity="softplus", **settings):
    """How far the engine and eager PyTorch are off in float32, all in all; in float64 it is not."""
    batch, dim, hidden = shape
    net = random_net(hidden, dim, layer_type, nonlinearity)
    z = torch.randn(batch, dim, dtype=torch.float64)
    oracle, double, single, eager = (
        run(net, engine, dtype, z, **settings)
        for engine, dtype in (
            ("reference", torch.float64),
            ("cpp", torch.float64),
            ("cpp", torch.float32),
            ("reference", torch.float32),
        )
    )
    for ours, expected in zip(double, oracle, strict=True):
        assert distance(ours, expected) < 1e-13, settings
    return tuple(
        sum(distance(x, y) for x, y in zip(values, oracle, strict=True))
        for values in (single, eager)
    )


@needs_cpp
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layer_type", LAYERS)
def test_values_and_gradients(capability, shape, layer_type):
    # All together: a single number, as the gradient of T, may come out exact by luck.
    ours, eager = zip(
        *(
            distances(shape, layer_type, trace=trace, residual=residual)
            for trace, residual in itertools.product(("exact", "hutchinson"), (False, True))
        ),
        strict=True,
    )
    assert sum(ours) <= 2 * sum(eager) + torch.finfo(torch.float32).eps


@needs_cpp
@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("shape", [(33, 17, (65,)), (7, 5, (33, 19))])
def test_every_nonlinearity(capability, shape, nonlinearity):
    ours, eager = zip(
        *(
            distances(shape, "concatsquash", nonlinearity, trace=trace)
            for trace in ("exact", "hutchinson")
        ),
        strict=True,
    )
    assert sum(ours) <= 2 * sum(eager) + torch.finfo(torch.float32).eps


@needs_cpp
@pytest.mark.parametrize("method", TABLEAUS)
@pytest.mark.parametrize("every", [1, 2, 5])
@pytest.mark.parametrize("hidden", [(7,), (35, 5)])
def test_methods_and_checkpoints(capability, method, every, hidden):
    check((13, 5, hidden), "concatsquash", solver=method, checkpoint_every=every, n_steps=4)


@needs_cpp
@pytest.mark.parametrize("n_threads", [1, 2, 3])
@pytest.mark.parametrize("hidden", [(65,), (70, 33)])
def test_threads_share_the_tables(n_threads, hidden, threads):
    threads(n_threads)
    check((129, 33, hidden), "squash")
    check((129, 33, hidden), "concat")


@needs_cpp
@pytest.mark.parametrize("hidden", [(), (33,), (20, 33), (3, 4, 5)])
def test_every_instruction_set(capability, hidden):
    check((21, 17, hidden), "concatsquash")
    check((21, 17, hidden), "concat", trace="hutchinson")


@needs_cpp
@pytest.mark.parametrize("hidden", [(40,), (40, 33)])
def test_same_bits_every_time(hidden, threads):
    threads(2)
    net, z = random_net(hidden, 17, "squash"), torch.randn(64, 17, dtype=torch.float64)
    first, second = (run(net, "cpp", torch.float32, z) for _ in range(2))
    assert all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@needs_cpp
@pytest.mark.parametrize("hidden", [(40,), (40, 33)])
def test_deterministic_algorithms_change_nothing(hidden, threads):
    threads(2)
    net, z = random_net(hidden, 17, "squash"), torch.randn(64, 17, dtype=torch.float64)
    free = run(net, "cpp", torch.float32, z)
    torch.use_deterministic_algorithms(True)
    try:
        deterministic = run(net, "cpp", torch.float32, z)
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(x, y) for x, y in zip(free, deterministic, strict=True))


@needs_cpp
def test_empty_batch_and_strided_input():
    net = random_net((7, 5), 3, "squash")
    for values in zip(
        *(run(net, name, torch.float64, torch.zeros(0, 3)) for name in ("cpp", "reference")),
        strict=True,
    ):
        torch.testing.assert_close(*values)
    z = torch.randn(3, 9, dtype=torch.float64).T
    method, steps = Method((2,)), from_zero(torch.ones((), dtype=torch.float64), 2, False)
    net = net.double()
    got = net_ops.integrate(z, steps.t, steps.h, net, method, exact=True)
    expected = net_ops.integrate(z.contiguous(), steps.t, steps.h, net, method, exact=True)
    assert torch.equal(got.z, expected.z)


@needs_cpp
def test_gradients_of_some_parameters_only():
    net, z = random_net((7, 5), 3, "squash"), torch.randn(9, 3, dtype=torch.float64)
    expected = run(net, "cpp", torch.float64, z)
    frozen = net.layers[0]._layer.weight
    frozen.requires_grad_(False)
    flow = FastCNF(ODEfunc(net), T=0.7, n_steps=3, trace="exact", engine="cpp").double()
    results = flow(z, z[:, :1] * 0.5)
    wanted = [p for p in flow.parameters() if p.requires_grad]
    got = gradients(results, wanted)
    everything = dict(zip([id(p) for p in net.parameters()], expected[4:], strict=True))
    for gradient, parameter in zip(got, wanted, strict=True):
        torch.testing.assert_close(gradient, everything[id(parameter)], rtol=1e-12, atol=1e-12)
    only_z = z.clone().requires_grad_()
    flow.requires_grad_(False)
    (gradient,) = gradients(flow(only_z, only_z[:, :1] * 0.5), [only_z])
    torch.testing.assert_close(gradient, expected[2], rtol=1e-12, atol=1e-12)


# Of each alone: a penalty on a gradient must not pass for zero where nothing else needs one.
@needs_cpp
@pytest.mark.parametrize("wanted", ["z", "sqrt_end_time", "weight", "bias"])
def test_double_backward_refuses(wanted):
    net, z = random_net((7,), 3, "squash"), torch.randn(5, 3, dtype=torch.float64)
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", engine="cpp", train_T=True).double()
    leaves = {"z": z, **{name.split(".")[-1]: x for name, x in flow.named_parameters()}}
    flow.requires_grad_(False)
    leaf = leaves[wanted].requires_grad_()
    z_out, logp = flow(z, z.new_zeros(5, 1))
    (first,) = torch.autograd.grad(z_out.sum() + logp.sum(), leaf, create_graph=True)
    assert first.requires_grad
    with pytest.raises(RuntimeError, match="the compiled engines have first derivatives only"):
        first.square().sum().backward()


@needs_cpp
@pytest.mark.parametrize("options", [{}, {"penalties": 15}, {"operands": 1}])
@pytest.mark.parametrize("layer_type", LAYERS)
def test_opcheck(layer_type, options):
    net = random_net((7, 4), 3, layer_type).float()
    tables = [x.detach() for layer in net.layers for x in layer.parameters()]
    probes = torch.randn(1, 5, 3) if options.get("penalties") else None
    method = [0.0], [1.0], [1, 3], 1, options.get("penalties", 0), options.get("operands", 0)
    z, t, h = torch.randn(5, 3), torch.linspace(0, 1, 3), torch.full((3,), 0.1)
    statics = (
        [3, 7, 4, 3],
        LAYERS.index(layer_type),
        True,
        table_ops.nonlinearity_number("tanh"),
        False,
    )
    arguments = (z, t, h, tables, probes, *statics, *method)
    checks = ("test_schema", "test_faketensor")
    op = torch.ops.mvae_fast.integrate_net.default
    for save in (False, True):
        torch.library.opcheck(op, (*arguments, save), test_utils=checks)
    *results, states = op(*arguments, True)
    for parameter_grads in (False, True):
        torch.library.opcheck(
            torch.ops.mvae_fast.integrate_net_backward.default,
            (*map(torch.ones_like, results), z, states, *arguments[1:], parameter_grads),
            test_utils=checks,
        )
    with pytest.raises(RuntimeError, match=r"parameters has 1 tensors, expected"):
        op(z, t, h, tables[:1], *arguments[4:], True)
    with pytest.raises(RuntimeError, match=r"t has shape \(2\), expected \(3\)"):
        op(z, t[:2], h, tables, *arguments[4:], True)
    with pytest.raises(RuntimeError, match=r"weight has shape"):
        op(z, t, h, [tables[0].T, *tables[1:]], *arguments[4:], True)


def test_which_nets(engine):
    known = {name: net_ops.applies(random_net((7,), 3, name)) for name in (*LAYERS, "blend")}
    has_engine = "cpp" in engines.available()
    assert known == {**dict.fromkeys(LAYERS, has_engine), "blend": False}
    assert not net_ops.applies(random_net((7,), 3, "squash", "swish"))
    assert net_ops.applies(random_net((7,), 3, "squash", "silu")) == has_engine
