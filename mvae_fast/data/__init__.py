"""Data sets: named modalities, the official layouts, and the ones that come with libraries."""

from mvae_fast.data.batching import EpochBatches, batches
from mvae_fast.data.digits import digits
from mvae_fast.data.lazy import LazyArray
from mvae_fast.data.mnist import emnist_letters, fashion_mnist, kmnist, mnist
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.registry import DATASETS, load_dataset
from mvae_fast.data.splits import Splits

__all__ = [
    "DATASETS",
    "EpochBatches",
    "LazyArray",
    "MultimodalDataset",
    "Splits",
    "batches",
    "digits",
    "emnist_letters",
    "fashion_mnist",
    "kmnist",
    "load_dataset",
    "mnist",
    "unit_interval",
]
