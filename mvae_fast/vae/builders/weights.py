"""Weights as safetensors: a file without code in it, whose header says how large everything is."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def pack(weights: Mapping[str, Tensor], config: Any) -> bytes:
    """The content of a file with the weights of a model and its description."""
    from safetensors.torch import save

    dense = {name: tensor.contiguous() for name, tensor in weights.items()}
    return bytes(save(dense, {"format": "pt", "config": json.dumps(config)}))


def read_header(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """What a file says of itself, without reading more of it.

    Returns:
        The description of the model, None where there is none; and the tensors on the device
        ``meta``: names and shapes without memory.

    Raises:
        ValueError: If the file is damaged or something else.
        OSError: If it cannot be opened.
    """
    with _opened(path) as file:
        config = json.loads((file.metadata() or {}).get("config", "null"))
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}
        return config, {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors, on the CPU. Raises what `read_header` does."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, RecursionError, ValueError) as error:
        raise ValueError(f"{path} is not a checkpoint of mvae-fast, or it is damaged") from error
