import copy
import errno
import json
import os
import stat
import warnings
from collections import OrderedDict, UserDict, defaultdict
from types import MappingProxyType

import numpy as np
import pytest
import torch

from mvae_fast import FastCNF
from mvae_fast.vae import FLOWS, build_mvae, cnf_posterior, load_mvae, save_mvae
from tests.vae.models import bimodal

CONFIG = {
    "latent_dim": 6,
    "modalities": {
        "image": {"type": "mlp", "shape": [3, 4], "hidden": 8},
        "label": {"type": "label", "num_classes": 4, "hidden": 8, "weight": 50.0},
        "sound": {"type": "mlp", "shape": [6], "hidden": 8, "likelihood": "normal"},
    },
    "flow": {"type": "cnf", "hidden": [9], "n_steps": 3},
    "n_random_subsets": 1,
}


def test_a_description_becomes_the_model_it_describes():
    model = build_mvae(json.loads(json.dumps(CONFIG)))
    assert list(model.modalities) == ["image", "label", "sound"]
    assert [m.weight for m in model.modalities.values()] == [1.0, 50.0, 1.0]
    assert isinstance(model.flow, FastCNF)
    assert model.n_random_subsets == 1
    assert model.config == CONFIG


def test_the_papers_posterior():
    flow = cnf_posterior(128)
    # Two squash layers 128-256-128: weight, bias, and time weight and bias of the gate.
    assert sum(p.numel() for p in flow.parameters()) == 2 * 128 * 256 + 3 * (256 + 128)
    assert flow.solver == "euler"
    assert flow.trace == "exact"


def test_saved_models_load_safely_and_are_equal(tmp_path):
    torch.manual_seed(0)
    model = build_mvae(CONFIG)
    save_mvae(model, tmp_path / "model.pt")
    torch.manual_seed(1)
    loaded = load_mvae(tmp_path / "model.pt")
    assert not loaded.training
    assert loaded.config == CONFIG
    x = {"image": torch.rand(3, 3, 4), "label": torch.arange(3), "sound": torch.randn(3, 6)}
    one, two = (
        m.eval().elbo(x, generator=torch.Generator().manual_seed(2)) for m in (model, loaded)
    )
    assert torch.equal(one, two)


def test_what_is_set_later_is_not_saved(tmp_path):
    model = build_mvae(CONFIG)
    model.flow.n_steps = 7
    model.validate_args = False
    with pytest.warns(UserWarning, match="not saved: .*validate_args=False") as warned:
        save_mvae(model, tmp_path / "model.pt")
    assert "flow.n_steps=7 (not 3)" in str(warned[0].message)
    loaded = load_mvae(tmp_path / "model.pt")
    assert loaded.flow.n_steps == 3 and loaded.validate_args


def test_a_hand_made_model_has_no_description_to_save(tmp_path):
    with pytest.raises(ValueError, match="only a model made by build_mvae"):
        save_mvae(bimodal(), tmp_path / "model.pt")


