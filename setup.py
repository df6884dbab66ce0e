"""What pyproject.toml cannot say: the extension, the place of kernels/, and of the repository."""

import re
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from build_backend.build_ext import build_ext
from build_backend.egg_info import egg_info
from build_backend.metadata import long_description, project_urls, repository

# From here on kernels/ must not hide the package of that name: it has a plug-in for setuptools.
sys.path[:] = [path for path in sys.path if Path(path).resolve() != ROOT]

# The repository has this link; an archive of the sources may not.
kernels = ROOT / "mvae_fast" / "kernels"
if not kernels.is_dir():
    kernels.unlink(missing_ok=True)
    try:
        kernels.symlink_to("../kernels", target_is_directory=True)
    except OSError:  # Windows asks for a privilege
        shutil.copytree(ROOT / "kernels", kernels)

address = repository()
package = (ROOT / "mvae_fast" / "__init__.py").read_text(encoding="utf-8")
(version,) = re.findall(r'^__version__ = "(.+)"$', package, re.MULTILINE)
readme = (ROOT / "README.md").read_text(encoding="utf-8")

setup(
    version=version,
    long_description=long_description(readme, address, version),
    long_description_content_type="text/markdown",
    project_urls=project_urls(address, version),
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
