"""The paper's modalities and posterior by name, and models from a plain description."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvae_fast.cnf import FastCNF
from mvae_fast.odefunc import ODEfunc
from mvae_fast.odenet import ODEnet
from mvae_fast.vae.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    Likelihood,
    NormalLikelihood,
)
from mvae_fast.vae.modality import Modality
from mvae_fast.vae.mvae import MVAE
from mvae_fast.vae.networks import EmbeddingEncoder, MLPDecoder, MLPEncoder

__all__ = [
    "build_mvae",
    "cnf_posterior",
    "label_modality",
    "load_mvae",
    "mlp_modality",
    "save_mvae",
]

LIKELIHOODS: dict[str, Callable[[], Likelihood]] = {
    "bernoulli": BernoulliLikelihood,
    "normal": NormalLikelihood,
}


def mlp_modality(
    shape: Sequence[int],
    latent_dim: int,
    *,
    hidden: int = 512,
    likelihood: str = "bernoulli",
    weight: float = 1.0,
) -> Modality:
    """An image or any other array, with the paper's fully connected encoder and decoder.

    Args:
        shape: shape of one row.
        latent_dim: latent size D.
        hidden: width of the hidden layers: two in the encoder, three in the decoder.
        likelihood: ``"bernoulli"`` for data in [0, 1], ``"normal"`` for anything else.
        weight: lambda of this modality.

    Returns:
        The modality.

    Raises:
        ValueError: if the likelihood is unknown.

    Example:
        >>> mlp_modality((28, 28), latent_dim=128).shape
        (28, 28)
    """
    if likelihood not in LIKELIHOODS:
        raise ValueError(f"likelihood must be one of {sorted(LIKELIHOODS)}, got {likelihood!r}")
    return Modality(
        MLPEncoder(shape, latent_dim, [hidden] * 2),
        MLPDecoder(latent_dim, shape, [hidden] * 3),
        LIKELIHOODS[likelihood](),
        weight=weight,
        shape=tuple(shape),
    )


def label_modality(
    num_classes: int, latent_dim: int, *, hidden: int = 512, weight: float = 1.0
) -> Modality:
    """A class label, with the paper's embedding encoder and fully connected decoder.

    Args:
        num_classes: number of classes; labels are integers in 0..num_classes-1.
        latent_dim: latent size D.
        hidden: width of the embedding and of the hidden layers.
        weight: lambda of this modality.

    Returns:
        The modality.

    Example:
        >>> label_modality(10, latent_dim=128, weight=50.0).weight
        50.0
    """
    return Modality(
        EmbeddingEncoder(num_classes, latent_dim, [hidden] * 2),
        MLPDecoder(latent_dim, (num_classes,), [hidden] * 3),
        CategoricalLikelihood(num_classes),
        weight=weight,
        shape=(),
    )


def cnf_posterior(
    latent_dim: int,
    *,
    hidden: Sequence[int] = (256,),
    layer_type: str = "squash",
    nonlinearity: str = "softplus",
    T: float = 1.0,
    solver: str = "euler",
    n_steps: int = 10,
    trace: str = "exact",
    engine: str = "auto",
) -> FastCNF:
    """The paper's CNF posterior: 256 squash units, softplus, Euler, not conditioned on the data.

    The paper gives neither T nor the number of steps (its code takes one step to T = 0.5), nor how
    the trace is computed when it trains. The exact trace is as cheap as an estimate here and has no
    noise.

    Args:
        latent_dim: latent size D.
        hidden: widths of the ODE net's hidden layers.
        layer_type: how the layers depend on time.
        nonlinearity: between the layers.
        T: integration time.
        solver: ``"euler"``, or a torchdiffeq solver.
        n_steps: equal steps from 0 to T.
        trace: ``"exact"`` or ``"hutchinson"``.
        engine: which engine integrates.

    Returns:
        The flow.

    References:
        Nedelkoski, Bogojeski, Kao 2020, section 4.

    Example:
        >>> sum(p.numel() for p in cnf_posterior(128).parameters())
        66688
    """
    net = ODEnet(tuple(hidden), (latent_dim,), layer_type=layer_type, nonlinearity=nonlinearity)
    return FastCNF(ODEfunc(net), T=T, solver=solver, n_steps=n_steps, trace=trace, engine=engine)


MODALITIES: dict[str, Callable[..., Modality]] = {"mlp": mlp_modality, "label": label_modality}
FLOWS: dict[str, Callable[..., nn.Module]] = {"cnf": cnf_posterior}


def build_mvae(config: Mapping[str, Any]) -> MVAE:
    """A model from plain, JSON-able data.

    Args:
        config: ``latent_dim``; ``modalities``: by name a mapping with ``type`` (``"mlp"``,
            ``"label"``) and the arguments of `mlp_modality`, `label_modality`; ``flow``: None or a
            mapping with ``type`` (``"cnf"``) and the arguments of `cnf_posterior`;
            ``n_random_subsets`` (default 0).

    Returns:
        The model; its ``config`` attribute keeps a copy of the description.

    Raises:
        ValueError: if the description names something unknown, or lacks something.

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
        ValueError: if the file is something else.
    """
    saved = torch.load(path, map_location=map_location, weights_only=True)
    if not isinstance(saved, dict) or not {"config", "state_dict"} <= set(saved):
        raise ValueError(f"{path} was not written by save_mvae")
    model = build_mvae(saved["config"]).to(map_location)
    model.load_state_dict(saved["state_dict"])
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
