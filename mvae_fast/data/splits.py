"""Train, validation and test."""

from __future__ import annotations

from typing import NamedTuple

from mvae_fast.data.multimodal import MultimodalDataset

__all__ = ["SELECTIONS", "Splits"]

#: What a checkpoint can be chosen on.
SELECTIONS = ("validation", "test")


class Splits(NamedTuple):
    """A data set's three parts: models are fitted on the first, chosen on the second, reported on
    the third."""

    train: MultimodalDataset
    validation: MultimodalDataset
    test: MultimodalDataset

    def select_on(self, selection: str) -> Splits:
        """The splits of a protocol, by the part that the checkpoint is chosen on.

        Args:
            selection: ``"validation"``: the splits as they are. ``"test"``: the protocol of the
                paper and of MVAE's code, to compare with their numbers: fitted on all that is
                not test, chosen on the test split, which makes the reported numbers optimistic.

        Returns:
            The splits; with ``"test"`` train is train and validation together, without a copy, and
            validation is test.

        Raises:
            ValueError: if ``selection`` is neither.

        Example:
            >>> from mvae_fast.data import digits
            >>> [len(part) for part in digits().select_on("test")]
            [1437, 360, 360]
        """
        if selection not in SELECTIONS:
            raise ValueError(f"selection must be one of {SELECTIONS}, got {selection!r}")
        if selection == "validation":
            return self
        return Splits(self.train.concatenate(self.validation), self.test, self.test)
