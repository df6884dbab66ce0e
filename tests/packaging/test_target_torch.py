"""Which torch the build takes: the one that is there, else the pinned one."""

from __future__ import annotations

import sys

import pytest
from setuptools import build_meta

from build_backend import backend, target_torch
from build_backend.target_torch import Torch, find_torch, pinned_requirement


def find(*directories, **environ):
    return find_torch(environ, directories)


def test_torch_of_the_target_comes_first(tmp_path, make_torch):
    target = make_torch(tmp_path / "target", "2.11.0+cu130")
    torch = find(tmp_path / "elsewhere", target, make_torch(tmp_path / "build", "2.13.0"))
    assert torch == Torch(target / "torch", "2.11.0+cu130")


def test_without_a_torch_there_is_none(tmp_path):
    assert find(tmp_path) is None


@pytest.mark.parametrize("version", ["1.13.1", "2.9.1+cpu"])
def test_older_than_the_stable_interface_is_passed_over(tmp_path, make_torch, version):
    assert find(make_torch(tmp_path, version)) is None


@pytest.mark.parametrize("version", ["2.10.0", "2.13.0a0+git1234", "3.0.0"])
def test_newer_is_taken(tmp_path, make_torch, version):
    assert find(make_torch(tmp_path, version)) is not None


def test_torch_without_headers_is_passed_over(tmp_path, make_torch):
    assert find(make_torch(tmp_path, "2.13.0", headers=False)) is None


def test_override_wins(tmp_path, make_torch):
    named = make_torch(tmp_path / "named", "2.10.1")
    target = make_torch(tmp_path / "target", "2.13.0")
    torch = find(target, MVAE_FAST_TORCH=str(named))
    assert torch is not None
    assert torch.directory.parent == named


def test_override_that_names_no_torch_is_an_error(tmp_path, make_torch):
    target = make_torch(tmp_path / "target", "2.13.0")
    with pytest.raises(FileNotFoundError, match=r"MVAE_FAST_TORCH=.*nothing.* torch 2\.10"):
        find(target, MVAE_FAST_TORCH=str(tmp_path / "nothing"))


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("hook", ["wheel", "editable"])
def test_only_the_build_asks_for_the_pin(tmp_path, make_torch, monkeypatch, hook, there):
    """And only where there is no torch and it has something to compile."""
    site_dir = make_torch(tmp_path, "2.14.1") if there else tmp_path
    monkeypatch.setattr(target_torch, "target_site_dirs", lambda: [site_dir])
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(backend, "skip_requested", lambda: False)
    monkeypatch.setattr(backend, "find_compiler", lambda: ["c++"])
    for name in ("wheel", "editable"):  # setuptools' own would run setup.py
        monkeypatch.setattr(build_meta, f"get_requires_for_build_{name}", lambda settings: [])
    asked = getattr(backend, f"get_requires_for_build_{hook}")
    assert asked() == ([] if there else [pinned_requirement()])
    monkeypatch.setattr(backend, "find_compiler", lambda: None)
    assert asked() == []


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
