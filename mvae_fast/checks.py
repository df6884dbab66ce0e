"""Checks of arguments: each returns the value or raises a ValueError that names what is wrong,
``name: got X, expected Y``."""

import difflib
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

# Tuples, not unions, which would be made anew in each of the checks of a call.
_BOOLEANS = (bool, np.bool_)
_TEXTS = (str, type(None))

Choice = TypeVar("Choice", bound="str | None")
Function = TypeVar("Function", bound=Callable[..., Any])


def boolean(name: str, value: Any) -> bool:
    """``value``, True or False (NumPy's, too): a string such as ``"False"`` would count as true.

    Example:
        >>> boolean("train_T", "False")
        Traceback (most recent call last):
        ValueError: train_T: got 'False', expected True or False
    """
    if not isinstance(value, _BOOLEANS):
        raise ValueError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def integer(name: str, value: Any, minimum: int) -> int:
    """``value``, an integer (NumPy's, too; not ``2.0`` or ``True``) of at least ``minimum``.

    Example:
        >>> integer("n_steps", 2.0, 1)
        Traceback (most recent call last):
        ValueError: n_steps: got 2.0, expected an integer >= 1
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < minimum:
        raise ValueError(f"{name}: got {value!r}, expected an integer >= {minimum}")
    return int(value)


def positive(name: str, value: Any) -> float:
    """``value``, a finite number above 0: Python's, NumPy's or a tensor without axes.

    Example:
        >>> positive("T", float("nan"))
        Traceback (most recent call last):
        ValueError: T: got nan, expected > 0, a finite number
    """
    number = _finite(value)
    if number is None or not number > 0:
        raise ValueError(f"{name}: got {value!r}, expected > 0, a finite number")
    return number


def non_negative(name: str, value: Any) -> float:
    """As `positive`, with 0 allowed."""
    number = _finite(value)
    if number is None or not number >= 0:
        raise ValueError(f"{name}: got {value!r}, expected >= 0, a finite number")
    return number


def _finite(value: Any) -> float | None:
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    if not isinstance(value, Real) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def one_of(name: str, value: Any, choices: Collection[Choice]) -> Choice:
    """``value``, one of ``choices``: strings, and None where it is among them.

    Example:
        >>> one_of("trace", "none", ("exact", "hutchinson"))
        Traceback (most recent call last):
        ValueError: trace: got 'none', expected 'exact' or 'hutchinson'
    """
    # Of a type first: == of an array has no truth value.
    if not isinstance(value, _TEXTS) or value not in choices:
        names = [repr(choice) for choice in choices]
        few = f"{', '.join(names[:-1])} or {names[-1]}"
        words = [name for name in names if name != "None"]
        expected = few if len(words) == 2 else f"one of {', '.join(names)}"
        raise ValueError(f"{name}: got {value!r}, expected {expected}")
    return value  # type: ignore[return-value]  # it is one of the choices


def near(word: str, known: Iterable[str]) -> str:
    """What somebody may have meant by a word that is not known, for the end of a message.

    Example:
        >>> near("epoch", ["epochs", "lr"]), near("width", ["epochs", "lr"])
        ('; did you mean epochs?', '')
    """
    close = difflib.get_close_matches(word, list(known))
    return f"; did you mean {' or '.join(close)}?" if close else ""


def mapping(name: str, value: Any) -> Mapping[str, Any]:
    """``value``, a mapping; None is no mapping."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{name}: got {value!r}, expected a mapping; remedy: {{}} for none")
    return value


def integers(name: str, values: Any, minimum: int) -> tuple[int, ...]:
    """``values``, a sequence of what `integer` takes, as a tuple.

    Example:
        >>> integers("hidden", (8), 1)
        Traceback (most recent call last):
        ValueError: hidden: got 8, expected a sequence of integers >= 1; remedy: (8,)
    """
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        remedy = f"; remedy: ({values},)" if isinstance(values, Integral) else ""
        raise ValueError(
            f"{name}: got {values!r}, expected a sequence of integers >= {minimum}{remedy}"
        )
    return tuple(integer(name, value, minimum) for value in values)


def tensor(name: str, value: Any, shape: str) -> Tensor:
    """``value``, a dense tensor of real floating-point numbers; ``shape`` is for the message.

    Raises:
        TypeError: If it is no tensor, or none that is dense.
        ValueError: If its dtype is another.

    Example:
        >>> tensor("z", [0.0, 1.0], "(B, D)")
        Traceback (most recent call last):
        TypeError: z: got a list, expected a torch.Tensor (B, D)
    """
    if not isinstance(value, Tensor):
        remedy = f"; remedy: torch.from_numpy({name})" if isinstance(value, np.ndarray) else ""
        raise TypeError(
            f"{name}: got a {type(value).__name__}, expected a torch.Tensor {shape}{remedy}"
        )
    if value.layout != torch.strided:
        raise TypeError(
            f"{name}: got a tensor of layout {value.layout}, expected a dense one; "
            f"remedy: {name}.to_dense()"
        )
    if not value.is_floating_point():
        remedy = f"{name}.dequantize()" if value.is_quantized else f"{name}.float()"
        raise ValueError(f"{name}: got {value.dtype}, expected a float dtype; remedy: {remedy}")
    return value


def booleans(name: str, values: Any) -> Tensor:
    """``values``, booleans in a tensor, array or sequence, as a tensor.

    Raises:
        TypeError: For anything else, a masked array included.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} must not be masked itself; remedy: x.filled(False)")
    if not isinstance(values, Tensor):
        values = np.array(values, order="C")  # torch takes no negative strides
        if values.dtype == np.bool_:
            values = torch.from_numpy(values)
    if values.dtype != torch.bool:
        raise TypeError(f"{name} must be boolean, got {values.dtype}")
    return values


class NotScriptable:
    """A module that says what to use in place of ``torch.jit.script``."""

    def __prepare_scriptable__(self) -> None:
        raise TypeError(
            f"torch.jit.script: got a {type(self).__name__}, which TorchScript cannot express; "
            "remedy: torch.export or torch.compile"
        )


def constant_when_traced(function: Function) -> Function:
    """Let torch.compile take the result of a call for a constant.

    `torch.compiler.assume_constant_result` does the same, and imports the compiler for it, at every
    start: that takes as long as torch itself.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function
