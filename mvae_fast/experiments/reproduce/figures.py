"""Figures 3, 4 and 5: conditional samples, unconditional samples, image transformations."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.distributions import Distribution

from mvae_fast.experiments.config import title
from mvae_fast.experiments.figures import COLUMNS, show, tiles
from mvae_fast.experiments.folders.files import write_figure
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.experiments.reproduce.table4 import PAIRS
from mvae_fast.vae import MVAE


def figure3(laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str]) -> list[Path]:
    """Images generated from the label, a row a label, for each data set.

    z_0 is drawn from the posterior given the label alone; shown are the pixels' means.
    """
    paths = []
    for dataset, trained in _models(laboratory, datasets, models, "an image and a label").items():
        panels = {}
        run = laboratory.runs(dataset, models[0])[0]
        given = {"label": torch.arange(run.config.modalities["label"]["num_classes"])}
        for name, model in trained.items():
            drawn = model.generate(COLUMNS, given, generator=_generator())["image"].mean
            panels[f"{name}: given the label"] = tiles(drawn, COLUMNS)
        paths.append(_draw(panels, laboratory.out / f"figure3_{dataset}.png"))
    return paths


def figure4(
    laboratory: Laboratory,
    datasets: Sequence[str],
    models: Sequence[str],
    through_flow: bool = False,
) -> list[Path]:
    """Unconditional samples of all modalities, for each data set.

    The prior is on z_T, so the generative model decodes z_T ~ N(0, I) directly. The paper's code
    pushes N(0, I) through the flow first, as does ``through_flow``.
    """
    paths = []
    for dataset, trained in _models(laboratory, datasets, models, "an image").items():
        panels, captions = {}, {}
        for name, model in trained.items():
            drawn = _unconditional(model, COLUMNS * COLUMNS, through_flow)
            heading = f"{name}: unconditional"
            panels[heading] = tiles(drawn["image"].mean, COLUMNS)
            if "label" in drawn:
                captions[heading] = drawn["label"].mode.view(-1, COLUMNS).tolist()
        suffix = "_through_flow" if through_flow else ""
        path = laboratory.out / f"figure4_{dataset}{suffix}.png"
        paths.append(_draw(panels, path, captions))
    return paths


def figure5(laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str]) -> list[Path]:
    """Image transformations, in both directions and from nothing, for each pair.

    Rows from the top: the image, its transformation, the transformation generated from the image,
    the image generated from the transformation, and an unconditional sample of both. z_0 is at the
    posterior's mean; the sample decodes N(0, I).
    """
    pairs = [pair for dataset in datasets for pair in PAIRS.get(dataset, (dataset,))]
    paths = []
    for pair, trained in _models(laboratory, pairs, models, "a pair of images").items():
        run = laboratory.runs(pair, models[0])[0]
        image, other = run.config.modalities
        test = laboratory.splits(run.config).test
        chosen = np.linspace(0, len(test) - 1, COLUMNS).astype(int).tolist()
        x, _ = test[chosen]
        panels = {}
        for name, model in trained.items():
            drawn = _unconditional(model, COLUMNS)
            rows = [
                x[image],
                x[other],
                model.reconstruct({image: x[image]})[other].mean,
                model.reconstruct({other: x[other]})[image].mean,
                drawn[image].mean,
                drawn[other].mean,
            ]
            heading = (
                f"{name}: {image}, {other}; {other} from {image}, {image} from {other}; "
                f"{image} and {other} from nothing"
            )
            coloured = (row.expand(-1, 3, -1, -1) for row in rows)  # of one channel or three
            panels[heading] = np.concatenate([tiles(row, COLUMNS) for row in coloured])
        paths.append(_draw(panels, laboratory.out / f"figure5_{pair}.png", below=True))
    return paths


def _models(
    laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str], needs: str
) -> dict[str, dict[str, MVAE]]:
    """The models of the first seed by data set and title; see `Laboratory.train`."""
    runs = {d: {m: laboratory.runs(d, m)[0] for m in models} for d in datasets}
    laboratory.train((run for group in runs.values() for run in group.values()), needs)
    return {d: {title(m): run.model() for m, run in group.items()} for d, group in runs.items()}


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@torch.no_grad()
def _unconditional(model: MVAE, n: int, through_flow: bool = False) -> dict[str, Distribution]:
    if not through_flow or model.flow is None:
        return model.sample(n, generator=_generator())
    z_0 = torch.randn(n, model.latent_dim, generator=_generator())
    return model.decode(model.flow(z_0, z_0.new_zeros(n, 1))[0])


def _draw(
    panels: Mapping[str, np.ndarray],
    path: Path,
    captions: Mapping[str, list[list[int]]] | None = None,
    below: bool = False,
) -> Path:
    """Draw mosaics side by side, or one below the other, and write the file."""
    count = len(panels)
    rows, columns = (count, 1) if below else (1, count)
    tallest = max(panel.shape[0] / panel.shape[1] for panel in panels.values())
    size = (6.0, 6.0 * tallest * count + 0.4) if below else (4.2 * count, 4.2 * tallest + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (heading, panel) in zip(axes, panels.items(), strict=True):
        show(axis, panel, heading, 8 if below else 11)
        height, width = (side + 1 for side in panel.shape[2:4])
        for i, line in enumerate((captions or {}).get(heading, [])):
            for j, caption in enumerate(line):
                axis.text(j * width + 2, (i + 1) * height - 2, caption, color="orange", fontsize=6)
    write_figure(path, figure)
    return path
