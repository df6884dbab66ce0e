"""The Triton kernels, run operation by operation on the CPU, against the float64 oracle."""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.core.problem import PENALTIES
from mvae_fast.core.tables import Tables
from mvae_fast.core.trace import second_order_table, trace_table
from mvae_fast.engines import triton as triton_ops
from mvae_fast.integrate import integrate
from tests.oracles import GPU_NONLINEARITIES, distance, gradients, pairwise, random_net
from tests.test_integrate import LAYOUTS, SHAPES, TRACES, problem, run

pytest.importorskip("triton", reason="triton is not installed")
if not triton_ops.INTERPRETED:
    pytest.skip("TRITON_INTERPRET is not set: tests/gpu runs the kernels", allow_module_level=True)

from mvae_fast.kernels import launch, solve, tuning

MODES = [(trace, residual) for trace in TRACES for residual in (False, True)]


def errors(arguments, dtype, **options):
    """Distances from the oracle: of the engine, and of eager PyTorch in the same dtype."""
    oracle = run("reference", *arguments, torch.float64)
    for name in ("triton", "reference"):
        got = run(name, *arguments, dtype, **options)
        assert all(x.shape == y.shape for x, y in zip(got, oracle, strict=True))
        yield [distance(x, y) for x, y in zip(got, oracle, strict=True)]


@pytest.mark.parametrize(
    ("shape", "layout", "nonlinearity"), pairwise(SHAPES, list(LAYOUTS), GPU_NONLINEARITIES)
)
def test_values_and_gradients(shape, layout, nonlinearity):
    # Every trace, with and without residual, goes round over the shapes and layouts.
    turn = SHAPES.index(shape) + list(LAYOUTS).index(layout)
    trace, residual = MODES[turn % len(MODES)]
    arguments = problem(shape, layout, nonlinearity, trace, residual)
    ours, _ = errors(arguments, torch.float64)
    assert max(ours) < 1e-13


@pytest.mark.parametrize("mode", MODES)
def test_float32_is_as_near_as_eager(mode):
    ours = eagers = 0.0
    for shape, layout in zip(SHAPES[2:6], ("squash", "all", "concat", "blend"), strict=True):
        single, eager = errors(problem(shape, layout, "softplus", *mode), torch.float32)
        ours, eagers = ours + sum(single), eagers + sum(eager)
    assert ours <= 2 * eagers


@pytest.mark.parametrize("mode", MODES[2:])
def test_float16_operands_are_as_near_as_eager(mode):
    # bfloat16 takes the same path, but Triton's interpreter computes garbage in it.
    ours = eagers = 0.0
    for shape, layout in zip(SHAPES[2:6], ("squash", "all", "concat", "blend"), strict=True):
        arguments = problem(shape, layout, "tanh", *mode)
        single, eager = errors(arguments, torch.float32, precision="fp16")
        ours, eagers = ours + sum(single), eagers + sum(eager)
    assert 1e-4 < ours <= 2 * eagers


@pytest.mark.parametrize("shape", [(129, 3, (5,)), (33, 17, (33, 17))])
@pytest.mark.parametrize("trace", TRACES)
def test_more_rows_and_columns_than_a_tile(shape, trace):
    ours, _ = errors(problem(shape, "squash", "softplus", trace), torch.float64)
    assert max(ours) < 1e-13


@pytest.mark.parametrize("method", ["midpoint", "heun3", "rk4"])
@pytest.mark.parametrize("every", [1, 2])
def test_methods_and_checkpoints(method, every):
    net = random_net((7, 5), 3, "concatsquash")
    z = torch.randn(19, 3, dtype=torch.float64, requires_grad=True)

    def values(engine):
        flow = FastCNF(
            ODEfunc(net, residual=True),
            solver=method,
            n_steps=3,
            trace="exact",
            engine=engine,
            checkpoint_every=every,
        ).double()
        results = flow(z, z[:, 0], integration_times=torch.tensor([0.0, 0.3, 0.7]).double())
        return [*results, *gradients(results, [z, *flow.parameters()])]

    for ours, expected in zip(values("triton"), values("reference"), strict=True):
        assert distance(ours, expected) < 1e-13


