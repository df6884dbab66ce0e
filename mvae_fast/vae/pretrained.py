"""Models as folders: ``config.json`` and ``model.safetensors``, as on the Hugging Face Hub."""

import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from mvae_fast.files import write_bytes

if TYPE_CHECKING:
    from mvae_fast.vae.mvae import MVAE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


class Pretrained:
    """The methods of an `MVAE` that write it into a folder and read it again."""

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write a model that `build_mvae` made into a folder: its description as ``config.json``
        and its weights as ``model.safetensors``, in their precision.

        Each of the two files is whole or not there. The folder is what the Hugging Face Hub
        expects of a model: ``hf upload NAME FOLDER`` publishes it.

        Args:
            folder: Folder to write to; it is made where there is none.

        Raises:
            ValueError: If the model cannot be saved whole, as `save_mvae` does, or there can be no
                such folder.
            OSError: If a file cannot be written.

        Example:
            >>> import tempfile
            >>> from mvae_fast.vae import MVAE, build_mvae
            >>> x = {"type": "mlp", "shape": [3]}
            >>> model = build_mvae({"latent_dim": 2, "modalities": {"x": x}})
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     model.save_pretrained(folder)
            ...     MVAE.from_pretrained(folder).latent_dim
            2
        """
        # Only now: these build models, and so import this module.
        from mvae_fast.vae.builders.saved import saved_config
        from mvae_fast.vae.builders.weights import pack

        model = cast("MVAE", self)
        config = saved_config(model)
        path = Path(folder)
        try:
            path.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise ValueError(f"folder: got {path}, which is no folder") from None
        write_bytes(path / WEIGHTS, pack(model.state_dict(), config))
        write_bytes(path / CONFIG, json.dumps(config, indent=2).encode())

    @staticmethod
    def from_pretrained(
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        map_location: str | torch.device = "cpu",
        classes: Mapping[str, Callable[..., Any]] | None = None,
    ) -> "MVAE":
        """Read a model that `save_pretrained` wrote. Nothing in it is run.

        Args:
            source: The folder; or, where there is no such folder, the id ``owner/name`` of a
                repository on the Hugging Face Hub, which needs ``pip install 'mvae_fast[hub]'``.
            revision: Branch, tag or commit of that repository; None: its main branch.
            map_location: Device for the weights.
            classes: Parts of your own that the description names, as of `build_mvae`.

        Returns:
            The model, in evaluation mode.

        Raises:
            ValueError: If a file is damaged or something else, or the weights are not those of the
                description: their sizes are compared before a model is made.
            OSError: If a file cannot be opened.
            ImportError: If a repository is named and huggingface_hub is not installed.
        """
        from mvae_fast.vae.builders.saved import restore_safetensors

        folder = Path(source)
        if not folder.is_dir():
            folder = _downloaded(os.fspath(source), revision)
        elif revision is not None:
            raise ValueError(f"revision: got {revision!r}, but {folder} is a folder, expected None")
        config = _read_config(folder / CONFIG)
        return restore_safetensors(folder / WEIGHTS, config, classes).to(map_location)


def _read_config(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (RecursionError, ValueError) as error:
        raise ValueError(f"{path} is no JSON, or it is damaged: {error}") from error


def _downloaded(source: str, revision: str | None) -> Path:
    """Where the two files of a repository are, once they are on this machine."""
    if _REPOSITORY.fullmatch(source) is None:
        raise FileNotFoundError(
            f"source: got {source!r}, but there is no such folder, and it is no id of a repository "
            "(owner/name)"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ImportError(
            f"source: got {source!r}, and there is no such folder; as the id of a repository it "
            "needs huggingface_hub: pip install 'mvae_fast[hub]'"
        ) from error
    return Path(snapshot_download(source, revision=revision, allow_patterns=[CONFIG, WEIGHTS]))
