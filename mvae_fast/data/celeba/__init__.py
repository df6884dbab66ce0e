"""CelebA: portraits with a second view of the same image, or with attributes."""

import functools
from collections.abc import Callable

import numpy as np

from mvae_fast.checks import positive
from mvae_fast.data.celeba.face_masks import FaceMasks, find_model
from mvae_fast.data.celeba.files import ATTRIBUTES_18, CelebAFiles
from mvae_fast.data.celeba.views import SIZE, image_rows, make_splits, open_celeba, view_splits
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.sources import DataDir, data_root
from mvae_fast.data.splits import Splits, loader
from mvae_fast.data.transforms import EDGE_SIGMA, edges, gray, resize_and_crop

__all__ = ["celeba19", "celeba_edge", "celeba_gray", "celeba_mask"]


View = Callable[[np.ndarray], np.ndarray]


def _gray(files: CelebAFiles, data_dir: DataDir) -> View:
    return lambda rgb: gray(resize_and_crop(rgb, SIZE))


def _mask(files: CelebAFiles, data_dir: DataDir) -> View:
    @functools.cache
    def masks() -> FaceMasks:  # only when the first mask is to be made
        return FaceMasks(find_model([files.images.parent, data_root(data_dir)]))

    return lambda rgb: resize_and_crop(masks()(rgb), SIZE)


def _read(
    name: str,
    make_view: Callable[[CelebAFiles, DataDir], View],
    data_dir: DataDir = None,
    *,
    download: bool = False,
    train_split: str = "valid",
    verify: bool = True,
) -> Splits:
    """The portraits cannot be downloaded automatically: get them, for non-commercial research, from
    https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html and unpack ``img_align_celeba.zip``.

    Files, in ``celeba/``, ``CelebA/`` or the data folder itself: the folder ``img_align_celeba``
    with ``000001.jpg`` and so on (178x218 RGB), ``list_attr_celeba.txt`` and
    ``list_eval_partition.txt``. Images are scaled to 64 pixels of width and cropped to 64x64; the
    first call does so and keeps the result beside ``img_align_celeba`` in ``mvae_fast_cache``
    (12 KB an image, 4 KB a view), with a progress bar, and continues where it was interrupted.

    The paper trains on the official validation split and reports on the test split, so that is the
    default here, with a tenth of the validation split held back to choose the checkpoint:
    ``select_on("test")`` gives the paper's protocol to the row. ``train_split="train"`` is the
    protocol of the data set's authors: trains on train, chooses on validation.

    Args:
        data_dir: Folder of the data sets; see `mvae_fast.data.sources.data_root`.
        download: Has no effect: CelebA's authors ask users to agree to its terms.
        train_split: ``"valid"`` or ``"train"``, the official split to train on.
        verify: Check that there are as many images as in the official files. Checksums of them are
            not published; their form is checked in any case.

    Returns:
        17,880 / 1,987 / 19,962 rows (``"train"``: 162,770 / 19,867 / 19,962) with ``image``
        (3, 64, 64) in [0, 1] and the view, (1, 64, 64) in [0, 1] and of the data set's own name.

    Raises:
        FileNotFoundError: If files are missing.
        ValueError: If a file is damaged, or an argument cannot be used.

    References:
        Liu, Luo, Wang and Tang, Deep learning face attributes in the wild, ICCV 2015.
    """
    del download
    files = open_celeba(data_dir, train_split, verify)
    return view_splits(files, train_split, name, make_view(files, data_dir))


celeba_gray = loader(
    "celeba_gray",
    "CelebA's aligned portraits with their grey values, ``gray``.",
    _read,
    "gray",
    _gray,
)
celeba_mask = loader(
    "celeba_mask",
    """CelebA's aligned portraits with masks of mouth, brows, eyes, nose and jaw: ``mask``, 1 on the
parts of the face, 0 everywhere where no face is found.

Making the masks needs ``pip install 'mvae_fast[masks]'``, else ImportError, and dlib's landmark
model; see `mvae_fast.data.celeba.face_masks`. They are drawn on the 178x218 images and then scaled
as these. The model is looked for in the folder of the images, in the data folder and where Debian
puts it; masks that are already made need neither. Some 20 masks are made a second, so that the
default splits take half an hour the first time.""",
    _read,
    "mask",
    _mask,
)


def celeba_edge(
    data_dir: DataDir = None,
    *,
    download: bool = False,
    train_split: str = "valid",
    verify: bool = True,
    sigma: float = EDGE_SIGMA,
) -> Splits:
    """CelebA's aligned portraits with the Canny edges of the 64x64 images.

    Files, splits and errors as those of `celeba_gray`.

    Args:
        data_dir, download, train_split, verify: as for `celeba_gray`.
        sigma: Of Canny's smoothing, pixels of the 64x64 image.

    Returns:
        Rows as those of `celeba_gray` with ``image`` (3, 64, 64) in [0, 1] and ``edge``
        (1, 64, 64), 0 or 1.
    """
    del download
    sigma = positive("sigma", sigma)
    files = open_celeba(data_dir, train_split, verify)

    def view(rgb: np.ndarray) -> np.ndarray:
        return edges(resize_and_crop(rgb, SIZE), sigma)

    return view_splits(files, train_split, "edge", view, sigma=sigma)


def celeba19(
    data_dir: DataDir = None,
    *,
    download: bool = False,
    train_split: str = "valid",
    verify: bool = True,
) -> Splits:
    """CelebA's aligned portraits with 18 attributes, each a modality of its own.

    Files, splits and errors as those of `celeba_gray`. The attributes are those that Wu and Goodman
    keep: 4, 5, 8, 9, 11, 12, 15, 17, 18, 20, 21, 22, 26, 28, 31, 32, 33 and 35 of the 40, from 0.

    Args:
        data_dir, download, train_split, verify: as for `celeba_gray`.

    Returns:
        Rows as those of `celeba_gray` with ``image`` (3, 64, 64) in [0, 1] and, 0 or 1, ``bald``,
        ``bangs``, ``black_hair``, ``blond_hair``, ``brown_hair``, ``bushy_eyebrows``,
        ``eyeglasses``, ``gray_hair``, ``heavy_makeup``, ``male``, ``mouth_slightly_open``,
        ``mustache``, ``pale_skin``, ``receding_hairline``, ``smiling``, ``straight_hair``,
        ``wavy_hair`` and ``wearing_hat``.

    References:
        Wu and Goodman, Multimodal generative models for scalable weakly-supervised learning,
        NeurIPS 2018.
    """
    del download
    files = open_celeba(data_dir, train_split, verify)

    def part(split: str) -> MultimodalDataset:
        rows = files.attributes[files.rows(split)]
        named = {files.attribute_names[place].lower(): rows[:, place] for place in ATTRIBUTES_18}
        arrays = {"image": image_rows(files, split), **named}
        return MultimodalDataset(arrays, transforms={"image": unit_interval})

    return make_splits(part, train_split)
