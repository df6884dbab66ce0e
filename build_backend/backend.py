"""PEP 517 and 660 hooks: setuptools' own, plus a pinned torch where the target has none.

See target_torch.py for why torch is not simply listed in pyproject.toml.
"""

import shutil
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from build_backend.compile import find_compiler, skip_requested
from build_backend.target_torch import ROOT, find_torch, pinned_requirement

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    return build_meta.get_requires_for_build_wheel(config_settings) + _torch_to_build_against()


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    return build_meta.get_requires_for_build_editable(config_settings) + _torch_to_build_against()


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    # setuptools never prunes build/lib: a module deleted since the last build would be shipped.
    for stale in ROOT.glob("build/lib*"):
        shutil.rmtree(stale)
    return str(build_meta.build_wheel(wheel_directory, config_settings, metadata_directory))


def _torch_to_build_against() -> list[str]:
    """Nothing if the target has a torch, or if nothing will be compiled; else the pinned one."""
    if find_torch() is not None or skip_requested() or find_compiler() is None:
        return []
    return [pinned_requirement()]
