"""Programs that leave Python: AOTInductor, and what the others say."""

import shutil

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.flows import PlanarFlow


def make(**settings):
    torch.manual_seed(0)
    flow = FastCNF(ODEfunc(ODEnet((7,), (3,))), **{"n_steps": 2, "trace": "exact", **settings})
    return flow.eval()


def states(rows=4):
    return torch.randn(rows, 3), torch.randn(rows, 1)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="C++")
def test_aot_inductor_with_any_number_of_rows(tmp_path):
    flow = make()
    rows = torch.export.Dim("rows", min=1)
    program = torch.export.export(flow, states(), dynamic_shapes=({0: rows}, {0: rows}))
    path = torch._inductor.aoti_compile_and_package(
        program, package_path=str(tmp_path / "flow.pt2")
    )
    compiled = torch._inductor.aoti_load_package(path)
    for batch in (1, 4, 7):
        z, logp = states(batch)
        torch.testing.assert_close(compiled(z, logp), flow(z, logp))


@pytest.mark.slow
def test_onnx_takes_the_engine_that_has_it(monkeypatch):
    # Of torch.onnx.export, which needs onnxscript, as far as it is asked for.
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    for engine in ("auto", "reference"):
        program = torch.export.export(make(engine=engine), states())
        assert not any("mvae_fast" in str(node.target) for node in program.graph.nodes)
    remedy = r"engine: 'cpp' has no ONNX operator; remedy: engine='auto'"
    with pytest.raises(ValueError, match=remedy):
        torch.export.export(make(engine="cpp"), states())


def test_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    evaluator = pytest.importorskip("onnx.reference").ReferenceEvaluator
    flow, (z, logp) = make(), states()
    path = str(tmp_path / "flow.onnx")
    torch.onnx.export(flow, (z, logp), dynamo=True, verbose=False).save(path)
    got = evaluator(path).run(None, {"z": z.numpy(), "logpz": logp.numpy()})
    for a, b in zip(got, flow(z, logp), strict=True):
        torch.testing.assert_close(torch.from_numpy(a), b.detach())


@pytest.mark.parametrize(
    "flow", [make(), PlanarFlow(3), torch.nn.Sequential(make())], ids=lambda flow: flow._get_name()
)
def test_script_names_the_remedy(flow):
    with pytest.raises(TypeError, match=r"torch.jit.script: got a .*remedy: torch.export"):
        torch.jit.script(flow)


def test_a_trace_has_any_number_of_rows():
    flow = make()
    # Its own check compares the names in two graphs, and finds them to differ.
    traced = torch.jit.trace(flow, states(), check_trace=False)
    for batch in (1, 4, 7):
        z, logp = states(batch)
        torch.testing.assert_close(traced(z, logp), flow(z, logp))
