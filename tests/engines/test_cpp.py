"""What is the C++ engine's alone: nets as coefficients, features of time, pieces of tensors."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.core.field import Column, Field, Layer, Structure, fourier
from mvae_fast.core.problem import Problem
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp
from mvae_fast.nets.fields import field_of
from tests.contract import Case, assert_near, eager, leaves_of, oracle, replace, run, totals
from tests.oracles import distance, gradients, random_net

pytestmark = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")

LAYERS = ("ignore", "concat", "concat_v2", "squash", "concatsquash")


def run_flow(net, engine, dtype, z, **settings):
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


@pytest.mark.parametrize(
    "shape", [(5, 3, ()), (33, 17, (65,)), (50, 17, (33, 70)), (5, 3, (4, 17, 3))]
)
@pytest.mark.parametrize("layer_type", LAYERS)
@pytest.mark.slow
def test_nets(shape, layer_type):
    """From a module's parameters and T on, of which the contract's suite knows nothing."""
    batch, dim, hidden = shape
    net = random_net(hidden, dim, layer_type)
    z = torch.randn(batch, dim, dtype=torch.float64)
    ours = eagers = 0.0
    for trace, residual in (("exact", False), ("exact", True), ("hutchinson", True)):
        exact, double, single, other = (
            run_flow(net, engine, dtype, z, trace=trace, residual=residual)
            for engine, dtype in (
                ("reference", torch.float64),
                ("cpp", torch.float64),
                ("cpp", torch.float32),
                ("reference", torch.float32),
            )
        )
        for x, y in zip(double, exact, strict=True):
            assert distance(x, y) < 1e-13, (trace, residual)
        # All together: a single number, as the gradient of T, may come out exact by luck.
        ours += sum(distance(x, y) for x, y in zip(single, exact, strict=True))
        eagers += sum(distance(x, y) for x, y in zip(other, exact, strict=True))
    assert ours <= 2 * eagers + torch.finfo(torch.float32).eps


def test_which_nets_are_coefficients():
    t = torch.zeros(3, dtype=torch.float64)
    known = {
        name: isinstance(field_of(random_net((7,), 3, name), t), Field)
        for name in (*LAYERS, "blend", "hyper")
    }
    assert known == {**dict.fromkeys(LAYERS, True), "blend": False, "hyper": False}
    assert isinstance(field_of(random_net((7,), 3, "squash", "swish"), t), Tables)


def test_gradients_of_some_parameters_only():
    net, z = random_net((7, 5), 3, "squash"), torch.randn(9, 3, dtype=torch.float64)
    expected = run_flow(net, "cpp", torch.float64, z)
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
@pytest.mark.parametrize("wanted", ["z", "sqrt_end_time", "weight", "bias", "context"])
def test_double_backward_refuses(wanted):
    net, z = random_net((7,), 3, "squash"), torch.randn(5, 3, dtype=torch.float64)
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", engine="cpp", train_T=True).double()
    leaves = {"z": z, **{name.split(".")[-1]: x for name, x in flow.named_parameters()}}
    flow.requires_grad_(False)
    if wanted == "context":
        problem = Case(form="squash", trace="exact", context="all").problem()
        leaf = problem.field.context[0].requires_grad_()
        z_out, logp, _ = engines.solve("cpp", problem)
    else:
        leaf = leaves[wanted].requires_grad_()
        z_out, logp = flow(z, z.new_zeros(5, 1))
    (first,) = torch.autograd.grad(z_out.sum() + logp.sum(), leaf, create_graph=True)
    assert first.requires_grad
    with pytest.raises(RuntimeError, match="the compiled engines have first derivatives only"):
        first.square().sum().backward()


def with_features(count, hidden, by_hand):
    """A field of that many features of time: in every column, or Fourier's."""
    m, (steps, dim) = (4, *hidden, 4), (3, 4)

    def noise(*size):
        return torch.randn(*size, dtype=torch.float64)

    tensors, layers = [], []
    for before, width in zip(m[:-1], m[1:], strict=True):
        kinds = []
        for _ in range(3):
            kinds.append(tuple(Column(len(tensors) + k) for k in range(count)))
            tensors += [noise(width) * 0.5 / count**0.5 for _ in range(count)]
        layers.append(Layer(Column(len(tensors), 0, before), *kinds))
        tensors.append(noise(width, before) * 0.6)
    if by_hand:
        time = noise(steps, count)
    else:
        time = fourier(torch.linspace(0, 1, steps).double(), tuple(range(1, count // 2 + 1)))
    field = Field(Structure(m, tuple(layers), "tanh", count), tuple(tensors), time)
    return Problem(noise(5, dim), torch.full((steps,), 0.2).double(), field, (steps,), "exact")


@pytest.mark.parametrize("hidden", [(), (7,), (37, 5)])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 31, 32])
@pytest.mark.slow
def test_features_of_time(count, hidden):
    for by_hand in (True, False) if count % 2 else (True,):
        problem = with_features(count, hidden, by_hand)
        assert engines.choose("auto", problem) == "cpp"
        assert_near(run("cpp", problem), run("reference", problem))
        single = run("cpp", problem, torch.float32)
        exact = run("reference", problem)
        ours, eagers = totals(single, run("reference", problem, torch.float32), exact)
        assert ours <= 2 * eagers + torch.finfo(torch.float32).eps


@pytest.mark.parametrize("count", [33, 64])
def test_more_features_than_the_kernels_take(count):
    problem = with_features(count, (7,), True)
    with pytest.raises(ValueError, match=f"'cpp' takes at most 32 features of time, got {count}"):
        engines.solve("cpp", problem)
    assert engines.choose("auto", problem) == "reference"
    automatic, named = (engines.solve(name, problem) for name in ("auto", "reference"))
    assert all(torch.equal(x, y) for x, y in zip(automatic, named, strict=True))


def test_gradients_reach_the_times_through_fourier():
    t = torch.linspace(0, 1, 3, dtype=torch.float64)
    problem = with_features(5, (7,), False)
    grads = []
    for engine in ("cpp", "reference"):
        leaf = t.clone().requires_grad_()
        field = replace(problem.field, time=fourier(leaf, (1.0, 2.0)))
        grads += gradients(engines.solve(engine, replace(problem, field=field))[:2], [leaf])
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 3, ()), (33, 17, (65,)), (7, 5, (35, 6)), (5, 3, (4, 2, 3))])
def test_pieces_of_one_tensor(shape):
    """Which has more numbers than are used: these get zeros."""
    case = Case(shape, "pieces", trace="exact", context="some")
    problem = case.problem()
    got = run("cpp", problem)
    assert_near(got, oracle(case))
    ours, eagers = totals(run("cpp", problem, torch.float32), eager(case), oracle(case))
    assert ours <= 2 * eagers + torch.finfo(torch.float32).eps
    used = torch.zeros(problem.field.tensors[0].numel(), dtype=torch.bool)
    for layer, m, before in zip(
        problem.field.structure.layers, case.widths[1:], case.widths[:-1], strict=True
    ):
        columns = [x for kind in layer[1:] for x in kind if x is not None]
        for column, width in [(layer.weight, before), *((x, 1) for x in columns)]:
            for i in range(m):
                begin = column.offset + i * column.stride
                used[begin : begin + width] = True
    assert 0 < used.sum() < used.numel()
    assert not got["d tensor 0"][~used].any() and got["d tensor 0"][used].all()


