"""``mvae-fast sample``: samples of a trained model, given some modalities or none."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.distributions import Categorical, Distribution

from mvae_fast.checks import near
from mvae_fast.data.own.archives import write_archive
from mvae_fast.experiments.commands.options import Parser, add_quiet
from mvae_fast.experiments.figures import is_picture, mosaic, tiles
from mvae_fast.experiments.folders.checkpoints import load_checkpoint
from mvae_fast.experiments.folders.files import make_folder, read_yaml, write_figure
from mvae_fast.experiments.usage import UsageError, usage
from mvae_fast.vae import MVAE, CategoricalLikelihood


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "sample",
        "Draw samples of every modality from a trained model.",
        (
            "sample runs/digits/mvae_cnf/model.pt",
            "sample runs/digits/mvae_cnf/model.pt --given label=3 --n 16 --out threes",
        ),
    )
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="model.pt or a .ckpt")
    add("--n", type=int, default=64, help="number of samples")
    add(
        "--given",
        action="append",
        default=[],
        metavar="MODALITY=VALUE",
        help="condition: a number, the name of a class, or a .npy file with one row of data, of an "
        "image numbers in [0, 1]; may be repeated",
    )
    add("--seed", type=int, default=0, help="of the noise")
    add("--out", default="samples", metavar="FOLDER", help="for samples.npz and a PNG an image")
    add_quiet(parser)
    return parser


def main(argv: Sequence[str]) -> None:
    """``mvae-fast sample CHECKPOINT``: samples of every modality, given some or none."""
    args = parser().parse_args(argv)
    if args.n < 1:
        raise UsageError(f"--n must be positive, got {args.n}")
    with usage():
        if not -(2**63) <= args.seed < 2**64:
            raise ValueError(f"--seed must have 64 bits at most, got {args.seed}")
        model = load_checkpoint(args.checkpoint)
        given = dict(condition(text, model) for text in args.given)
        folder = make_folder(args.out, "--out")
    generator = torch.Generator().manual_seed(args.seed)
    drawn = (
        model.generate(args.n, given, generator=generator)
        if given
        else model.sample(args.n, generator=generator)
    )
    values = {name: _shown(distribution) for name, distribution in drawn.items()}
    written = [folder / "samples.npz"]
    write_archive(written[0], {name: value.numpy() for name, value in values.items()})
    for name, value in values.items():
        if is_picture(value.shape[1:]):
            written.append(folder / f"{name}.png")
            _draw(value, written[-1])
    if not args.quiet:
        print("Written: " + ", ".join(map(str, written)))


def condition(text: str, model: MVAE) -> tuple[str, Tensor]:
    """The row of data that an option ``--given MODALITY=VALUE`` stands for.

    Numbers of any type are cast to what the modality is made of: for a label int64, so that 3.0 is
    as good as 3, else floats of the model's type. They are not scaled: bytes 0..255 are no image in
    [0, 1].

    Args:
        text: ``MODALITY=VALUE``, with the name of a class, a number or the path of a ``.npy`` file.

    Returns:
        The modality's name, and data ``(1, ...)``.

    Raises:
        ValueError: If the model has no such modality, or the value does not fit it.

    Example:
        >>> from mvae_fast.vae import label_modality
        >>> condition("label=3.0", MVAE({"label": label_modality(10, 4)}, latent_dim=4))
        ('label', tensor([3]))
    """
    name, equals, value = text.partition("=")
    if not equals or name not in model.modalities:
        raise ValueError(
            f"--given {text}: expected MODALITY=VALUE with a modality of {list(model.modalities)}"
            + near(name, model.modalities)
        )
    likelihood = dict(model.items())[name].likelihood
    try:
        classes = getattr(likelihood, "classes", None) or ()
        numbers = np.asarray(classes.index(value)) if value in classes else _numbers(value)
        if isinstance(likelihood, CategoricalLikelihood):
            row = torch.from_numpy(_whole(numbers))
        else:
            row = torch.from_numpy(numbers.astype(np.float64)).to(next(model.parameters()).dtype)
        data = {name: row.unsqueeze(0)}
        model.prepare(data, None)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--given {text}: {error}") from error
    return name, data[name]


def _numbers(value: str) -> np.ndarray:
    expected = "expected a number or a .npy file of numbers"
    try:
        if value.endswith(".npy"):
            numbers = np.load(value, allow_pickle=False)
        else:
            numbers = np.asarray(read_yaml(value))
    except OSError as error:
        raise ValueError(f"{expected}: {error}") from error
    except (EOFError, ValueError) as error:
        raise ValueError(expected) from error  # NumPy's message advises to unpickle the file
    # Of another kind are words, dates and lists of unequal lengths; np.load also reads archives.
    if not isinstance(numbers, np.ndarray) or numbers.dtype.kind not in "biuf":
        raise ValueError(expected)
    return numbers


def _whole(numbers: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # NaN and infinity, which then differ
        whole = numbers.astype(np.int64)
    if numbers.dtype.kind == "b" or not np.array_equal(whole, numbers):
        raise ValueError(f"a label must be a whole number, got {numbers}")
    return whole


def _shown(distribution: Distribution) -> Tensor:
    """What stands for a distribution: the mean, or of a label the most likely one."""
    base = getattr(distribution, "base_dist", distribution)
    return distribution.mode if isinstance(base, Categorical) else distribution.mean


def _draw(images: Tensor, path: Path) -> None:
    columns = max(1, int(len(images) ** 0.5))
    blank = images.new_ones(-len(images) % columns, *images.shape[1:])
    picture = mosaic(tiles(torch.cat([images, blank]), columns))
    figure = Figure(figsize=(6, 6 * picture.shape[0] / picture.shape[1]), layout="constrained")
    axis = figure.add_subplot()
    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.set_axis_off()
    write_figure(path, figure)
