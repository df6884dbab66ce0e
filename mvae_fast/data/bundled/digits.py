"""scikit-learn's bundled digits: the data set that needs no download."""

from mvae_fast.data.multimodal import MultimodalDataset
from mvae_fast.data.optional import needed
from mvae_fast.data.sources import DataDir
from mvae_fast.data.splits import Splits


def digits(data_dir: DataDir = None, *, download: bool = False) -> Splits:
    """1797 images of handwritten digits, 8x8 in [0, 1], with their labels.

    The split is part of the data set, not of a run's seed: stratified by label, 1257 rows to train,
    180 to choose the checkpoint and 360 held out.

    Args:
        data_dir: Not needed: the data come with scikit-learn.
        download: Not needed.

    Returns:
        Train, validation and test splits with the modalities ``image`` and ``label``.

    Example:
        >>> splits = digits()
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (1257, 180, 360)
        >>> x, _ = splits.test[0]
        >>> x["image"].shape, x["label"].dtype
        (torch.Size([8, 8]), torch.int64)
    """
    del data_dir, download
    bunch = needed("sklearn.datasets", "digits", "train").load_digits()
    split = needed("sklearn.model_selection", "digits", "train").train_test_split
    labels = bunch.target
    rest, test = split(range(len(labels)), test_size=360, stratify=labels, random_state=0)
    train, validation = split(rest, test_size=180, stratify=labels[rest], random_state=0)
    dataset = MultimodalDataset({"image": bunch.images / 16, "label": labels})
    return Splits(*(dataset.subset(sorted(rows)) for rows in (train, validation, test)))