def test_a_tensor_that_nothing_uses_gets_zeros():
    problem = Case(form="squash", trace="exact").problem()
    extra = torch.randn(4, dtype=torch.float64)
    field = replace(problem.field, tensors=(*problem.field.tensors, extra))
    got = run("cpp", replace(problem, field=field))
    name = f"d tensor {len(field.tensors) - 1}"
    assert not got.pop(name).any()
    assert_near(got, run("reference", problem))


def of_two(first, second, numel=40):
    """One affine layer whose weight and bias are these pieces of one tensor: (offset, stride)."""
    layer = Layer(Column(0, *first), (Column(0, *second),))
    z = torch.randn(3, 3, dtype=torch.float64)
    numbers = torch.randn(numel, dtype=torch.float64)
    field = Field(Structure((3, 3), (layer,), "tanh"), (numbers,), z.new_zeros(2))
    return Problem(z, z.new_full((2,), 0.1), field, (2,), "exact")


@pytest.mark.parametrize("capability", cpp.capabilities()[:1], indirect=True)
@pytest.mark.parametrize("stride", [3, 4, 5, 7])
@pytest.mark.parametrize("column", [1, 2, 3, 4, 5, 7, 11])
@pytest.mark.slow
def test_numbers_used_twice_are_refused(stride, column, capability):
    """In the backward, where one of their gradients would be lost; the forward takes them."""
    weight = {10 + stride * i + j for i in range(3) for j in range(3)}
    seen = set()
    for offset in range(40 - 2 * column):
        problem = of_two((10, stride), (offset, column))
        overlaps = bool(weight & {offset, offset + column, offset + 2 * column})
        seen.add(overlaps)
        forward = engines.solve("cpp", problem)
        assert distance(forward.z, engines.solve("reference", problem).z) < 1e-14
        if overlaps:
            with pytest.raises(RuntimeError, match="layout uses numbers of tensor 0 twice"):
                run("cpp", problem)
        else:
            assert_near(run("cpp", problem), run("reference", problem))
    assert seen == {False, True}


def test_a_tensor_given_for_two_things_is_refused():
    problem = Case(form="tables 111", trace="exact").problem()
    same = replace(problem, field=replace(problem.field, bias=problem.field.gate))
    # As two tensors they are two leaves to the op, which may share their memory.
    assert_near(run("cpp", same), run("reference", same))
    z = torch.randn(3, 2, dtype=torch.float64)
    layers = Layer(Column(0, 0, 2)), Layer(Column(0, 0, 2))
    field = Field(Structure((2, 2, 2), layers, "tanh"), (z[:2],), z[0, :1])
    with pytest.raises(RuntimeError, match="layout uses numbers of tensor 0 twice"):
        run("cpp", Problem(z, z[0, :1], field, (1,)))


def test_strided_state():
    problem = Case((9, 3, (7, 5)), "squash", trace="exact").problem()
    other = replace(problem, z=problem.z.T.contiguous().T)
    assert torch.equal(engines.solve("cpp", other).z, engines.solve("cpp", problem).z)


def test_leaves_are_all_there():
    problem = Case(form="mixed", context="all").problem()
    assert {"z", "h", "time", "u 1", "u 2", "tensor 0"} < leaves_of(problem).keys()