def test_other_files_and_damaged_ones_are_named(tmp_path):
    save_mvae(build_mvae(CONFIG), tmp_path / "model.pt")
    whole = (tmp_path / "model.pt").read_bytes()
    for content in (b"", b"hello world", b"epochs: 3\n", whole[:10], whole[: len(whole) // 2]):
        (tmp_path / "other.pt").write_bytes(content)
        with pytest.raises(ValueError, match="other.pt is not a checkpoint of mvae-fast"):
            load_mvae(tmp_path / "other.pt")
    weights = build_mvae(CONFIG).state_dict()
    for saved, message in (
        (torch.zeros(1), r"it lacks \['config', 'state_dict'\]"),
        ({"state_dict": weights}, r"it lacks \['config', 'state_dict'\]"),
        ({"config": 3, "state_dict": weights}, "config must be a mapping, got 3"),
        (
            {"config": {**CONFIG, "modalities": 3}, "state_dict": weights},
            "modalities: got 3, expected a map",
        ),
        ({"config": {"lr": 3}, "state_dict": weights}, r"unknown keys \['lr'\]"),
        ({"config": {**CONFIG, "latent_dim": 5}, "state_dict": weights}, "size mismatch"),
    ):
        torch.save(saved, tmp_path / "other.pt")
        with pytest.raises(ValueError, match=f"(?s)other.pt is not a .* mvae-fast: .*{message}"):
            load_mvae(tmp_path / "other.pt")
    with pytest.raises(FileNotFoundError, match="none.pt"):
        load_mvae(tmp_path / "none.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latents": 3}, r"unknown keys \['latents'\]"),
        ({"flow": {"type": "planer"}}, r"flow: type must be one of .*'planar'.*, got 'planer'"),
        ({"flow": {"type": "cnf", "n_step": 3}}, "flow: .*n_step"),
        ({"modalities": {"a": {"shape": [3]}}}, "modality 'a': type must be one of"),
        ({"modalities": {"a": {"type": "mlp"}}}, "modality 'a': .*shape"),
    ],
)
def test_mistakes_in_a_description_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        build_mvae({**CONFIG, **change})


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("modalities",), [{"type": "mlp"}], "^modalities: got .*, expected a mapping"),
        (("modalities", "image"), "mlp", "^modality 'image': got 'mlp', expected a mapping"),
        (("flow",), "cnf", "^flow: got 'cnf', expected a mapping with type"),
        (("flow", "type"), ["cnf"], "^flow: type must be one of"),
        (("flow", "hidden"), "8", "^flow: hidden: got '8', expected an integer"),
        (("latent_dim",), "3", "^latent_dim: got '3', expected an integer"),
        (("modalities", "label", "weight"), 0, "^modality 'label': weight: got 0"),
        (("modalities", "label", "weight"), "1e2", "^modality 'label': weight: got '1e2'"),
        (("modalities", "image", "shape"), (), r"^modality 'image': shape: got \[\]"),
        (("modalities", "a.b"), {"type": "mlp", "shape": 3}, "name 'a.b' cannot"),
    ],
)
def test_a_description_says_where_it_is_wrong(place, value, message):
    config = copy.deepcopy(CONFIG)
    parent = config
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = value
    with pytest.raises(ValueError, match=message):
        build_mvae(config)


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match=r"config lacks \['modalities'\]"):
        build_mvae({"latent_dim": 3})


def description(flow):
    return {**CONFIG, "flow": {"type": flow, **({"n_steps": 2} if "cnf" in flow else {})}}


def rows(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(3, 3, 4, generator=generator).to(dtype),
        "label": torch.arange(3),
        "sound": torch.randn(3, 6, generator=generator).to(dtype),
    }


