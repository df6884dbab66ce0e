"""The Triton kernels, run operation by operation on the CPU: what is theirs alone.

tests/engines/test_contract.py holds them to the float64 oracle.
"""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, engines
from mvae_fast.engines import triton as triton_ops
from mvae_fast.engines.enums import NONLINEARITIES
from tests.contract import MODES, SHAPES, TRACES, Case, assert_near, eager, oracle, run, totals
from tests.interpreter import hasten
from tests.oracles import distance, gradients, random_net

pytest.importorskip("triton", reason="triton is not installed")
if not triton_ops.INTERPRETED:
    pytest.skip("TRITON_INTERPRET is not set: tests/gpu runs the kernels", allow_module_level=True)

from mvae_fast.kernels import launch, solve, tuning

hasten()


@pytest.mark.parametrize("mode", MODES)
def test_float32_is_as_near_as_eager(mode):
    ours = eagers = 0.0
    forms = ("tables 1EE", "tables EEE", "tables 10E", "tables E0E")
    for shape, form in zip(SHAPES[2:6], forms, strict=True):
        case = Case(shape, form, "softplus", *mode)
        single = run("triton", case.problem(), torch.float32)
        pair = totals(single, eager(case), oracle(case))
        ours, eagers = ours + pair[0], eagers + pair[1]
    assert ours <= 2 * eagers


@pytest.mark.parametrize("shape", [(129, 3, (5,)), (33, 17, (33, 17))])
@pytest.mark.parametrize("trace", TRACES)
def test_more_rows_and_columns_than_a_tile(shape, trace):
    case = Case(shape, nonlinearity="softplus", trace=trace)
    assert_near(run("triton", case.problem()), oracle(case))


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
    case = Case(form="tables EEE", trace="exact", steps=5, outputs=(1, 3, 5), every=every)
    assert_near(run("triton", case.problem()), oracle(case))


def test_gradients_of_the_state_only():
    case = Case((19, 3, (7, 5)), trace="exact")
    got = run("triton", case.problem(), wanted=["z"])
    assert distance(got["d z"], oracle(case)["d z"]) < 1e-13


@pytest.mark.parametrize("config", [(16, 16), (32, 32), (64, 16)])
def test_any_tile(config, monkeypatch):
    rows, columns = config
    chosen = launch.Config(rows, columns, columns, 16, 4, 2)
    monkeypatch.setattr(launch, "choose", lambda *_: chosen)
    case = Case((70, 3, (33, 5)), "tables EEE", "softplus", "exact")
    assert_near(run("triton", case.problem()), oracle(case))


@pytest.mark.parametrize("form", ["tables 1EE", "tables EEE"])
def test_any_window_and_any_share(form, monkeypatch):
    # A tape of one step, of two, of all, of a stripe of the rows; weight gradients in one share, in
    # many.
    problem = Case((40, 3, (5, 7)), form, trace="exact", steps=5).problem()
    whole = run("triton", problem)
    for window, blocks in (((1, 3), 1), ((2, 3), 2), ((1, 2), 1)):
        monkeypatch.setattr(launch, "window", lambda *_, window=window: window)
        monkeypatch.setattr(launch, "blocks_per_split", lambda *_, blocks=blocks: blocks)
        assert_near(run("triton", problem), whole, 1e-14)


def test_same_bits_whatever_the_grid(monkeypatch):
    problem = Case((70, 5, (9,)), nonlinearity="softplus", trace="exact").problem()
    results = []
    for programs in (1, 2, 5):
        monkeypatch.setattr(launch, "programs", lambda *_, programs=programs: programs)
        results.append(run("triton", problem, torch.float32))
    for others in results[1:]:
        assert all(torch.equal(others[name], results[0][name]) for name in others)


def test_op_is_well_formed():
    problem = Case((3, 2, (5,)), trace="exact").problem()
    tables = problem.field
    tensors = [tables.weight, tables.gate, tables.bias, torch.ones(3, 5, dtype=torch.float64)]
    layout = [1, 0, 1, 2, 3, -1, -1, -1]
    arguments = (problem.z, problem.h, None, tensors, [2, 5, 2], layout)
    arguments += (NONLINEARITIES["tanh"], False, True, [0.0], [1.0], [1, 3], 2, 3, 0)
    checks = ("test_schema", "test_faketensor")
    op = torch.ops.mvae_fast.triton_solve.default
    torch.library.opcheck(op, (*arguments, True), test_utils=checks)
    *results, saved = op(*arguments, 1)
    for tensor_grads in (False, True):
        torch.library.opcheck(
            torch.ops.mvae_fast.triton_solve_backward.default,
            (*map(torch.ones_like, results), saved, *arguments, tensor_grads),
            test_utils=checks,
        )


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
    for ours, expected in zip(compiled(z, logp), flow(z, logp), strict=True):
        assert distance(ours, expected) < 1e-14


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
    problem = Case().problem()
    tables = problem.field

    def signature(batch):
        z = problem.z.new_zeros(batch, 3)
        given = tables.weight, tables.gate, tables.bias
        net = solve.Net(*given, None, None, None, tables.widths, 1, False)
        plan = solve.Plan((0.0,), (1.0,), (3,), 1, 0, 0)
        return solve.Solve(z, problem.h, net, plan).signature

    assert signature(5) == signature(8) != signature(9)


def test_auto_does_not_take_the_interpreter():
    problem = Case().problem()
    assert engines.choose("triton", problem) == "triton"
    assert engines.choose("auto", problem) != "triton"
    assert engines.usual("auto", torch.device("cpu"), torch.float32) != "triton"
