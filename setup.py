"""What pyproject.toml cannot say: the extension, the place of kernels/, the torch required."""

import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from build_backend.build_ext import build_ext
from build_backend.target_torch import find_torch, runtime_requirement

setup(
    license="MIT",  # `license = "MIT"` in pyproject.toml would be an error before setuptools 77
    packages=[*find_packages(include=["mvae_fast", "mvae_fast.*"]), "mvae_fast.kernels"],
    package_dir={"mvae_fast.kernels": "kernels"},
    package_data={"mvae_fast": ["py.typed", "**/*.yaml"]},
    include_package_data=False,
    install_requires=[runtime_requirement(find_torch()), "torchdiffeq>=0.2.4", "numpy"],
    # Only names the extension: build_ext finds the sources and flags itself.
    ext_modules=[Extension("mvae_fast._C", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": build_ext},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
