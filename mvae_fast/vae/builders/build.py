"""Models from a plain description, and back from a file."""

import io
import warnings
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvae_fast.checks import integer
from mvae_fast.files import write_bytes
from mvae_fast.vae.builders.changes import changes
from mvae_fast.vae.builders.modalities import MODALITIES
from mvae_fast.vae.builders.plain import plain
from mvae_fast.vae.builders.posteriors import FLOWS
from mvae_fast.vae.mvae import MVAE


def build_mvae(config: Mapping[str, Any]) -> MVAE:
    """A model from plain, JSON-able data.

    Args:
        config: ``latent_dim``; ``modalities``: by name a mapping with ``type`` (``"mlp"``,
            ``"conv"``, ``"label"``, ``"attribute"``, ``"attributes"``) and the arguments of
            `mlp_modality`, `conv_modality` and so on, but ``latent_dim``; ``flow``: None or a
            mapping with ``type`` (a name of `mvae_fast.vae.FLOWS`) and the arguments of its
            builder, such as `cnf_posterior`; ``n_random_subsets`` (default 0). Numbers, arrays,
            sequences and mappings may be of any class, such as NumPy's and OmegaConf's.

    Returns:
        The model; its ``config`` attribute keeps a copy of the description, of Python's own types.

    Raises:
        ValueError: If the description names something unknown, lacks something, or holds
            something that is not plain data.
        TypeError: If it is not a mapping.

    Example:
        >>> model = build_mvae(
        ...     {
        ...         "latent_dim": 16,
        ...         "modalities": {
        ...             "image": {"type": "mlp", "shape": [8, 8]},
        ...             "label": {"type": "label", "num_classes": 10, "weight": 50.0},
        ...         },
        ...         "flow": {"type": "cnf", "hidden": [32]},
        ...     }
        ... )
        >>> list(model.modalities)
        ['image', 'label']
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"config must be a mapping, got {config!r}")
    config = dict(plain("config", config))
    if unknown := set(config) - {"latent_dim", "modalities", "flow", "n_random_subsets"}:
        raise ValueError(f"config has unknown keys {sorted(unknown)}")
    if missing := {"latent_dim", "modalities"} - set(config):
        raise ValueError(f"config lacks {sorted(missing)}")
    latent_dim = integer("latent_dim", config["latent_dim"], 1)
    modalities, flow = config["modalities"], config.get("flow")
    if not isinstance(modalities, dict):
        raise ValueError(f"modalities: got {modalities!r}, expected a mapping from their names")
    model = MVAE(
        {
            name: _make(f"modality {name!r}", MODALITIES, spec, latent_dim)
            for name, spec in modalities.items()
        },
        latent_dim,
        None if flow is None else _make("flow", FLOWS, flow, latent_dim),
        n_random_subsets=config.get("n_random_subsets", 0),
    )
    model.config = config
    return model


def save_mvae(model: MVAE, path: str | Path) -> None:
    """Write a model that `build_mvae` made: its description and its weights, nothing that needs
    pickle's trust.

    Weights keep their precision. What was set on the model later is not in its description and is
    lost, such as ``validate_args`` or a flow's ``n_steps``, ``solver`` and ``log_det``; a warning
    says so. The file is whole or not there: until the new one is written, the old one stays.

    Args:
        model: The model.
        path: File to write.

    Raises:
        ValueError: If the model has no description, or its parts are no longer those that its
            description makes, so that it would not load as it is: a module was replaced, a hook
            added; save its ``state_dict()`` instead.
        OSError: If the file cannot be written.
    """
    if model.config is None:
        raise ValueError(
            "only a model made by build_mvae can be saved whole; of a hand-made one "
            "save the state_dict()"
        )
    config = plain("config", model.config)
    with torch.random.fork_rng(devices=[]):  # to save draws no random numbers
        described = build_mvae(config)
    replaced, lost = changes(model, described)
    if replaced:
        raise ValueError(
            "only a model that is what its description makes can be saved whole, but "
            f"{'; '.join(replaced[:3])}; of a changed one save the state_dict()"
        )
    if lost:
        warnings.warn(
            f"settings that are not in the model's description are not saved: {', '.join(lost)}; "
            "set them again after load_mvae",
            stacklevel=2,
        )
    content = io.BytesIO()
    torch.save({"config": config, "state_dict": model.state_dict()}, content)
    _write(Path(path), content)


def load_mvae(path: str | Path, map_location: str | torch.device = "cpu") -> MVAE:
    """Read a model that `save_mvae` wrote.

    Args:
        path: File to read.
        map_location: Device for the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the file is damaged or something else.
        OSError: If it cannot be opened.
    """
    saved = read_saved(path, {"config", "state_dict"})
    return restore(path, saved["config"], saved["state_dict"]).to(map_location)


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
            saved = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # what torch.load makes of other content may be any of them
            raise ValueError(
                f"{path} is not a checkpoint of mvae-fast, or it is damaged"
            ) from error
    if not isinstance(saved, dict) or not keys <= set(saved):
        raise ValueError(f"{path} is not a checkpoint of mvae-fast: it lacks {sorted(keys)}")
    return saved


def restore(path: str | Path, config: Any, state_dict: Mapping[str, Any]) -> MVAE:
    """The model of a description with the weights that were read from ``path``.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If there is no such model, or the weights are those of another one.
    """
    try:
        model = build_mvae(config)
        _take_precision(model, state_dict)
        model.load_state_dict(state_dict, assign=True)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of mvae-fast: {error}") from error
    return model.eval()


def _write(path: Path, content: io.BytesIO) -> None:
    target = path.resolve()  # of a link, what it points to
    if not target.parent.is_dir():
        raise FileNotFoundError(f"path: got {path}, but there is no folder {target.parent}")
    if target.exists() and not target.is_file():
        raise ValueError(f"path: got {path}, which is no file")
    write_bytes(target, content.getbuffer())


def _take_precision(model: MVAE, state_dict: Mapping[str, Any]) -> None:
    """Take every module to the dtype of its saved parameters, with the buffers that no file has."""
    for path, module in model.named_modules():
        for name, _ in module.named_parameters(recurse=False):
            saved = state_dict.get(f"{path}.{name}")
            if isinstance(saved, Tensor) and saved.is_floating_point():
                module.to(saved.dtype)


def _make(what: str, kinds: Mapping[str, Callable[..., Any]], spec: Any, latent_dim: int) -> Any:
    if not isinstance(spec, dict):
        raise ValueError(f"{what}: got {spec!r}, expected a mapping with type and arguments")
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in kinds:
        raise ValueError(f"{what}: type must be one of {sorted(kinds)}, got {kind!r}")
    try:
        return kinds[kind](latent_dim=latent_dim, **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error
