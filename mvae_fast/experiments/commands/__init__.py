"""What each command of `mvae-fast` does, and the options that they share."""

#: Each is a module here, with functions ``parser`` and ``main``.
COMMANDS = {
    "info": "versions, and the engines available",
    "bench": "measure FastCNF against torchdiffeq on this machine",
    "datasets": "data sets: what they hold, their licence, where their files must lie",
    "train": "train MVAE and MVAE-CNF on a data set, print the paper's Table 1",
    "reproduce": "tables and figures of the paper, ours beside the paper's",
    "evaluate": "evaluate a trained model on a test split",
    "sample": "draw samples from a trained model",
    "completion": "print a script that completes commands and options in a shell",
}
