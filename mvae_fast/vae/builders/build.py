"""Models from a plain description."""

from collections.abc import Callable, Mapping
from typing import Any

from mvae_fast.checks import integer
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
