"""Loads the libraries that the installation compiled, or says why there are none."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["PACKAGE", "load"]

#: Where the build leaves the libraries and the reasons for those that failed.
PACKAGE = Path(__file__).parent


def load(library: str, log: str, title: str, needs: str, package: Path = PACKAGE) -> str | None:
    """Load a library, which registers its ops.

    Args:
        library: Its name, without the ending.
        log: The file in which the build says why it failed.
        title: What to call it in an error.
        needs: What the build takes, for the remedy.
        package: Where both are.

    Returns:
        None, or the reason, with the remedy, when it cannot be loaded.
    """
    files = sorted(package.glob(f"{library}.*so"))
    if not files:
        reason = package / log
        if reason.exists():
            # The build names what it lacked: a compiler, a torch, or what the compiler said.
            said = reason.read_text().strip()
            remedy = "," if "remedy:" in said else "; remedy: mend that"
            return f"{title} failed to build: {said}{remedy} and run `pip install .` again"
        return f"{title} is not built; remedy: have {needs} and run `pip install .` again"
    try:
        torch.ops.load_library(files[0])
    except OSError as error:
        return (
            f"{title} {files[0].name} does not load: {error}; remedy: have torch >= 2.10 and run "
            "`pip install .` again"
        )
    return None
