"""Which torch the build takes, and what the package requires in consequence."""

from __future__ import annotations

import sys

import pytest

from build_backend import target_torch
from build_backend.target_torch import find_torch, pinned_requirement, runtime_requirement


def find(target=(), imported=(), **environ):
    return find_torch(environ, target, imported)


def test_torch_of_the_target_is_borrowed(tmp_path, make_torch):
    site_dir = make_torch(tmp_path, "2.11.0+cu130")
    torch = find(target=[tmp_path / "elsewhere", site_dir])
    assert torch is not None
    assert (torch.directory, torch.version) == (site_dir / "torch", "2.11.0+cu130")
    assert runtime_requirement(torch) == "torch>=2.10"


def test_torch_of_the_build_environment_is_pinned(tmp_path, make_torch):
    torch = find(imported=[make_torch(tmp_path, "2.13.0")])
    assert torch is not None
    assert runtime_requirement(torch) == pinned_requirement()


def test_target_comes_before_build_environment(tmp_path, make_torch):
    target = make_torch(tmp_path / "target", "2.12.0")
    torch = find(target=[target], imported=[make_torch(tmp_path / "build", "2.13.0")])
    assert torch is not None
    assert torch.borrowed and torch.directory.parent == target


def test_without_torch_the_pin_is_required():
    assert find() is None
    assert runtime_requirement(None) == pinned_requirement()


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cpu"])
def test_older_than_the_stable_interface_is_passed_over(tmp_path, make_torch, version):
    assert find(target=[make_torch(tmp_path, version)]) is None


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0a0+git1234", "3.0.0"])
def test_newer_is_taken(tmp_path, make_torch, version):
    assert find(target=[make_torch(tmp_path, version)]) is not None


def test_torch_without_headers_is_passed_over(tmp_path, make_torch):
    assert find(target=[make_torch(tmp_path, "2.13.0", headers=False)]) is None


def test_override_wins(tmp_path, make_torch):
    named = make_torch(tmp_path / "named", "2.10.1")
    target = make_torch(tmp_path / "target", "2.13.0")
    torch = find(target=[target], MVAE_FAST_TORCH=str(named))
    assert torch is not None
    assert torch.directory.parent == named


def test_override_that_names_no_torch_is_an_error(tmp_path, make_torch):
    target = make_torch(tmp_path / "target", "2.13.0")
    with pytest.raises(FileNotFoundError, match=r"MVAE_FAST_TORCH=.*nothing.* torch 2\.10"):
        find(target=[target], MVAE_FAST_TORCH=str(tmp_path / "nothing"))


def test_a_pin_that_this_build_asked_for_is_not_borrowed(tmp_path, make_torch, monkeypatch):
    """`build` and uv install build requirements into what looks like the target's environment."""
    monkeypatch.setattr(target_torch, "_PIN_RECORD", tmp_path / "build" / "record")
    pin = pinned_requirement().removeprefix("torch==")
    site_dir = make_torch(tmp_path / "pinned", f"{pin}+cpu")
    other = make_torch(tmp_path / "other", "2.11.0")
    requirement = {d: runtime_requirement(find(target=[d])) for d in (site_dir, other)}
    assert requirement == {site_dir: "torch>=2.10", other: "torch>=2.10"}

    target_torch.record_pin_request()
    assert runtime_requirement(find(target=[site_dir])) == pinned_requirement()
    assert runtime_requirement(find(target=[other])) == "torch>=2.10"

    monkeypatch.setattr(sys, "prefix", "another environment")
    assert runtime_requirement(find(target=[site_dir])) == "torch>=2.10"


@pytest.mark.parametrize("text", ["numpy==2.0\n", "torch==2.13.0\ntorch==2.12.0\n"])
def test_constraints_must_pin_torch_once(tmp_path, text):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(text)
    with pytest.raises(ValueError, match="exactly once"):
        pinned_requirement(constraints)


def test_the_torch_of_this_environment_is_found():
    import torch

    found = find_torch({})
    assert found is not None
    assert found.version == torch.__version__
    assert (found.lib / "libtorch_cpu.so").exists() or sys.platform != "linux"
