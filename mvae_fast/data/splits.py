"""Train, validation and test, and loaders of them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from mvae_fast.checks import one_of
from mvae_fast.data.multimodal import MultimodalDataset

#: What a checkpoint can be chosen on.
SELECTIONS = ("validation", "test")


class Splits(NamedTuple):
    """A data set's three parts: models are fitted on the first, chosen on the second, reported on
    the third."""

    train: MultimodalDataset
    validation: MultimodalDataset
    test: MultimodalDataset

    def select_on(self, selection: str) -> "Splits":
        """The splits of a protocol, by the part that the checkpoint is chosen on.

        Args:
            selection: ``"validation"``: the splits as they are. ``"test"``: the protocol of the
                paper and of MVAE's code, to compare with their numbers: fitted on all that is
                not test, chosen on the test split, which makes the reported numbers optimistic.

        Returns:
            The splits; with ``"test"`` train is train and validation together, without a copy, and
            validation is test.

        Raises:
            ValueError: If ``selection`` is neither.

        Example:
            >>> from mvae_fast.data import digits
            >>> [len(part) for part in digits().select_on("test")]
            [1437, 360, 360]
        """
        if one_of("selection", selection, SELECTIONS) == "validation":
            return self
        return Splits(self.train.concatenate(self.validation), self.test, self.test)


def loader(name: str, serves: str, read: Callable[..., Splits], *row: Any) -> Callable[..., Splits]:
    """The loader of one data set of a family.

    Args:
        serves: What it is, the beginning of the loader's docstring; that of the reader follows.
        read: The family's reader, called as ``read(*row, data_dir, download=..., ...)``.
        row: What tells this data set from the others of the family.

    Returns:
        ``load(data_dir=None, *, download=False, ...)`` with the options of the reader.

    Example:
        >>> def read(kind, data_dir=None, *, download=False, verify=True): ...
        >>> inspect.signature(loader("letters", "Letters.", read, "letters"))
        <Signature (data_dir=None, *, download=False, verify=True)>
    """
    bound = functools.partial(read, *row)

    def load(*args: Any, **options: Any) -> Splits:
        return bound(*args, **options)

    load.__name__ = load.__qualname__ = name
    load.__module__ = read.__module__
    load.__doc__ = f"{serves}\n\n{inspect.getdoc(read)}"
    load.__signature__ = inspect.signature(bound)  # type: ignore[attr-defined]
    return load
