"""Figures of samples, as in the paper's Figures 3 and 4."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from mvae_fast.experiments.folders.files import write_figure
from mvae_fast.vae import MVAE, CategoricalLikelihood

COLUMNS = 10
"""Pictures a row."""


def drawable(models: Iterable[MVAE]) -> bool:
    """Whether models have what `samples_figure` draws."""
    return all(
        {"image", "label"} <= set(model.modalities)
        and is_picture(model.modalities["image"].shape or ())
        and isinstance(model.modalities["label"].likelihood, CategoricalLikelihood)
        for model in models
    )


def is_picture(shape: Sequence[int]) -> bool:
    """Whether rows of a shape are images: (height, width), or with one channel or three before.

    Example:
        >>> is_picture((3, 64, 64)), is_picture((64, 64, 3)), is_picture((5,))
        (True, False, False)
    """
    return len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3))


def samples_figure(models: Mapping[str, MVAE], path: Path, *, seed: int = 0) -> None:
    """Draw label-conditioned samples, a row a label, and unconditional ones, for each model.

    Shown are the pixels' means given z_T. Conditional samples draw z_0 from the posterior given the
    label alone; unconditional ones draw z_T from the prior.

    Args:
        models: Models of the modalities ``image`` and ``label`` by the name they are shown under.
        path: File to write; its suffix chooses the format.
        seed: Of the noise.

    Raises:
        ValueError: If ``label`` has no classes.
    """
    likelihood = dict(next(iter(models.values())).items())["label"].likelihood
    if not isinstance(likelihood, CategoricalLikelihood):
        raise ValueError(f"modality 'label' must have classes, got {likelihood!r}")
    n_labels = likelihood.num_classes
    # A panel is as wide as high where there are ten labels.
    size = (4.2 * len(models), 2 * (4.2 * n_labels / COLUMNS + 0.1))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False)
    for column, (name, model) in enumerate(models.items()):
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        given = {"label": torch.arange(n_labels, device=device)}
        conditional = model.generate(COLUMNS, given, generator=generator)["image"].mean
        unconditional = model.sample(n_labels * COLUMNS, generator=generator)["image"].mean
        upper, lower = axes[:, column]
        tiled = tiles(conditional, COLUMNS)
        show(upper, tiled, f"{name}: given the label")
        height = tiled.shape[2] + 1
        upper.set_yticks([height * (i + 0.5) for i in range(n_labels)], range(n_labels))
        upper.tick_params(length=0)
        show(lower, tiles(unconditional, COLUMNS), f"{name}: unconditional")
    write_figure(path, figure)


def show(axis: Axes, tiles: np.ndarray, heading: str, size: int = 11) -> None:
    """Draw a `mosaic` under a heading."""
    axis.imshow(mosaic(tiles), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_title(heading, fontsize=size)
    axis.set_xticks([])
    axis.set_yticks([])


def tiles(images: Tensor, columns: int) -> np.ndarray:
    """Images in rows, for `mosaic`.

    Args:
        images: ``(n, height, width)``, or ``(n, channels, height, width)`` with one channel or
            three.
        columns: Images a row; divides n.

    Returns:
        ``(n / columns, columns, height, width)``, with a last axis of colours if there are three.
    """
    if images.dim() == 4:
        images = images.squeeze(1) if images.shape[1] == 1 else images.movedim(1, -1)
    return images.unflatten(0, (-1, columns)).cpu().numpy()


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles as one picture, with grey lines of a pixel between them.

    Args:
        tiles: ``(rows, columns, height, width)``, or with a last axis of three colours.

    Returns:
        ``(rows * (height + 1) + 1, columns * (width + 1) + 1)``, or with three colours.
    """
    rows, columns, height, width, *colours = tiles.shape
    framed = np.full((rows, columns, height + 1, width + 1, *colours), 0.35)
    framed[:, :, 1:, 1:] = tiles
    picture = np.moveaxis(framed, 2, 1).reshape(
        rows * (height + 1), columns * (width + 1), *colours
    )
    return np.pad(picture, ((0, 1), (0, 1), *[(0, 0)] * len(colours)), constant_values=0.35)
