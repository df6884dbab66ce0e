"""Train, validation and test."""

from __future__ import annotations

from typing import NamedTuple

from mvae_fast.data.multimodal import MultimodalDataset

__all__ = ["Splits"]


class Splits(NamedTuple):
    """A data set's three parts: models are fitted on the first, chosen on the second, reported on
    the third."""

    train: MultimodalDataset
    validation: MultimodalDataset
    test: MultimodalDataset
