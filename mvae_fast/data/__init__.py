"""Data sets: named modalities, the official layouts, and the ones that come with libraries."""

from mvae_fast.data.batching import EpochBatches, batches
from mvae_fast.data.bundled.digits import digits
from mvae_fast.data.bundled.photos import photos_edge, photos_gray
from mvae_fast.data.bundled.synthetic import shapes6
from mvae_fast.data.celeba import celeba19, celeba_edge, celeba_gray, celeba_mask
from mvae_fast.data.lazy import LazyArray
from mvae_fast.data.mirflickr import mirflickr
from mvae_fast.data.mnist import emnist_letters, fashion_mnist, kmnist, mnist
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.own import UserData, read_data, standardized
from mvae_fast.data.registry import DATASETS, load_dataset
from mvae_fast.data.splits import Splits
from mvae_fast.data.weak_supervision import unpair

__all__ = [
    "DATASETS", "EpochBatches", "LazyArray", "MultimodalDataset", "Splits", "UserData", "batches",
    "celeba19", "celeba_edge", "celeba_gray", "celeba_mask", "digits", "emnist_letters",
    "fashion_mnist", "kmnist", "load_dataset", "mirflickr", "mnist", "photos_edge", "photos_gray",
    "read_data", "shapes6", "standardized", "unit_interval", "unpair",
]  # fmt: skip
