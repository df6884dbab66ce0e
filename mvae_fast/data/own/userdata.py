"""Data of a user's own, before and after it is known what they are."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from mvae_fast.checks import near
from mvae_fast.data.multimodal import MultimodalDataset, unit_interval
from mvae_fast.data.own.column import Column
from mvae_fast.data.own.forms import encode
from mvae_fast.data.own.infer import describe, is_group, says
from mvae_fast.data.own.partition import partition, split_column
from mvae_fast.data.splits import Splits

_MEMBER = re.compile(r"([^.]+)\..+|(.+)_\d+")
"""Columns of a group: ``gene.TP53``, ``gene.1``, ``gene_1``."""


@dataclass(frozen=True)
class UserData:
    """What `read_data` finds in a file or folder.

    Attributes:
        path: The file or folder.
        columns: Columns of a table, or arrays, by name.

    Example:
        >>> import tempfile
        >>> from mvae_fast.data import read_data
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "people.csv"
        ...     _ = path.write_text("age,eyes\\n31.5,blue\\n,brown\\n40.1,blue\\n")
        ...     data = read_data(path)
        >>> for line in data.summary(data.modalities()):
        ...     print(line)
        age   1, normal, standardised  2 of 3 rows
        eyes  2 classes: blue, brown   3 of 3 rows
    """

    path: Path
    columns: Mapping[str, Column]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).present)

    def modalities(self, split: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
        """Descriptions of the modalities by their look, as `mvae_fast.vae.build_mvae` takes them,
        but ``standardize: true``, for which `standardized` finds the numbers.

        Args:
            split: As of `splits`; its column is no modality.

        Raises:
            ValueError: If a value cannot be used, or there is no modality.
        """
        found = {n: d for n, d in self._described(split).items() if not isinstance(d, str)}
        if not found:
            raise ValueError(f"{self.path}: found no column that can be a modality")
        return found

    def left_out(self, split: Mapping[str, Any] | None = None) -> dict[str, str]:
        """Why columns are in no modality of `modalities`."""
        return {n: d for n, d in self._described(split).items() if isinstance(d, str)}

    def summary(self, modalities: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """A line a modality: its name, what it is, how many rows have it."""
        cells = []
        for name, described in modalities.items():
            columns = self.of(name)
            here = np.logical_and.reduce([column.present for column in columns])
            some = np.logical_or.reduce([column.present for column in columns])
            gaps = f", {(some & ~here).sum()} with gaps are missing" if (some & ~here).any() else ""
            cells.append((name, says(described), f"{here.sum()} of {len(self)} rows{gaps}"))
        widths = [max(len(row[place]) for row in cells) for place in (0, 1)]
        return [f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in cells]

    def of(self, name: str) -> list[Column]:
        """The columns of a modality.

        Raises:
            ValueError: If there is none of that name.
        """
        found = self.find(name)
        if not found:
            known = [*self._alone, *self._groups]
            raise ValueError(
                f"{self.path}: got no column or array for the modality {name!r}; it has "
                f"{', '.join(map(repr, self.columns))}{near(name, known)}"
            )
        return [self.columns[column] for column in found]

    def find(self, name: str) -> list[str]:
        """The names of the columns of a modality; none where the file lacks it."""
        return self._alone.get(name) or self._groups.get(name, [])

    def dataset(self, modalities: Mapping[str, Mapping[str, Any]]) -> MultimodalDataset:
        """All rows, as the descriptions of modalities say.

        Raises:
            ValueError: If a column is missing or a value does not fit; it is named.
        """
        arrays, masks, transforms = {}, {}, {}
        for name, described in modalities.items():
            columns = self.of(name)
            arrays[name], present = encode(columns, described)
            if not present.all():
                masks[name] = present
            if columns[0].is_image:
                transforms[name] = unit_interval
        return MultimodalDataset(arrays, masks, transforms)

    def splits(
        self, modalities: Mapping[str, Mapping[str, Any]], split: Mapping[str, Any] | None = None
    ) -> Splits:
        """Train, validation and test.

        Args:
            modalities: Descriptions by name.
            split: ``validation`` and ``test``, fractions of the rows (0.1), and ``seed`` (0); or
                ``column``, one that says train, validation or test for each row. None: the column
                ``split``, if it does, else fractions.

        Raises:
            ValueError: If the data do not fit, or a split would be empty.
        """
        dataset = self.dataset(modalities)
        return Splits(*(dataset.subset(rows) for rows in partition(self.columns, len(self), split)))

    def _described(self, split: Mapping[str, Any] | None) -> dict[str, dict[str, Any] | str]:
        """The description of each modality, or why a column is left out."""
        reserved = split_column(self.columns, split)
        groups = {
            name: members
            for name, members in self._groups.items()
            if is_group([self.columns[member] for member in members]) and name not in self._alone
        }
        member_of = {member: name for name, members in groups.items() for member in members}
        found: dict[str, dict[str, Any] | str] = {}
        origin: dict[str, str] = {}
        for column in self.columns:
            name = member_of.get(column, modality_name(column))
            if column == reserved or (name in found and column in member_of):
                continue
            if name in found or name == "joint":
                other = f", the name of {origin[name]!r}, too" if name in found else ""
                raise ValueError(
                    f"{self.columns[column].what}: it cannot be the modality {name!r}{other}; "
                    "remedy: rename it"
                )
            origin[name] = column
            found[name] = describe([self.columns[m] for m in groups.get(name, [column])])
        return found

    @cached_property
    def _alone(self) -> dict[str, list[str]]:
        """Each column by the name of its modality."""
        alone: dict[str, list[str]] = {}
        for column in self.columns:
            alone.setdefault(modality_name(column), []).append(column)
        return alone

    @cached_property
    def _groups(self) -> dict[str, list[str]]:
        """Columns of a table by what their names begin with, where two or more share it."""
        groups: dict[str, list[str]] = {}
        for column, values in self.columns.items():
            if values.cells is not None and (member := _MEMBER.fullmatch(column)):
                groups.setdefault(modality_name(member[1] or member[2]), []).append(column)
        return {name: members for name, members in groups.items() if len(members) > 1}


def modality_name(column: str) -> str:
    """The name of the modality of a column: letters, digits, ``_`` and ``-`` of its name.

    Example:
        >>> modality_name("blood pressure (mmHg)")
        'blood_pressure_mmHg_'
    """
    return re.sub(r"[^A-Za-z0-9_-]+", "_", column)
