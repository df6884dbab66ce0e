"""Figures of samples, as in the paper's Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from mvae_fast.vae import MVAE

__all__ = ["mosaic", "samples_figure"]


def samples_figure(
    models: Mapping[str, MVAE],
    path: Path,
    *,
    image: str = "image",
    label: str = "label",
    n_labels: int = 10,
    columns: int = 10,
    seed: int = 0,
) -> None:
    """Draw label-conditioned samples, a row a label, and unconditional ones, for each model.

    Shown are the pixels' means given z_T. Conditional samples draw z_0 from the posterior given the
    label alone; unconditional ones draw z_T from the prior.

    Args:
        models: models by the name they are shown under.
        path: file to write; its suffix chooses the format.
        image: modality that is drawn.
        label: modality that is given.
        n_labels: labels 0..n_labels-1.
        columns: samples a row.
        seed: of the noise.
    """
    figure = Figure(figsize=(4.2 * len(models), 8.6), layout="constrained")
    axes = figure.subplots(2, len(models), squeeze=False)
    for column, (name, model) in enumerate(models.items()):
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        given = {label: torch.arange(n_labels, device=device)}
        conditional = model.generate(columns, given, generator=generator)[image].mean
        unconditional = model.sample(n_labels * columns, generator=generator)[image].mean
        panels = (("given the label", conditional), ("unconditional", unconditional))
        for row, (title, images) in enumerate(panels):
            tiles = images.reshape(n_labels, columns, *images.shape[-2:]).cpu().numpy()
            axis = axes[row, column]
            axis.imshow(mosaic(tiles), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axis.set_title(f"{name}: {title}", fontsize=11)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                height = tiles.shape[-2] + 1
                axis.set_yticks([height * (i + 0.5) for i in range(n_labels)], range(n_labels))
                axis.tick_params(length=0)
    figure.savefig(path, dpi=130)


def mosaic(tiles: np.ndarray) -> np.ndarray:
    """Tiles as one picture, with grey lines of a pixel between them.

    Args:
        tiles: ``(rows, columns, height, width)``, or with a last axis of three colours.

    Returns:
        ``(rows * (height + 1) + 1, columns * (width + 1) + 1)``, or with three colours.

    Example:
        >>> mosaic(np.zeros((2, 3, 8, 8))).shape
        (19, 28)
    """
    rows, columns, height, width, *colours = tiles.shape
    framed = np.full((rows, columns, height + 1, width + 1, *colours), 0.35)
    framed[:, :, 1:, 1:] = tiles
    picture = np.moveaxis(framed, 2, 1).reshape(
        rows * (height + 1), columns * (width + 1), *colours
    )
    return np.pad(picture, ((0, 1), (0, 1), *[(0, 0)] * len(colours)), constant_values=0.35)
