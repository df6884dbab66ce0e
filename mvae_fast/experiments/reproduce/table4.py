"""Table 4: an image and a transformation of it as two modalities."""

from collections.abc import Sequence

from mvae_fast.experiments.config import title
from mvae_fast.experiments.evaluation import legend, log_det_notes
from mvae_fast.experiments.report import Entry, Report
from mvae_fast.experiments.reproduce import published
from mvae_fast.experiments.reproduce.laboratory import Laboratory
from mvae_fast.vae.evaluation import CONVENTIONS

#: The pairs of image and transformation, by the name that ``--dataset`` takes.
PAIRS: dict[str, tuple[str, ...]] = {
    "photos": ("photos_gray", "photos_edge"),
    "celeba": ("celeba_gray", "celeba_edge", "celeba_mask"),
}


def table4(laboratory: Laboratory, datasets: Sequence[str], models: Sequence[str]) -> Report:
    """Train on each pair, and print the loss of each modality and of both, as the paper does."""
    pairs = [pair for dataset in datasets for pair in PAIRS.get(dataset, (dataset,))]
    runs = laboratory.grid(pairs, models, "a pair of images")
    table: list[Entry] = []
    errors: list[str] = []
    for (pair, model), group in runs.items():
        image, other = group[0].config.modalities
        initials = f"{image[0]}{other[0]}".upper()
        names = {
            "joint": f"{initials}: {image.title()}-{other.title()}",
            image: f"{initials}: {image.title()}",
            other: f"{initials}: {other.title()}",
        }
        joint, first, second = names.values()
        table += (
            e for e in published.table4(pair, (joint, first, second)) if e.column == title(model)
        )
        results = laboratory.metrics(group)
        errors += log_det_notes(f"{pair}, {title(model)}", results)
        for convention in CONVENTIONS:
            kind = "iwae" if convention == "iwae" else "elbo"
            for key, row in names.items():
                values = tuple(r[convention][f"{kind}/{key}"][0] for r in results)
                table.append(Entry(pair, row, convention, title(model), values))
    notes = [
        "negative ELBO of both modalities and of each alone (iwae: negative log-likelihood), nats",
        *legend([], runs[pairs[0], models[0]][0].config.samples)[1:],
        *errors,
        *laboratory.about(runs.values()),
    ]
    return Report("Table 4: image transformations", table, notes)
