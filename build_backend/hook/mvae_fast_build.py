"""The way from pyproject.toml to the backend, in a folder of its own.

Whatever lies in a backend's folder hides, during a build, what is installed under its name: that of
the repository would hide the package ``kernels``, which has a plug-in for setuptools.
"""

import sys
from pathlib import Path

_root = str(Path(__file__).resolve().parents[2])
sys.path.insert(0, _root)

from build_backend.backend import *  # noqa: E402, F403

sys.path.remove(_root)
