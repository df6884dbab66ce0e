"""bfloat16 operands: as near to the float64 oracle as eager PyTorch under autocast, or nearer."""

import itertools

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.engines import cpp as ops
from tests.oracles import distance, gradients, random_net
from tests.test_integrate import SHAPES, TRACES, problem, run

needs_cpp = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def errors(layout, nonlinearity):
    """Summed over the shapes, traces and tensors: of the engine, of eager PyTorch."""
    ours = eagers = 0.0
    for shape, trace in itertools.product([*SHAPES, (129, 33, (65,)), (64, 8, (129, 31))], TRACES):
        arguments = problem(shape, layout, nonlinearity, trace)
        oracle = run("reference", *arguments, torch.float64)
        for engine in ("cpp", "reference"):
            values = run(engine, *arguments, torch.float32, precision="bf16")
            assert all(x.dtype == torch.float32 for x in values)
            error = sum(distance(x, y) for x, y in zip(values, oracle, strict=True))
            ours, eagers = (ours + error, eagers) if engine == "cpp" else (ours, eagers + error)
    return ours, eagers


@needs_cpp
@pytest.mark.parametrize("layout", ["ignore", "squash", "all"])
@pytest.mark.parametrize("nonlinearity", ["softplus", "tanh"])
def test_no_further_from_the_oracle_than_twice_eager(capability, layout, nonlinearity):
    ours, eagers = errors(layout, nonlinearity)
    assert 1e-3 < ours <= 2 * eagers


@needs_cpp
@pytest.mark.parametrize("hidden", [(65,), (40, 70), (9, 8, 7)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
def test_flow(capability, hidden, trace):
    net = random_net(hidden, 17, "concatsquash")
    z = torch.randn(50, 17, dtype=torch.float64)
    noise = torch.randn(50, 17, dtype=torch.float64) if trace == "hutchinson" else None

    def run_flow(engine, precision, dtype):
        flow = FastCNF(ODEfunc(net), n_steps=4, trace=trace, engine=engine, precision=precision).to(
            dtype
        )
        start = z.to(dtype).requires_grad_()
        results = flow(
            start,
            torch.zeros(50, 1, dtype=dtype),
            probes=None if noise is None else noise.to(dtype),
        )
        values = [*results, *gradients(results, [start, *flow.parameters()])]
        net.double()
        return values

    oracle = run_flow("reference", "full", torch.float64)
    ours, eager = (
        sum(
            distance(x, y)
            for x, y in zip(run_flow(name, "bf16", torch.float32), oracle, strict=True)
        )
        for name in ("cpp", "reference")
    )
    assert 1e-3 < ours <= 2 * eager


@needs_cpp
def test_state_and_log_density_stay_in_float32():
    # 1000 steps of 1e-3: increments that a bfloat16 state would lose.
    net = random_net((33,), 5, "ignore", "tanh").float()
    flow = FastCNF(ODEfunc(net), n_steps=1000, trace="exact", engine="cpp", precision="bf16")
    full = FastCNF(ODEfunc(net), n_steps=1000, trace="exact", engine="cpp", precision="full")
    z, logp = torch.randn(9, 5), torch.zeros(9, 1)
    with torch.no_grad():
        for ours, expected in zip(flow(z, logp), full(z, logp), strict=True):
            assert distance(ours, expected) < 0.01


@needs_cpp
@pytest.mark.skipif("avx512_bf16" not in ops.capabilities(), reason="needs AVX512_BF16")
def test_emulation_equals_the_instruction():
    # The same products, exact in float32, summed in another order.
    best = ops.capability()
    results = []
    try:
        for name in ("avx512_bf16", "avx512"):
            ops.set_capability(name)
            torch.manual_seed(0)
            arguments = problem((33, 17, (40, 33)), "squash", "tanh", "exact", steps=1)
            results.append(run("cpp", *arguments, torch.float32, precision="bf16")[:1])
    finally:
        ops.set_capability(best)
    for hardware, emulated in zip(*results, strict=True):
        assert distance(hardware, emulated) < 1e-4
