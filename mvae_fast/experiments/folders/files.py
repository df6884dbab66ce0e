"""Files that are whole or not there, and the folders for them."""

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from mvae_fast.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_folder(path: str | Path, name: str) -> Path:
    """Make a folder to write to, unless it is there; ``name`` is the argument's that it came from.

    Raises:
        ValueError: If there can be no such folder, for example because a file is in its place.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{name} must be a folder, got {path}: {error.strerror}") from error
    return path


def write_text(path: Path, text: str) -> None:
    """Write ``text``, as `mvae_fast.files.write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, as `mvae_fast.files.write_bytes` does."""
    write_text(path, json.dumps(content, indent=2))


def write_saved(path: Path, content: Any, *, previous: Path | None = None) -> None:
    """Write what ``torch.save`` makes of ``content``, as `mvae_fast.files.write_bytes` does."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue(), previous=previous)


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a picture, as `mvae_fast.files.write_bytes` does; the suffix chooses the format."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix[1:], dpi=130)
    write_bytes(path, buffer.getvalue())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: If it is none.
        OSError: If it cannot be read.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


class _Loader(yaml.SafeLoader):
    """Takes 1e-1 for a number, as Python and YAML 1.2 do; in YAML 1.1 it is a string."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_yaml(text: str) -> Any:
    """Plain data of a YAML text.

    Raises:
        ValueError: If it is none.

    Example:
        >>> read_yaml("{T: 1e-1, weight: 5E1, name: e1}")
        {'T': 0.1, 'weight': 50.0, 'name': 'e1'}
    """
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