def there_and_back(model, path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        save_mvae(model, path)
        return load_mvae(path)


def assert_equal(one, two, dtype=torch.float32):
    values = [
        m.eval().elbo(rows(dtype), at="mean", generator=torch.Generator().manual_seed(2))
        for m in (one, two)
    ]
    assert values[0].isfinite().all()
    assert torch.equal(*values)


# The same model, described in many ways.
WIDTH, TIME = 9, 0.5
KINDS = {
    "numpy numbers": {"hidden": [np.int64(WIDTH)], "T": np.float32(TIME)},
    "array": {"hidden": np.array([WIDTH]), "T": np.array(TIME)},
    "tuple": {"hidden": (WIDTH,), "T": TIME},
    "one width": {"hidden": WIDTH, "T": TIME},
    "size": {"hidden": torch.Size([WIDTH]), "T": TIME},
    "tensor": {"hidden": torch.tensor([WIDTH]), "T": torch.tensor(TIME)},
    "range": {"hidden": range(WIDTH, WIDTH + 1), "T": TIME},
    "defaultdict": defaultdict(list, hidden=[WIDTH], T=TIME),
    "ordered": OrderedDict(hidden=[WIDTH], T=np.float64(TIME)),
    "other mappings": MappingProxyType({"hidden": [WIDTH], "T": TIME}),
    "numpy strings": {np.str_("hidden"): [WIDTH], "T": TIME, "layer_type": np.str_("squash")},
    "numpy flags": {"hidden": [WIDTH], "T": TIME, "adjoint": np.bool_(False)},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_whatever_builds_survives_a_file(tmp_path, kind):
    flow = defaultdict(dict, KINDS[kind])
    flow.update(type=np.str_("cnf"), n_steps=np.uint8(3))
    model = build_mvae(UserDict(CONFIG, latent_dim=np.int32(6), flow=flow))
    assert sum(p.numel() for p in model.flow.parameters()) == 2 * 6 * WIDTH + 3 * (6 + WIDTH)
    loaded = there_and_back(model, tmp_path / "model.pt")
    assert_equal(model, loaded)
    assert loaded.config == model.config == json.loads(json.dumps(model.config))


def test_omegaconf_describes_models(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    whole = {"size": 6, "model": {**CONFIG, "latent_dim": "${size}"}}
    model = build_mvae(omegaconf.OmegaConf.create(whole).model)
    assert model.config == CONFIG
    assert_equal(model, there_and_back(model, tmp_path / "model.pt"))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.slow
def test_the_precision_survives_a_file(tmp_path, flow, dtype):
    if (flow, dtype) == ("sylvester", torch.bfloat16):
        pytest.skip("torch has no orthogonalisation in half precision")
    model = build_mvae(description(flow)).to(dtype)
    loaded = there_and_back(model, tmp_path / "model.pt")
    assert {t.dtype for t in loaded.parameters()} == {dtype}
    assert all(p.requires_grad for p in loaded.parameters())
    assert_equal(model, loaded, dtype)


def test_each_part_keeps_its_own_precision(tmp_path):
    model = build_mvae(CONFIG)
    model.flow.double()
    torch.nn.init.constant_(model.modalities["image"].encoder.net[1][0].weight, 1 / 3)
    loaded = there_and_back(model, tmp_path / "model.pt")
    saved, read = model.state_dict(), loaded.state_dict()
    assert saved.keys() == read.keys()
    for name, value in saved.items():
        assert value.dtype == read[name].dtype and torch.equal(value, read[name])


@pytest.mark.slow
def test_a_model_that_was_used_can_be_saved(tmp_path):
    for flow in FLOWS:
        model = build_mvae(description(flow))
        model.loss(rows()).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(0.01)
        model.requires_grad_(False)
        assert_equal(model, there_and_back(model, tmp_path / "model.pt"))


def test_saving_draws_no_random_numbers(tmp_path):
    model, before = build_mvae(CONFIG), torch.random.get_rng_state()
    save_mvae(model, tmp_path / "model.pt")
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_description_that_was_changed_is_found_out(tmp_path):
    model = build_mvae(CONFIG)
    model.config["flow"]["hidden"] = np.array([9])
    assert_equal(model, there_and_back(model, tmp_path / "model.pt"))
    model.config["latent_dim"] = 5
    with pytest.raises(ValueError, match="only a model that is what its description makes"):
        save_mvae(model, tmp_path / "model.pt")


@pytest.mark.parametrize(
    "kind", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]
)
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, kind):
    path = tmp_path / "model.pt"
    old = build_mvae(CONFIG)
    save_mvae(old, path)

    def fail(descriptor):
        raise kind

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(kind)):
        save_mvae(build_mvae(CONFIG), path)
    assert_equal(old, load_mvae(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    path = tmp_path / "model.pt"
    old = build_mvae(CONFIG)
    save_mvae(old, path)
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
        with pytest.raises(OSError, match="File too large"):
            save_mvae(build_mvae(CONFIG), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert_equal(old, load_mvae(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_and_the_rights_of_a_file_stay(tmp_path):
    path, link = tmp_path / "model.pt", tmp_path / "link.pt"
    save_mvae(build_mvae(CONFIG), path)
    path.chmod(0o640)
    link.symlink_to(path)
    model = build_mvae(CONFIG)
    assert_equal(model, there_and_back(model, link))
    assert link.is_symlink() and stat.S_IMODE(path.stat().st_mode) == 0o640
    assert_equal(model, load_mvae(path))


def test_places_where_no_file_can_be_are_named(tmp_path):
    model = build_mvae(CONFIG)
    with pytest.raises(FileNotFoundError, match="path: got .*model.pt, but there is no folder"):
        save_mvae(model, tmp_path / "none" / "model.pt")
    for place in (tmp_path, os.devnull):
        with pytest.raises(ValueError, match="which is no file"):
            save_mvae(model, place)


@pytest.mark.parametrize("value", [object(), b"8", {8}, 1j, torch.float32, lambda: 8, {3: 4}])
def test_a_description_is_plain_data(value):
    with pytest.raises(ValueError, match=r"config\.flow\.hidden: got .*, expected"):
        build_mvae({**CONFIG, "flow": {"type": "cnf", "hidden": value}})
