import pytest

from mvae_fast.data import load_dataset


def test_unknown_data_sets_are_named():
    with pytest.raises(ValueError, match=r"dataset must be one of \['digits'\], got 'mnst'"):
        load_dataset("mnst")
