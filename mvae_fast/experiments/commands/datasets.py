"""``mvae-fast datasets``."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mvae_fast.data.celeba.files import CELEBA
from mvae_fast.data.mnist.files import EMNIST_LETTERS, FASHION_MNIST, KMNIST, MNIST
from mvae_fast.data.registry import DATASETS
from mvae_fast.data.sources import data_root
from mvae_fast.experiments.commands.options import Parser
from mvae_fast.experiments.config import TrainConfig
from mvae_fast.experiments.usage import usage


class Facts(NamedTuple):
    """What neither a loader nor a packaged configuration says.

    Attributes:
        rows: To train, to validate and to test.
        licence: As the authors state it.
        fetched: How large what one downloads is, and whether ``--download`` does it.
        folder: Of the files, below that of all data sets; "" where there are none.
        files: Their names there.
    """

    rows: tuple[int, int, int]
    licence: str
    fetched: str
    folder: str = ""
    files: tuple[str, ...] = ()


_CELEBA = Facts(
    (17_880, 1_987, 19_962),
    "for non-commercial research",
    "1.4 GB, by hand",
    CELEBA.name,
    CELEBA.files,
)
_MNIST_ROWS = (55_000, 5_000, 10_000)
_PHOTOS = Facts(
    (1_504, 183, 349),
    "CC BY 2.0, CC0 and public domain, by photograph",
    "none: with scikit-image and scikit-learn, of the extra [images]",
)

FACTS: dict[str, Facts] = {
    "digits": Facts((1_257, 180, 360), "CC BY 4.0", "none: with scikit-learn"),
    "mnist": Facts(_MNIST_ROWS, "CC BY-SA 3.0", "11.6 MB, by --download", MNIST.name, MNIST.files),
    "fashion_mnist": Facts(
        _MNIST_ROWS, "MIT", "30.9 MB, by --download", FASHION_MNIST.name, FASHION_MNIST.files
    ),
    "kmnist": Facts(
        _MNIST_ROWS, "CC BY-SA 4.0", "21.2 MB, by --download", KMNIST.name, KMNIST.files
    ),
    "emnist_letters": Facts(
        (119_800, 5_000, 20_800),
        "none stated",
        "0.5 GB, by --download",
        EMNIST_LETTERS.name,
        EMNIST_LETTERS.files,
    ),
    "photos_gray": _PHOTOS,
    "photos_edge": _PHOTOS,
    "celeba_gray": _CELEBA,
    "celeba_edge": _CELEBA,
    "celeba_mask": _CELEBA,
    "celeba19": _CELEBA,
    "mirflickr": Facts(
        (10_000, 5_000, 10_000),
        "none stated for the features; the photographs have Creative Commons licences",
        "by hand",
        "mirflickr",
        (
            "image/labelled/*.npy",
            "text/text_all_2000_labelled.npz",
            "splits/{train,valid,test}_indices_{1..5}.npy",
            "flickr_stats.npz",
        ),
    ),
    "shapes6": Facts((2_000, 200, 500), "that of mvae_fast", "none: computed"),
}


def parser() -> Parser:
    """The command's parser."""
    parser = Parser(
        "datasets",
        "The data sets: what they hold, their licence, and where their files must lie.",
        ("datasets", "datasets mnist celeba19", "datasets --json"),
    )
    add = parser.add_argument
    # Not by choices, for which nargs="*" takes its empty default.
    add("names", nargs="*", metavar="NAME", help=f"of {', '.join(DATASETS)}; default: all")
    add("--data-dir", metavar="FOLDER", help="of data sets; default: $MVAE_FAST_DATA")
    add("--json", action="store_true", help="print it as JSON")
    return parser


def main(argv: Sequence[str]) -> None:
    """Print what is known of each data set."""
    args = parser().parse_args(argv)
    with usage():
        found = {name: describe(name, args.data_dir) for name in args.names or DATASETS}
    if args.json:
        print(json.dumps(found, indent=2))
        return
    for name, facts in found.items():
        print(name)
        for key, value in facts.items():
            print(f"  {key:<11} {_line(value)}")


def describe(name: str, data_dir: str | None = None) -> dict[str, Any]:
    """What is known of a data set.

    Args:
        name: Of `DATASETS`.
        data_dir: Folder of all data sets, as `mvae_fast.data.sources.data_root` takes it.

    Returns:
        Facts by name, plain data.

    Raises:
        ValueError: If there is no such data set.

    Example:
        >>> describe("digits")["modalities"]
        {'image': '8x8', 'label': '10 classes'}
    """
    modalities = TrainConfig.packaged(name)["modalities"]
    facts = FACTS[name]
    found: dict[str, Any] = {
        "modalities": {key: _size(described) for key, described in modalities.items()},
        "rows": dict(zip(("train", "validation", "test"), facts.rows, strict=True)),
        "licence": facts.licence,
        "download": facts.fetched,
    }
    if facts.folder:
        found["folder"] = str(data_root(data_dir) / facts.folder)
        found["files"] = list(facts.files)
    return found


def _size(modality: Mapping[str, Any]) -> str:
    if "num_classes" in modality:
        return f"{modality['num_classes']} classes"
    return "x".join(map(str, modality.get("shape", [modality.get("n", 1)])))


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {size:,}" if isinstance(size, int) else f"{key} {size}"
            for key, size in value.items()
        )
    return ", ".join(value) if isinstance(value, list) else str(value)
