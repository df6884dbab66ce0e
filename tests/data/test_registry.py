import pytest

from mvae_fast.data import DATASETS, load_dataset


def test_unknown_data_sets_are_named():
    with pytest.raises(ValueError, match=r"dataset must be one of \[.*'digits'.*\], got 'mnst'"):
        load_dataset("mnst")


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match=r"mnist takes the options \['verify'\], got \['verfy'\]"):
        load_dataset("mnist", verfy=False)


def test_every_loader_describes_what_it_serves():
    for name, loader in DATASETS.items():
        assert loader.__name__ == name
        assert "Returns:" in loader.__doc__ and "image" in loader.__doc__
