"""Which engines there are, and that the choice between them is never silent."""

import dataclasses
import shutil
from types import SimpleNamespace

import pytest
import torch

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines
from mvae_fast.core.problem import Problem
from mvae_fast.core.tables import Tables
from mvae_fast.engines import cpp as ops
from mvae_fast.engines import extension
from mvae_fast.nets.fields import field_of
from tests.oracles import engines_on

CPU = torch.device("cpu")
NET = ODEnet((4,), (3,))


def choose(name, device, dtype, precision="full", field=None, **settings):
    """For a state of which only place and dtype are there: of a GPU that this machine has not."""
    field = field_of(NET, torch.zeros(3)) if field is None else field
    z = SimpleNamespace(device=torch.device(device), dtype=dtype)
    problem = Problem(z, torch.ones(3), field, (3,), precision=precision, **settings)
    return engines.choose(name, problem)


@pytest.mark.skipif(
    shutil.which("g++") is None and ops.why_missing() is not None,
    reason="no C++ compiler: without the extension only the reference engine is tested",
)
def test_cpp_is_there_where_a_compiler_is():
    # The tests run on the engines that are available: one that failed to build must not vanish
    # from them without a word.
    assert engines.why_missing("cpp") is None
    assert {"cpp", "reference"} <= {*engines_on("cpu")}


def test_auto_takes_the_fastest_that_fits():
    cpp_if_built = engines.available()[0]
    assert choose("auto", CPU, torch.float32) == cpp_if_built
    assert choose("auto", CPU, torch.float64) == cpp_if_built
    assert choose("auto", CPU, torch.bfloat16) == "reference"
    assert choose("auto", torch.device("meta"), torch.float32) == "reference"


@pytest.mark.parametrize("name", engines_on("cpu"))
def test_by_name_it_is_that_one(name):
    assert choose(name, CPU, torch.float32) == name


@pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")
def test_what_the_named_engine_lacks_is_named():
    for device, dtype in ((CPU, torch.bfloat16), (CPU, torch.float16), ("meta", torch.float32)):
        with pytest.raises(ValueError, match=f"'cpp' got a {dtype} .* float32, float64 on cpu"):
            choose("cpp", device, dtype)
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), engine="cpp").bfloat16()
    with pytest.raises(
        ValueError, match=r"supports float32, float64 on cpu; remedy: engine='auto'"
    ):
        flow(torch.zeros(5, 3, dtype=torch.bfloat16))
    flow.engine = "auto"
    assert flow(torch.zeros(5, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_unknown_names():
    for call in (engines.why_missing, lambda name: choose(name, CPU, torch.float32)):
        with pytest.raises(ValueError, match="engine: got 'tvm', expected one of 'auto', 'cpp'"):
            call("tvm")


def without_extension(monkeypatch, folder):
    loaded = ("_C", "_build_error.txt", "the C++ extension", "a compiler", folder)
    error = extension.load(torch.ops.load_library, *loaded)
    assert error is not None
    monkeypatch.setattr(ops, "_LOAD_ERROR", error)


def test_missing_engine_names_reason_and_remedy(monkeypatch, tmp_path):
    without_extension(monkeypatch, tmp_path)
    assert "cpp" not in engines.available()
    assert choose("auto", CPU, torch.float32) == "reference"
    with pytest.raises(RuntimeError, match=r"'cpp' is not available: .* not built; remedy: have a"):
        choose("cpp", CPU, torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_the_first_slow_solve_warns_once(monkeypatch, tmp_path, recwarn, named):
    reason = "MVAE_FAST_SKIP_EXT was set; remedy: unset it"
    (tmp_path / "_build_error.txt").write_text(reason)
    without_extension(monkeypatch, tmp_path)
    engines._warn_once.cache_clear()
    flow = FastCNF(ODEfunc(ODEnet((4,), (3,))), engine="reference" if named else "auto")
    z = torch.zeros(5, 3)
    repr(flow)
    torch.compile(flow, backend="eager", fullgraph=True)(z)
    FastCNF(ODEfunc(ODEnet((4,), (3,)))).bfloat16()(z.bfloat16())  # no engine is missing for it
    assert not [str(warning.message) for warning in recwarn if "engine:" in str(warning.message)]
    for _ in range(3):
        flow(z, torch.zeros(5, 1))
    said = [str(warning.message) for warning in recwarn if "engine:" in str(warning.message)]
    assert len(said) == (0 if named else 1)
    assert named or f"{reason}, and run `pip install .` again" in said[0]


def test_failed_build_is_quoted(monkeypatch, tmp_path):
    (tmp_path / "_build_error.txt").write_text("g++: command not found\n")
    without_extension(monkeypatch, tmp_path)
    assert "failed to build: g++: command not found; remedy" in engines.why_missing("cpp")


def test_extension_that_does_not_load(monkeypatch, tmp_path):
    (tmp_path / "_C.abi3.so").write_text("not a library")
    without_extension(monkeypatch, tmp_path)
    assert "the C++ extension _C.abi3.so does not load" in engines.why_missing("cpp")


@pytest.fixture
def gpu_engines(monkeypatch):
    """Make these engines, and no other GPU engine, appear usable, but not the first on cuda:1."""

    def make(*names):
        for name in ("cuda", "triton"):
            reason = None if name in names else "not here; remedy: have it"
            engine = dataclasses.replace(
                engines.get(name),
                why_missing=lambda reason=reason: reason,
                excludes=lambda device, name=name: (
                    "no code; remedy: make it" if name == names[0] and device.index == 1 else None
                ),
            )
            monkeypatch.setitem(engines._ENGINES, name, engine)

    return make


def test_choice_for_tensors_on_a_gpu(gpu_engines):
    gpu = torch.device("cuda")
    gpu_engines("cuda", "triton")
    assert choose("auto", gpu, torch.float32) == "cuda"
    assert choose("auto", gpu, torch.float32, "fp16") == "cuda"
    assert choose("auto", gpu, torch.float64) == "triton"
    assert choose("auto", gpu, torch.bfloat16) == "reference"
    gpu_engines("triton")
    assert choose("auto", gpu, torch.float32) == "triton"
    with pytest.raises(RuntimeError, match="'cuda' is not available: not here; remedy: have it"):
        choose("cuda", gpu, torch.float32)
    gpu_engines()
    assert choose("auto", gpu, torch.float32) == "reference"
    with pytest.raises(ValueError, match=r"'cpp' got a torch.float32 state on cuda, but supports"):
        choose("cpp", gpu, torch.float32)


@pytest.mark.parametrize("name", ["cuda", "triton"])
def test_the_engines_for_gpus_refuse_newer_nonlinearities(gpu_engines, name):
    gpu = torch.device("cuda")
    gpu_engines(name)
    for nonlinearity, taken in (("identity", name), ("silu", name), ("gelu", "reference")):
        tables = Tables(torch.zeros(1, 24), None, torch.zeros(1, 7), (3, 4, 3), nonlinearity)
        assert choose("auto", gpu, torch.float32, field=tables) == taken
    with pytest.raises(ValueError, match=f"'{name}' has no nonlinearity 'gelu'; remedy"):
        choose(name, gpu, torch.float32, field=tables)


def test_a_gpu_that_an_engine_cannot_use(gpu_engines):
    first, second = torch.device("cuda:0"), torch.device("cuda:1")
    gpu_engines("cuda", "triton")
    assert choose("auto", first, torch.float32) == "cuda"
    assert choose("auto", second, torch.float32) == "triton"
    assert choose("cuda", first, torch.float32) == "cuda"
    with pytest.raises(RuntimeError, match="'cuda' is not available: no code; remedy: make it"):
        choose("cuda", second, torch.float32)
    gpu_engines("cuda")
    assert choose("auto", second, torch.float32) == "reference"


def test_what_is_missing_on_the_present_gpu(gpu_engines, monkeypatch):
    gpu_engines("cuda", "triton")
    assert {"cuda", "triton"} <= {*engines.available()}
    without = dataclasses.replace(engines.get("cuda"), excludes=lambda device: f"not on {device}")
    monkeypatch.setitem(engines._ENGINES, "cuda", without)
    assert engines.why_missing("cuda") == "not on cuda"
    assert "cuda" not in engines.available() and "triton" in engines.available()


def test_problems_that_are_too_much_for_an_engine(gpu_engines):
    gpu_engines("cuda", "triton")
    gpu = torch.device("cuda")
    for layers, chosen in ((24, "cuda"), (25, "triton")):
        weight, bias = torch.zeros(1, layers), torch.zeros(1, layers)
        tables = Tables(weight, None, bias, (1,) * (layers + 1), "tanh", False)
        assert choose("auto", gpu, torch.float32, field=tables) == chosen
    with pytest.raises(ValueError, match="'cuda' takes at most 24 layers, got 25; remedy"):
        choose("cuda", gpu, torch.float32, field=tables)


def test_precisions_that_an_engine_lacks():
    with pytest.raises(ValueError, match="precision: engine 'cpp' has 'full', 'bf16', got 'fp16'"):
        choose("cpp", CPU, torch.float32, "fp16")
    assert choose("auto", CPU, torch.float32, "fp16") == "reference"
