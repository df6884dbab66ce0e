"""Data sets of which only a part is paired."""

import numpy as np
import torch

from mvae_fast.checks import integer
from mvae_fast.data.lazy import LazyArray
from mvae_fast.data.multimodal import MultimodalDataset


def unpair(dataset: MultimodalDataset, fraction: float, seed: int = 0) -> MultimodalDataset:
    """Keep a fraction of the rows paired and take the others apart, a row for each modality.

    Of a row that is not kept, each modality comes back as a row of its own in which the others are
    missing: it contributes the modality's own term to the objective, and no joint one. Nothing
    tells which of these rows belonged together. No data are copied, only row numbers.

    Args:
        dataset: The data. Rows with a single modality stay as they are.
        fraction: Of the rows with two or more modalities, how many stay as they are, in (0, 1].
        seed: Of the choice. Of two fractions, the larger one keeps all that the smaller one keeps.

    Returns:
        The paired rows in their order, then those of the first modality alone, and so on.

    Raises:
        ValueError: If ``fraction`` is not in (0, 1], or no row would stay paired.

    References:
        Wu and Goodman, Multimodal generative models for scalable weakly-supervised learning,
        NeurIPS 2018, section 5.3.

    Example:
        >>> dataset = MultimodalDataset({"image": np.zeros((10, 8, 8)), "label": np.arange(10)})
        >>> part = unpair(dataset, 0.2)
        >>> len(part), {name: int(mask.sum()) for name, mask in part.masks.items()}
        (18, {'image': 10, 'label': 10})
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be in (0, 1], got {fraction}")
    seed = integer("seed", seed, 0)
    n = len(dataset)
    has = {
        name: dataset.masks[name].numpy() if name in dataset.masks else np.ones(n, dtype=bool)
        for name in dataset.arrays
    }
    several = np.flatnonzero(np.sum(list(has.values()), axis=0) > 1)
    n_paired = round(fraction * len(several))
    if n_paired < 1:
        raise ValueError(
            f"fraction must leave at least one row paired, got {fraction} of {len(several)} rows "
            "with two or more modalities"
        )
    # RandomState's streams are frozen (NEP 19), which a Generator's are not.
    shuffled = np.random.RandomState(seed).permutation(several)
    apart = np.zeros(n, dtype=bool)
    apart[shuffled[n_paired:]] = True

    whole = np.flatnonzero(~apart)
    alone = {name: np.flatnonzero(apart & there) for name, there in has.items()}
    rows = np.concatenate([whole, *alone.values()])
    masks = {
        name: np.concatenate(
            [there[whole], *(np.full(len(alone[other]), other == name) for other in alone)]
        )
        for name, there in has.items()
    }
    return MultimodalDataset(
        {name: LazyArray.of(array).take(rows) for name, array in dataset.arrays.items()},
        {name: torch.from_numpy(mask) for name, mask in masks.items()},
        dataset.transforms,
    )
