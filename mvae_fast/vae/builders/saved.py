"""Models in files: the description and the weights, and nothing that needs pickle's trust."""

import io
import warnings
import zipfile
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from mvae_fast.files import write_bytes
from mvae_fast.vae.builders.build import Classes, build_mvae
from mvae_fast.vae.builders.changes import changes
from mvae_fast.vae.builders.plain import plain
from mvae_fast.vae.builders.weights import pack, read_header, read_weights
from mvae_fast.vae.mvae import MVAE

SAFETENSORS = ".safetensors"
"""What the names of files in this format end in."""


def save_mvae(model: MVAE, path: str | Path) -> None:
    """Write a model that `build_mvae` made: its description and its weights, nothing that needs
    pickle's trust.

    Weights keep their precision. What was set on the model later is not in its description and is
    lost, such as ``validate_args`` or a flow's ``n_steps``, ``solver`` and ``log_det``; a warning
    says so. The file is whole or not there: until the new one is written, the old one stays.

    Args:
        model: The model.
        path: File to write. One that ends in ``.safetensors`` has that format, any other that of
            ``torch.save``; `load_mvae` reads both.

    Raises:
        ValueError: If the model has no description, or its parts are no longer those that its
            description makes, so that it would not load as it is: a module was replaced, a hook
            added; save its ``state_dict()`` instead.
        OSError: If the file cannot be written.
    """
    config = saved_config(model)
    target = Path(path).resolve()  # of a link, what it points to
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: got {path}, but there is no folder {target.parent}")
    if target.exists() and not target.is_file():
        raise ValueError(f"path: got {path}, which is no file")
    if target.suffix == SAFETENSORS:
        write_bytes(target, pack(model.state_dict(), config))
    else:
        content = io.BytesIO()
        torch.save({"config": config, "state_dict": model.state_dict()}, content)
        write_bytes(target, content.getbuffer())


def saved_config(model: MVAE) -> dict[str, Any]:
    """The description of a model that may be saved whole. Warns and raises as `save_mvae` does."""
    if model.config is None:
        raise ValueError(
            "only a model made by build_mvae can be saved whole; of a hand-made one "
            "save the state_dict()"
        )
    config: dict[str, Any] = plain("config", model.config)
    with torch.random.fork_rng(devices=[]):  # to save draws no random numbers
        described = build_mvae(config, model.classes)
    replaced, lost = changes(model, described)
    if replaced:
        raise ValueError(
            "only a model that is what its description makes can be saved whole, but "
            f"{'; '.join(replaced[:3])}; of a changed one save the state_dict()"
        )
    if lost:
        warnings.warn(
            f"settings that are not in the model's description are not saved: {', '.join(lost)}; "
            "set them again after loading",
            stacklevel=3,
        )
    return config


def load_mvae(
    path: str | Path,
    map_location: str | torch.device = "cpu",
    *,
    classes: Classes | None = None,
) -> MVAE:
    """Read a model that `save_mvae` wrote.

    Args:
        path: File to read.
        map_location: Device for the weights.
        classes: Parts of your own that the description names, as of `build_mvae`.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the file is damaged or something else.
        OSError: If it cannot be opened.
    """
    path = Path(path)
    if path.suffix == SAFETENSORS:
        config, _ = read_header(path)
        return restore_safetensors(path, config, classes).to(map_location)
    saved = read_saved(path, {"config", "state_dict"})
    return restore(path, saved["config"], saved["state_dict"], classes).to(map_location)


def read_saved(path: str | Path, keys: Set[str]) -> dict[str, Any]:
    """Read a mapping that ``torch.save`` wrote, to the CPU and without pickle's trust.

    Args:
        keys: What the mapping must hold.

    Raises:
        ValueError: If the file is damaged or something else, or lacks a key.
        OSError: If it cannot be opened.
    """
    with Path(path).open("rb") as file:
        try:
            _check_members(file)
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what torch.load makes of other content may be any of them
            raise ValueError(
                f"{path} is not a checkpoint of mvae-fast, or it is damaged"
            ) from error
    if not isinstance(saved, dict) or not keys <= set(saved):
        raise ValueError(f"{path} is not a checkpoint of mvae-fast: it lacks {sorted(keys)}")
    return saved


def _check_members(file: BinaryIO) -> None:
    """Raise unless a file is of the form that ``torch.save`` writes, in which nothing unpacks to
    more than there is: older forms, compressed members and overlapping ones may do so."""
    size = file.seek(0, io.SEEK_END)
    with zipfile.ZipFile(file) as members:
        if sum(member.file_size for member in members.infolist()) > size:
            raise ValueError("its members unpack to more than the file has")
    file.seek(0)


def restore(
    path: str | Path, config: Any, state_dict: Mapping[str, Any], classes: Classes | None = None
) -> MVAE:
    """The model of a description with the weights that were read from ``path``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If there is no such model, or the weights are those of another one; so that a
            description cannot ask for more memory than the weights that came with it take, their
            sizes are compared before a model is made.
    """
    return _restore(path, config, state_dict, lambda: state_dict, classes)


def restore_safetensors(path: Path, config: Any, classes: Classes | None = None) -> MVAE:
    """The same of a safetensors file, of which only the header is read before that."""
    return _restore(path, config, read_header(path)[1], lambda: read_weights(path), classes)


def _restore(
    path: str | Path,
    config: Any,
    sizes: Mapping[str, Any],
    weights: Callable[[], Mapping[str, Any]],
    classes: Classes | None,
) -> MVAE:
    try:
        with torch.device("meta"):
            outline = build_mvae(config, classes)
        outline.load_state_dict({name: size.to("meta") for name, size in sizes.items()})
        _check_held(outline, sizes)
        model, state_dict = build_mvae(config, classes), weights()
        _take_precision(model, state_dict)
        model.load_state_dict(state_dict, assign=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of mvae-fast: {error}") from error
    return model.eval()


def _check_held(outline: MVAE, weights: Mapping[str, Any]) -> None:
    """Raise unless there are as many numbers as the model has parameters: views of a few may have
    any size, and a model of that size would be made."""
    storages = {}
    for weight in weights.values():
        storage = weight.untyped_storage()
        storages[storage._cdata] = storage.nbytes() // weight.element_size()
    held, wanted = sum(storages.values()), sum(x.numel() for x in outline.parameters())
    if wanted > held:
        raise ValueError(f"it has {held} numbers for the {wanted} parameters of its description")


def _take_precision(model: MVAE, state_dict: Mapping[str, Any]) -> None:
    """Take every module to the dtype of its saved parameters, with the buffers that no file has."""
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            saved = state_dict.get(f"{path}.{name}")
            if isinstance(saved, Tensor) and saved.is_floating_point():
                module.to(saved.dtype)
