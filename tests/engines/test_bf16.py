"""bfloat16 operands of a flow: as near to the float64 oracle as eager PyTorch under autocast.

tests/engines/test_contract.py has all kinds of problems.
"""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.engines import cpp as ops
from tests.contract import Case, run
from tests.oracles import distance, gradients, random_net

needs_cpp = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


@needs_cpp
@pytest.mark.parametrize("hidden", [(65,), (40, 70), (9, 8, 7)])
@pytest.mark.parametrize("trace", ["exact", "hutchinson"])
@pytest.mark.slow
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
            problem = Case((33, 17, (40, 33)), trace="exact", steps=1).problem()
            results.append(run("cpp", problem, torch.float32, precision="bf16")["z"])
    finally:
        ops.set_capability(best)
    assert distance(*results) < 1e-4