@pytest.mark.parametrize("every", [1, 3])
def test_outputs_on_the_way(every):
    leaves, probes, statics = problem((5, 3, (7,)), "all", "tanh", "exact", steps=5)

    def values(engine):
        given = [x.clone().requires_grad_() for x in leaves]
        z, h, weight, gate, bias, table = given
        results = integrate(
            z,
            h,
            Tables(weight, gate, bias, *statics),
            trace=table,
            outputs=(1, 3, 5),
            checkpoint_every=every,
            engine=engine,
        )[:2]
        return [*results, *gradients(results, given)]

    for ours, expected in zip(values("triton"), values("reference"), strict=True):
        assert distance(ours, expected) < 1e-13


@pytest.mark.parametrize("shape", [(17, 3, ()), (5, 3, (7,)), (5, 17, (3, 5))])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.parametrize("penalties", [PENALTIES, PENALTIES[1:2], PENALTIES[::3]])
def test_penalties(shape, residual, trace, penalties):
    leaves, _, statics = problem(shape, "squash", "softplus", trace, residual)
    if trace == "exact" and "frobenius" not in penalties:
        probes = None
    else:
        probes = torch.randn(2, *shape[:2], dtype=torch.float64)

    def values(engine):
        given = [None if x is None else x.clone().requires_grad_() for x in leaves]
        z, h, weight, gate, bias, table = given
        results = integrate(
            z,
            h,
            Tables(weight, gate, bias, *statics),
            trace=table,
            probes=probes,
            penalties=penalties,
            outputs=(1, 3),
            engine=engine,
        )
        return [*results, *gradients(results, [x for x in given if x is not None])]

    for ours, expected in zip(values("triton"), values("reference"), strict=True):
        assert distance(ours, expected) < 1e-13


@pytest.mark.parametrize("layout", ["ignore", "squash"])
def test_second_order(layout):
    leaves, _, statics = problem((5, 3, (17,)), layout, "tanh", "none")
    tables = Tables(*leaves[2:5], *statics)
    leaves[5] = trace_table(tables)
    leaves.append(second_order_table(tables))

    def values(engine):
        given = [None if x is None else x.detach().clone().requires_grad_() for x in leaves]
        z, h, weight, gate, bias, table, second = given
        results = integrate(
            z,
            h,
            Tables(weight, gate, bias, *statics),
            trace=table,
            second=second,
            engine=engine,
        )[:2]
        return [*results, *gradients(results, [x for x in given if x is not None])]

    for ours, expected in zip(values("triton"), values("reference"), strict=True):
        assert distance(ours, expected) < 1e-13


def test_no_rows():
    results = run(
        "triton", *problem((0, 3, (7,)), "squash", "tanh", "hutchinson"), dtype=torch.float32
    )
    assert results[0].shape == (1, 0, 3) and results[1].shape == (1, 0)
    assert all((gradient == 0).all() for gradient in results[3:])


def test_any_layout_of_the_inputs():
    leaves, _, statics = problem((6, 4, (7,)), "squash", "tanh", "none")
    leaves[0] = leaves[0].mT.contiguous().mT
    leaves[1] = torch.stack((leaves[1], leaves[1]), 1)[:, 0]
    noise = torch.randn(4, 6, 2, dtype=torch.float64).permute(2, 1, 0)
    shared = torch.randn(2, 1, 4, dtype=torch.float64).expand(2, 6, 4)
    for probes in (noise, shared):
        ours, _ = errors((leaves, probes, statics), torch.float64)
        assert max(ours) < 1e-13


def test_gradients_of_the_state_only():
    leaves, _, statics = problem((19, 3, (7, 5)), "squash", "tanh", "exact")
    z = leaves[0].requires_grad_()
    full = run("reference", leaves, None, statics, torch.float64)[2]
    solution = integrate(
        z, leaves[1], Tables(*leaves[2:5], *statics), trace=leaves[5], engine="triton"
    )
    (gradient,) = gradients(solution[:2], [z])
    assert distance(gradient, full) < 1e-13


@pytest.mark.parametrize("config", [(16, 16), (32, 32), (64, 16)])
def test_any_tile(config, monkeypatch):
    rows, columns = config
    chosen = launch.Config(rows, columns, columns, 16, 4, 2)
    monkeypatch.setattr(launch, "choose", lambda *_: chosen)
    ours, _ = errors(problem((70, 3, (33, 5)), "all", "softplus", "exact"), torch.float64)
    assert max(ours) < 1e-13


