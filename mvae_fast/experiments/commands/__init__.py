"""What each command of `mvae-fast` does, and the options that they share."""

import importlib
from types import ModuleType

#: Each is a module here or in `rows`, with functions ``parser`` and ``main``.
COMMANDS = {
    "info": "versions, and the engines available",
    "bench": "measure FastCNF against torchdiffeq on this machine",
    "datasets": "data sets: what they hold, their licence, where their files must lie",
    "init": "look at data of your own, write the settings to start from",
    "train": "train MVAE and MVAE-CNF on a data set or your own data, print the paper's Table 1",
    "reproduce": "tables and figures of the paper, ours beside the paper's",
    "evaluate": "evaluate a trained model on a test split",
    "sample": "draw samples from a trained model",
    "impute": "fill what is missing in a file, with its uncertainty",
    "embed": "write the latents of a file's rows",
    "score": "write the log-likelihood of a file's rows",
    "completion": "print a script that completes commands and options in a shell",
}

ROWS = ("impute", "embed", "score")
"""Those that answer about the rows of a file."""


def module(command: str) -> ModuleType:
    """The module of a command; its imports take seconds."""
    folder = f"{__name__}.rows" if command in ROWS else __name__
    return importlib.import_module(f"{folder}.{command}")
