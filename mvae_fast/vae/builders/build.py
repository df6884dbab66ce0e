"""Models from a plain description."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from mvae_fast.checks import integer, mapping, near
from mvae_fast.ode.settings import Settings
from mvae_fast.vae.builders.modalities import MODALITIES
from mvae_fast.vae.builders.plain import plain
from mvae_fast.vae.builders.posteriors import FLOWS, cnf_posterior
from mvae_fast.vae.likelihoods.registry import make_likelihood
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.mvae import MVAE
from mvae_fast.vae.sizes import sizes

BY_DIMENSIONS = "dimensions"
"""The weight of a modality that stands for the rule of `build_mvae`."""


Classes = Mapping[str, Callable[..., Any]]


def build_mvae(config: Mapping[str, Any], classes: Classes | None = None) -> MVAE:
    r"""A model from plain, JSON-able data.

    Args:
        config: ``latent_dim``; ``modalities``: by name a mapping with ``type`` (``"mlp"``,
            ``"conv"``, ``"label"``, ``"attribute"``, ``"attributes"``) and the arguments of
            `mlp_modality`, `conv_modality` and so on, but ``latent_dim``; ``flow``: None or a
            mapping with ``type`` (a name of `mvae_fast.vae.FLOWS`) and the arguments of its
            builder, such as `cnf_posterior`; ``aggregation``; ``n_random_subsets``. Numbers,
            arrays, sequences and mappings may be of any class, such as NumPy's and OmegaConf's. The
            ``weight`` of a modality may be ``"dimensions"``: :math:`\lambda_i = \max_j n_j / n_i`,
            with n the numbers in a row, of a label its classes, so that no modality is drowned by
            one with more pixels.
        classes: Parts of your own by the name that ``config`` has for them: as a modality's
            ``type`` a function ``(latent_dim, **arguments) -> Modality``, as a flow's ``type`` one
            that returns a flow, as a ``likelihood`` a class. To load the model again takes the
            same: nothing is imported by its name.

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
    known = ("latent_dim", "modalities", "flow", "aggregation", "n_random_subsets")
    if unknown := sorted(set(config) - set(known)):
        raise ValueError(
            f"config has unknown keys {unknown}, expected some of {list(known)}"
            f"{near(unknown[0], known)}"
        )
    if missing := {"latent_dim", "modalities"} - set(config):
        raise ValueError(f"config lacks {sorted(missing)}")
    latent_dim = integer("latent_dim", config["latent_dim"], 1)
    modalities, flow = config["modalities"], config.get("flow")
    if not isinstance(modalities, dict):
        raise ValueError(f"modalities: got {modalities!r}, expected a mapping from their names")
    classes = {} if classes is None else dict(mapping("classes", classes))
    made = {
        name: _make(f"modality {name!r}", MODALITIES, spec, latent_dim, classes)
        for name, spec in modalities.items()
    }
    model = MVAE(
        made,
        latent_dim,
        None if flow is None else _make("flow", FLOWS, flow, latent_dim, classes),
        aggregation=config.get("aggregation", "product"),
        n_random_subsets=config.get("n_random_subsets", 0),
    )
    most = max(map(_numbers, made.values()))
    for name, spec in modalities.items():
        if spec.get("weight") == BY_DIMENSIONS:
            made[name].weight = most / _numbers(made[name])
    model.config, model.classes = config, classes
    return model


def _make(what: str, kinds: Classes, spec: Any, latent_dim: int, classes: Classes) -> Any:
    if not isinstance(spec, dict):
        raise ValueError(f"{what}: got {spec!r}, expected a mapping with type and arguments")
    arguments = dict(spec)
    kind = arguments.pop("type", None)
    if not isinstance(kind, str) or kind not in {**kinds, **classes}:
        own = f"; remedy: classes={{{kind!r}: ...}} where it is your own"
        raise ValueError(
            f"{what}: type must be one of {sorted({**kinds, **classes})}, got {kind!r}"
            + (near(kind, kinds) or own if isinstance(kind, str) else "")
        )
    make = classes.get(kind) or kinds[kind]
    if arguments.get("weight") == BY_DIMENSIONS:
        del arguments["weight"]
    try:
        if "likelihood" in arguments:
            arguments["likelihood"] = _own(arguments["likelihood"], arguments, classes)
        _check_arguments(make, arguments)
        return make(latent_dim=latent_dim, **arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error


def _own(likelihood: Any, arguments: Mapping[str, Any], classes: Classes) -> Any:
    """A likelihood of the user's; any other as it is described."""
    name = likelihood.get("name") if isinstance(likelihood, dict) else likelihood
    if name not in classes:
        return likelihood
    return make_likelihood(likelihood, sizes("shape", arguments.get("shape")), classes)


def _check_arguments(make: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Name an argument that a builder does not have, and the nearest that it has."""
    parameters = inspect.signature(make).parameters
    known = [name for name in parameters if name != "latent_dim"]
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        if make not in FLOWS.values():
            return
        # What the CNFs pass on.
        known += [
            *inspect.signature(Settings).parameters,
            *inspect.signature(cnf_posterior).parameters,
        ]
        known = [name for name in dict.fromkeys(known) if name not in ("options", "latent_dim")]
    for name in arguments:
        if name not in known:
            raise ValueError(
                f"got the argument {name!r}, expected some of {known}{near(name, known)}"
            )


def _numbers(modality: Modality) -> int:
    """Numbers in a row of data; of a label its classes."""
    return getattr(modality.likelihood, "num_classes", 0) or math.prod(modality.shape or ())
