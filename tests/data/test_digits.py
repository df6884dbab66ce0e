import pytest
import torch

from mvae_fast.data import digits


@pytest.mark.slow
def test_splits_are_disjoint_whole_and_stratified():
    splits = digits()
    assert [len(part) for part in splits] == [1257, 180, 360]
    rows = [
        torch.cat([p.arrays["image"].flatten(1), p.arrays["label"].unsqueeze(1)], 1) for p in splits
    ]
    assert len(torch.cat(rows).unique(dim=0)) == 1797
    for part in splits:
        share = part.arrays["label"].bincount(minlength=10) / len(part)
        assert ((share - 0.1).abs() < 0.01).all()


def test_images_are_in_the_unit_interval():
    images = digits().train.arrays["image"]
    assert images.shape[1:] == (8, 8)
    assert images.min() == 0 and images.max() == 1


def test_the_split_is_always_the_same():
    assert torch.equal(digits().test.arrays["image"], digits().test.arrays["image"])