@pytest.mark.parametrize("layout", ["squash", "all"])
def test_any_window_and_any_share(layout, monkeypatch):
    # A tape of one step, of two, of all, of a stripe of the rows; weight gradients in one share, in
    # many.
    arguments = problem((40, 3, (5, 7)), layout, "tanh", "exact", steps=5)
    whole = run("triton", *arguments, torch.float64)
    for window, blocks in (((1, 3), 1), ((2, 3), 2), ((1, 2), 1)):
        monkeypatch.setattr(launch, "window", lambda *_, window=window: window)
        monkeypatch.setattr(launch, "blocks_per_split", lambda *_, blocks=blocks: blocks)
        for ours, expected in zip(run("triton", *arguments, torch.float64), whole, strict=True):
            assert distance(ours, expected) < 1e-14


def test_same_bits_whatever_the_grid(monkeypatch):
    arguments = problem((70, 5, (9,)), "squash", "softplus", "exact")
    results = []
    for programs in (1, 2, 5):
        monkeypatch.setattr(launch, "programs", lambda *_, programs=programs: programs)
        results.append(run("triton", *arguments, torch.float32))
    for others in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(others, results[0], strict=True))


def test_gradcheck():
    leaves, _, statics = problem((2, 2, (2,)), "all", "tanh", "exact", steps=2)
    inputs = [x.requires_grad_() for x in leaves]

    def function(z, h, weight, gate, bias, table):
        tables = Tables(weight, gate, bias, *statics)
        return integrate(z, h, tables, trace=table, engine="triton")[:2]

    assert torch.autograd.gradcheck(function, inputs)


def test_op_is_well_formed():
    leaves, _, statics = problem((3, 2, (5,)), "squash", "tanh", "exact")
    tensors = [x.requires_grad_() for x in leaves]
    net_as_op = [list(statics[0]), 1, False]
    method = [[0.0], [1.0], [1, 3], 2, 3, 0]
    arguments = (*tensors, None, None, *net_as_op, *method, True)
    torch.library.opcheck(torch.ops.mvae_fast.triton_integrate.default, arguments)


def test_torch_func_and_compile():
    net = random_net((5,), 2)
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", engine="triton").double()
    z, logp = torch.randn(3, 2, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)

    def total(z):
        return sum(x.sum() for x in flow(z, logp))

    start = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(start), start)
    assert distance(torch.func.grad(total)(z), expected) < 1e-14
    compiled = torch.compile(flow, backend="aot_eager", fullgraph=True)
    for ours, eager in zip(compiled(z, logp), flow(z, logp), strict=True):
        assert distance(ours, eager) < 1e-14


def test_tile_is_tried_once_and_not_for_repeatable_runs(monkeypatch):
    tried = []

    def seconds(config):
        tried.append(config)
        return -config.rows

    config = launch.Config(32, 32, 32, 32, 4, 2)
    monkeypatch.setattr(tuning, "_BEST", {})
    assert tuning.best("net", config) == config and not tried
    assert tuning.best("net", config, seconds).rows == 64
    assert tried == tuning.candidates(config)
    assert tuning.best("net", config, seconds).rows == 64 and len(tried) == 4
    torch.use_deterministic_algorithms(True)
    try:
        assert tuning.best("net", config, seconds) == config
    finally:
        torch.use_deterministic_algorithms(False)


def test_batches_of_a_size_share_a_tile():
    leaves, _, statics = problem((5, 3, (7,)), "squash", "tanh", "none")

    def signature(batch):
        z = leaves[0].new_zeros(batch, 3)
        net = solve.Net(*leaves[2:5], None, None, None, statics[0], 1, False)
        plan = solve.Plan((0.0,), (1.0,), (3,), 1, 0, 0)
        return solve.Solve(z, leaves[1], net, plan).signature

    assert signature(5) == signature(8) != signature(9)


def test_auto_does_not_take_the_interpreter():
    assert engines.resolve("triton", torch.device("cpu"), torch.float32) == "triton"
    assert engines.resolve("auto", torch.device("cpu"), torch.float32) != "triton"
