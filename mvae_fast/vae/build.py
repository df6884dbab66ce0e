"""Models from a plain description, and back from a file."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Any

import torch

from mvae_fast.vae.modalities import MODALITIES
from mvae_fast.vae.mvae import MVAE
from mvae_fast.vae.posteriors import FLOWS

__all__ = ["build_mvae", "load_mvae", "read_saved", "restore", "save_mvae"]


def build_mvae(config: Mapping[str, Any]) -> MVAE:
    """A model from plain, JSON-able data.

    Args:
        config: ``latent_dim``; ``modalities``: by name a mapping with ``type`` (``"mlp"``,
            ``"conv"``, ``"label"``, ``"attribute"``, ``"attributes"``) and the arguments of
            `mlp_modality`, `conv_modality` and so on, but ``latent_dim``; ``flow``: None or a
            mapping with ``type`` (a name of `mvae_fast.vae.posteriors.FLOWS`) and the arguments of
            its builder, such as `cnf_posterior`; ``n_random_subsets`` (default 0).

    Returns:
        The model; its ``config`` attribute keeps a copy of the description.

    Raises:
        ValueError: if the description names something unknown, or lacks something.
        TypeError: if it is not a mapping.

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
    if unknown := set(config) - {"latent_dim", "modalities", "flow", "n_random_subsets"}:
        raise ValueError(f"config has unknown keys {sorted(unknown)}")
    if missing := {"latent_dim", "modalities"} - set(config):
        raise ValueError(f"config lacks {sorted(missing)}")
    latent_dim = config["latent_dim"]
    flow = config.get("flow")
    model = MVAE(
        {
            name: _make(f"modality {name!r}", MODALITIES, spec, latent_dim)
            for name, spec in config["modalities"].items()
        },
        latent_dim,
        None if flow is None else _make("flow", FLOWS, flow, latent_dim),
        n_random_subsets=config.get("n_random_subsets", 0),
    )
    model.config = copy.deepcopy(dict(config))
    return model


def save_mvae(model: MVAE, path: str | Path) -> None:
    """Write a model that `build_mvae` made: its description and its weights, nothing that needs
    pickle's trust.

    What was set on the model later is not in its description and is lost, such as ``validate_args``
    or a flow's ``n_steps``, ``solver`` and ``log_det``.

    Args:
        model: the model.
        path: file to write.

    Raises:
        ValueError: if the model has no description; save its ``state_dict()`` instead.
    """
    if model.config is None:
        raise ValueError(
            "only a model made by build_mvae can be saved whole; of a hand-made one "
            "save the state_dict()"
        )
    torch.save({"config": model.config, "state_dict": model.state_dict()}, path)


def load_mvae(path: str | Path, map_location: str | torch.device = "cpu") -> MVAE:
    """Read a model that `save_mvae` wrote.

    Args:
        path: file to read.
        map_location: device for the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: if the file is damaged or something else.
        OSError: if it cannot be opened.
    """
    saved = read_saved(path, {"config", "state_dict"})
    return restore(path, saved["config"], saved["state_dict"]).to(map_location)


def read_saved(path: str | Path, keys: Set[str]) -> dict[str, Any]:
    """Read a mapping that ``torch.save`` wrote, to the CPU and without pickle's trust.

    Args:
        path: file to read.
        keys: what the mapping must hold.

    Returns:
        The mapping.

    Raises:
        ValueError: if the file is damaged or something else, or lacks a key.
        OSError: if it cannot be opened.
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
    """The model of a description, with weights.

    Args:
        path: where they were read, for the message.
        config: the description, as `build_mvae` takes it.
        state_dict: the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: if there is no such model, or the weights are those of another one.
    """
    try:
        model = build_mvae(config)
        model.load_state_dict(state_dict)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of mvae-fast: {error}") from error
    return model.eval()


def _make(
    what: str, kinds: Mapping[str, Callable[..., Any]], spec: Mapping[str, Any], latent_dim: int
) -> Any:
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    if kind not in kinds:
        raise ValueError(f"{what}: type must be one of {sorted(kinds)}, got {kind!r}")
    try:
        return kinds[kind](latent_dim=latent_dim, **arguments)
    except TypeError as error:
        raise ValueError(f"{what}: {error}") from error
