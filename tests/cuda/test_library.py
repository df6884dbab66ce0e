"""The CUDA library: when it is built, and for which architectures."""

import pytest

from build_backend import cuda
from build_backend.compile import BuildError, find_compiler
from build_backend.target_torch import Torch

ALL = {"compute_80", "compute_90", "compute_100"}


def test_architectures_by_default():
    flags = cuda.code_flags(None, ALL)
    assert flags[:3] == [f"-gencode=arch=compute_{x},code=sm_{x}" for x in (80, 90, 100)]
    assert flags[3:] == ["-gencode=arch=compute_100,code=compute_100"]
    # An older nvcc builds for what it knows, and its last as PTX for what came later.
    assert cuda.code_flags("", ALL - {"compute_100"})[2:] == [
        "-gencode=arch=compute_90,code=compute_90"
    ]
    with pytest.raises(BuildError, match="nvcc knows none of"):
        cuda.code_flags(None, {"compute_70"})


def test_architectures_by_name():
    assert cuda.code_flags("8.6 9.0a;12.0+PTX", ALL) == [
        "-gencode=arch=compute_86,code=sm_86",
        "-gencode=arch=compute_90a,code=sm_90a",
        "-gencode=arch=compute_120,code=sm_120",
        "-gencode=arch=compute_120,code=compute_120",
    ]
    with pytest.raises(BuildError, match="TORCH_CUDA_ARCH_LIST holds 'Hopper'"):
        cuda.code_flags("Hopper", ALL)


@pytest.fixture
def torch_of(tmp_path):
    def make(version):
        directory = tmp_path / f"torch-{version}"
        directory.mkdir(exist_ok=True)
        (directory / "version.py").write_text(
            f"from typing import Optional\ncuda: Optional[str] = {version!r}\nhip = None\n"
        )
        return Torch(directory, "2.11.0")

    return make


@pytest.fixture
def nvcc(tmp_path):
    home = tmp_path / "toolkit"
    (home / "bin").mkdir(parents=True)
    script = home / "bin" / "nvcc"
    script.write_text('#!/bin/sh\necho "Cuda compilation tools, release 13.0, V13.0.88"\n')
    script.chmod(0o755)
    return home


def test_version_of_torch(torch_of, tmp_path):
    assert cuda.torch_cuda(torch_of("13.0")) == "13.0"
    assert cuda.torch_cuda(torch_of(None)) is None
    assert cuda.torch_cuda(Torch(tmp_path / "nowhere", "2.11.0")) is None


def build(tmp_path, torch, environ):
    cuda.build_cuda_library(tmp_path / "x.so", torch, tmp_path / "objects", environ)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_reasons_why_there_is_none(tmp_path, torch_of, nvcc):
    path = {"CXX": find_compiler()[0], "CUDA_HOME": str(nvcc), "PATH": ""}
    for torch, environ, reason in (
        (
            torch_of("13.0"),
            path | {"MVAE_FAST_SKIP_EXT": "1"},
            "MVAE_FAST_SKIP_EXT was set; remedy: unset it",
        ),
        (None, path, "torch >= 2.10 and a C\\+\\+ compiler"),
        (torch_of(None), path, "torch 2.11.0, to build against, has no CUDA; remedy"),
        (torch_of("12.8"), path, "nvcc is of CUDA 13 and torch of 12.8"),
        (torch_of("13.0"), path, "nvcc knows none of"),
    ):
        with pytest.raises(BuildError, match=reason):
            build(tmp_path, torch, environ)


def test_nvcc_is_looked_for_in_cuda_home_first(nvcc):
    assert cuda.find_nvcc({"CUDA_HOME": str(nvcc), "PATH": ""}) == nvcc / "bin" / "nvcc"
