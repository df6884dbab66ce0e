import json
import re
import struct
import sys
import types

import pytest
import torch

from mvae_fast.vae import FLOWS, MVAE, build_mvae, load_mvae, save_mvae
from mvae_fast.vae.builders.saved import read_saved
from tests.vae.models import bimodal
from tests.vae.test_build import CONFIG, assert_equal, description


def saved(folder, **changes):
    model = build_mvae({**CONFIG, **changes})
    model.save_pretrained(folder)
    return model


def test_a_folder_has_two_files_that_anyone_can_read(tmp_path):
    model = saved(tmp_path / "new" / "model")
    files = {path.name: path for path in (tmp_path / "new" / "model").iterdir()}
    assert set(files) == {"config.json", "model.safetensors"}
    assert json.loads(files["config.json"].read_text()) == CONFIG
    content = files["model.safetensors"].read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt", "config": json.dumps(CONFIG)}
    assert {name: tuple(entry["shape"]) for name, entry in header.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }


def test_a_folder_gives_the_same_model(tmp_path):
    model = saved(tmp_path)
    loaded = MVAE.from_pretrained(tmp_path)
    assert isinstance(loaded, MVAE) and not loaded.training
    assert loaded.config == CONFIG
    assert all(p.requires_grad for p in loaded.parameters())
    assert_equal(model, loaded)
    # The weights alone know what they are of.
    assert_equal(model, load_mvae(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_every_flow_in_its_precision(tmp_path, flow, dtype):
    if (flow, dtype) == ("sylvester", torch.bfloat16):
        pytest.skip("torch has no orthogonalisation in half precision")
    model = build_mvae(description(flow)).to(dtype)
    model.save_pretrained(tmp_path)
    assert_equal(model, MVAE.from_pretrained(tmp_path), dtype)


def test_the_suffix_chooses_the_format(tmp_path):
    model = build_mvae(CONFIG)
    save_mvae(model, tmp_path / "model.safetensors")
    save_mvae(model, tmp_path / "model.pt")
    assert_equal(model, load_mvae(tmp_path / "model.safetensors"))
    old = read_saved(tmp_path / "model.pt", {"config", "state_dict"})
    assert_equal(model, load_mvae(tmp_path / "model.pt"))
    assert old["state_dict"].keys() == model.state_dict().keys()
    (tmp_path / "model.pt").rename(tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"other.safetensors is not a checkpoint of mvae-fast"):
        load_mvae(tmp_path / "other.safetensors")


def test_only_what_can_be_saved_whole_is(tmp_path):
    with pytest.raises(ValueError, match="only a model made by build_mvae"):
        bimodal().save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="folder: got .*file, which is no folder"):
        build_mvae(CONFIG).save_pretrained(tmp_path / "file")
    model = build_mvae(CONFIG)
    model.flow.n_steps = 7
    with pytest.warns(UserWarning, match=r"are not saved: flow.n_steps=7 \(not 3\)"):
        model.save_pretrained(tmp_path)


def test_damaged_files_are_named(tmp_path):
    saved(tmp_path)
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    huge = struct.pack("<Q", 1 << 60) + whole[8:]
    for content in (b"", b"hello", whole[:10], whole[:-1], whole + b"1", huge):
        weights.write_bytes(content)
        with pytest.raises(ValueError, match=r"model.safetensors is not a checkpoint"):
            MVAE.from_pretrained(tmp_path)
    weights.write_bytes(whole)
    for content, message in (
        ("{", "config.json is no JSON, or it is damaged"),
        ("[" * 100_000, "config.json is no JSON, or it is damaged"),
        ("null", "config must be a mapping, got None"),
        (json.dumps({**CONFIG, "latent_dim": 5}), "size mismatch"),
    ):
        config.write_text(content)
        with pytest.raises(ValueError, match=f"(?s){message}"):
            MVAE.from_pretrained(tmp_path)
    config.unlink()
    with pytest.raises(FileNotFoundError, match=r"config.json"):
        MVAE.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
def test_no_description_asks_for_more_memory_than_its_weights_take(tmp_path, name):
    """A petabyte, which no machine has: it is refused for its size, not for want of memory."""
    model = build_mvae(CONFIG)
    save_mvae(model, tmp_path / name)
    large = {**CONFIG, "latent_dim": 1 << 24, "flow": {"type": "cnf", "hidden": [1 << 24]}}
    if name == "model.pt":
        torch.save({"config": large, "state_dict": model.state_dict()}, tmp_path / name)
        with pytest.raises(ValueError, match="size mismatch"):
            load_mvae(tmp_path / name)
    else:
        (tmp_path / "config.json").write_text(json.dumps(large))
        with pytest.raises(ValueError, match="size mismatch"):
            MVAE.from_pretrained(tmp_path)


def test_what_is_no_folder_may_be_a_repository(tmp_path, monkeypatch):
    model = saved(tmp_path)
    asked = []

    def snapshot_download(*args, **kwargs):
        asked.append((args, kwargs))
        return str(tmp_path)

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert_equal(model, MVAE.from_pretrained("somebody/digits", revision="v1"))
    files = {"allow_patterns": ["config.json", "model.safetensors"], "revision": "v1"}
    assert asked == [(("somebody/digits",), files)]

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    remedy = re.escape("pip install 'mvae_fast[hub]'")
    with pytest.raises(ImportError, match=f"source: got 'somebody/digits'.*{remedy}"):
        MVAE.from_pretrained("somebody/digits")
    for source in ("digits", "/no/such/folder", "../some/model", tmp_path / "gone"):
        with pytest.raises(FileNotFoundError, match="source: got .*there is no such folder"):
            MVAE.from_pretrained(source)
    with pytest.raises(ValueError, match="revision: got 'v1', but .* is a folder"):
        MVAE.from_pretrained(tmp_path, revision="v1")


def test_the_hub_takes_what_it_is_asked():
    hub = pytest.importorskip("huggingface_hub", reason="needs pip install 'mvae_fast[hub]'")
    import inspect

    options = {"revision": None, "allow_patterns": ["config.json"]}
    assert inspect.signature(hub.snapshot_download).bind("somebody/digits", **options)
