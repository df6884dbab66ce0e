"""Reading the checkpoints that ``mvae-fast train`` wrote."""

from pathlib import Path

from mvae_fast.vae import MVAE, load_mvae
from mvae_fast.vae.builders.saved import read_saved, restore


def load_checkpoint(path: str | Path) -> MVAE:
    """The model of a checkpoint: a ``model.pt`` of `save_mvae`, or Lightning's ``.ckpt``.

    Returns:
        The model, on the CPU, in evaluation mode.

    Raises:
        ValueError: If the file is neither, or a folder.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    if path.is_dir():
        there = [p.name for p in path.glob("*") if p.suffix in (".pt", ".ckpt")]
        there += [p.relative_to(path).as_posix() for p in path.glob("*/model.pt")]
        raise ValueError(
            f"checkpoint {path} is a folder; name a file of it"
            + (f": {', '.join(sorted(there))}" if there else ", model.pt or a .ckpt")
        )
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint {path}: no such file")
    if path.suffix != ".ckpt":
        return load_mvae(path)
    saved = read_saved(path, {"hyper_parameters", "state_dict"})
    described, weights = saved["hyper_parameters"], saved["state_dict"]
    if not isinstance(described, dict) or not isinstance(weights, dict):
        raise ValueError(f"{path} is not a checkpoint of mvae-fast, or it is damaged")
    prefix = "model."
    own = {k.removeprefix(prefix): v for k, v in weights.items() if str(k).startswith(prefix)}
    return restore(path, described.get("model"), own)
