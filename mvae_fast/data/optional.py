"""Packages that only some data sets need, imported where they are used."""

import importlib
from typing import Any


def needed(module: str, purpose: str, extra: str) -> Any:
    """Import a module of a package that need not be there.

    Args:
        module: Its name, with dots.
        purpose: What needs it, for the message.
        extra: Of mvae_fast, that installs it.

    Raises:
        ImportError: If the package is not installed.

    Example:
        >>> needed("json", "this example", "train").dumps([1])
        '[1]'
        >>> needed("no_such.part", "this example", "train")
        Traceback (most recent call last):
        ImportError: this example: no_such is not installed; remedy: pip install 'mvae_fast[train]'
    """
    package = module.partition(".")[0]
    try:
        importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise ImportError(
            f"{purpose}: {package} is not installed; remedy: pip install 'mvae_fast[{extra}]'"
        ) from error
    return importlib.import_module(module)
