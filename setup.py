"""What pyproject.toml cannot say: the extension, and the place of kernels/."""

import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_backend.build_ext import build_ext
from build_backend.egg_info import egg_info

# The repository has this link; an archive of the sources may not.
kernels = ROOT / "mvae_fast" / "kernels"
if not kernels.is_dir():
    kernels.unlink(missing_ok=True)
    try:
        kernels.symlink_to("../kernels", target_is_directory=True)
    except OSError:  # Windows asks for a privilege
        shutil.copytree(ROOT / "kernels", kernels)

setup(
    license="MIT",  # `license = "MIT"` in pyproject.toml would be an error before setuptools 77
    packages=find_packages(include=["mvae_fast", "mvae_fast.*"]),
    # Said at all, it makes an editable install a plain path, which mypy and editors can follow.
    package_dir={"": "."},
    package_data={"mvae_fast": ["py.typed", "**/*.yaml", "engines/schemas.inc"]},
    include_package_data=False,
    # Only names the extension: build_ext finds the sources and flags itself.
    ext_modules=[Extension("mvae_fast._C", sources=[], py_limited_api=True)],
    cmdclass={"build_ext": build_ext, "egg_info": egg_info},
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
