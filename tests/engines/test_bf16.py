"""bfloat16 operands of a flow: as near to the float64 oracle as eager PyTorch under autocast, and
float32 where the instruction set has no products of them.

tests/engines/test_contract.py has all kinds of problems.
"""

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines
from mvae_fast.core.problem import PENALTIES, Problem
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp as ops
from mvae_fast.engines.enums import OPERANDS
from tests.contract import Case, run, taken
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
    rounded = taken("cpp", "bf16")
    ours, eager = (
        sum(
            distance(x, y)
            for x, y in zip(run_flow(name, precision, torch.float32), oracle, strict=True)
        )
        for name, precision in (("cpp", "bf16"), ("reference", rounded))
    )
    assert {"bf16": 1e-3, "full": 0}[rounded] < ours <= 2 * eager


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


CASES = [
    Case((33, 17, hidden), form, trace=trace, context=context, solver=solver, penalties=penalties)
    for hidden in ((65,), (40, 33), (9, 8, 7))
    for form, trace, context, solver, penalties in (
        ("concatsquash", "exact", "all", "euler", ()),
        ("tables EEE", "hutchinson", "", "rk4", PENALTIES),
        ("pieces", None, "some", "heun2", PENALTIES[:3]),
    )
]
CASES.append(Case((33, 17, (40,)), "tables 1EE", trace="exact", log_det="second_order"))


@needs_cpp
@pytest.mark.parametrize("case", CASES, ids=range(len(CASES)))
@pytest.mark.parametrize("memory", ["states", "activations"])
def test_without_the_instructions_it_is_float32_bit_for_bit(capability, case, memory):
    full, bf16 = (
        run("cpp", case.problem(), torch.float32, precision=precision, memory=memory)
        for precision in ("full", "bf16")
    )
    same = [torch.equal(x, bf16[name]) for name, x in full.items() if x.any()]
    # Of the sets only this one has them.
    assert all(same) if capability != "avx512_bf16" else not any(same)


@needs_cpp
def test_the_product_of_two_numbers(capability):
    """1.01171875 is 1 + 3 / 256, between 1 + 1 / 128 and 1 + 2 / 128: half-way, which goes to the
    even one. One layer, one step of 1 from 0.5: z + w z, exact in float32."""
    assert ops.multiplies_bf16() == (capability == "avx512_bf16")
    weight = 1 + 3 / 256
    tables = Tables(torch.tensor([[weight]]), None, torch.zeros(1, 1), (1, 1), "tanh")
    problem = Problem(torch.tensor([[0.5]]), torch.ones(1), tables, (1,), precision="bf16")
    rounded = 1 + 2 / 128 if ops.multiplies_bf16() else weight
    assert engines.solve("cpp", problem).z.item() == 0.5 + 0.5 * rounded


def warned(recwarn):
    return [str(w.message) for w in recwarn if str(w.message).startswith("precision:")]


@needs_cpp
@pytest.mark.parametrize("autocast", [False, True])
def test_what_is_taken_is_said_once(capability, recwarn, autocast):
    engines._warn_once.cache_clear()
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), n_steps=2, trace="exact")
    z, logp = torch.zeros(5, 3), torch.zeros(5, 1)
    flow(z, logp)
    flow.precision = None if autocast else "bf16"
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for _ in range(3):
            flow(z, logp)
    said = warned(recwarn)
    assert len(said) == (0 if ops.multiplies_bf16() else 1)
    for message in said:
        assert "got 'bf16', set or of torch.autocast" in message
        assert "no bf16 instructions on this CPU and takes float32 products" in message
        assert "precision='full'" in message


@needs_cpp
@pytest.mark.parametrize("capability", ops.capabilities()[-1:], indirect=True)
def test_nobody_else_is_told(capability, recwarn):
    engines._warn_once.cache_clear()
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), n_steps=2, trace="exact", precision="bf16")
    z, logp = torch.zeros(5, 3), torch.zeros(5, 1)
    flow.engine = "reference"  # which rounds
    flow(z, logp)
    flow.engine, flow.precision = "cpp", "full"
    flow(z, logp)
    flow.precision = None
    with torch.autocast("cpu", torch.bfloat16):
        flow.double()(z.double(), logp.double())  # a float64 flow stays so
        flow.float()
    assert not warned(recwarn)


@needs_cpp
@pytest.mark.parametrize("capability", ops.capabilities()[-1:], indirect=True)
@pytest.mark.slow
def test_graphs_are_whole(capability, recwarn):
    """A warning in a graph would be a break; the operands of an exported one stay bf16, for the
    machine that it runs on to decide."""
    engines._warn_once.cache_clear()
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), n_steps=2, trace="exact", precision="bf16")
    z, logp = torch.randn(5, 3), torch.zeros(5, 1)
    compiled = torch.compile(flow, backend="aot_eager", fullgraph=True)(z, logp)
    exported = torch.export.export(flow, (z, logp))
    (node,) = [n for n in exported.graph.nodes if "mvae_fast.solve" in str(n.target)]
    names = [x.name for x in node.target._schema.arguments]
    assert node.args[names.index("operands")] == OPERANDS["bf16"]
    assert not warned(recwarn)
    full = FastCNF(flow.odefunc, n_steps=2, trace="exact", precision="full")(z, logp)
    for results in (compiled, exported.module()(z, logp)):
        assert all(torch.equal(x, y) for x, y in zip(results, full, strict=True))
