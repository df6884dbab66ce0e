import pytest
import torch

from mvae_fast.data import digits


def test_the_papers_protocol_fits_on_all_and_selects_on_test():
    splits = digits()
    assert splits.select_on("validation") is splits
    paper = splits.select_on("test")
    both = torch.cat([splits.train[:][0]["image"], splits.validation[:][0]["image"]])
    assert torch.equal(paper.train[:][0]["image"], both)
    assert paper.validation is paper.test is splits.test


def test_unknown_selections_are_named():
    with pytest.raises(ValueError, match="selection: got 'tset', expected 'validation' or 'test'"):
        digits().select_on("tset")
