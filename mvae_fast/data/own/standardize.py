"""Means and standard deviations of the modalities that are to be standardised."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mvae_fast.data.multimodal import MultimodalDataset


def standardized(
    modalities: Mapping[str, Mapping[str, Any]], train: MultimodalDataset
) -> dict[str, dict[str, Any]]:
    """Descriptions of modalities with numbers in place of ``standardize: true``.

    Args:
        modalities: Descriptions by name, as `mvae_fast.vae.build_mvae` takes them.
        train: The rows whose mean and standard deviation are taken, for each number of a row. Where
            the latter is 0 it is 1.

    Returns:
        The descriptions, with ``standardize: {mean: ..., std: ...}``.

    Example:
        >>> train = MultimodalDataset({"x": np.array([[1.0], [3.0]])})
        >>> standardized({"x": {"type": "mlp", "shape": [1], "standardize": True}}, train)["x"]
        {'type': 'mlp', 'shape': [1], 'standardize': {'mean': [2.0], 'std': [1.0]}}
    """
    described = {}
    for name, spec in modalities.items():
        described[name] = dict(spec)
        if spec.get("standardize") is not True:
            continue
        mask = train.masks.get(name)
        stored = train.arrays[name][:]
        rows = train.transforms.get(name, torch.Tensor.double)(stored).numpy().astype(np.float64)
        rows = rows if mask is None else rows[mask.numpy()]
        if not len(rows):
            raise ValueError(f"modality {name!r}: no row of the training split has it")
        std = rows.std(axis=0)
        scale = np.where(std > 0, std, 1.0)
        described[name]["standardize"] = {
            "mean": rows.mean(axis=0).tolist(),
            "std": scale.tolist(),
        }
    return described
