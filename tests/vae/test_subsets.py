from collections import Counter

import pytest
import torch

from mvae_fast.vae import joint_and_unimodal, random_subsets


def test_joint_then_each_alone():
    assert joint_and_unimodal(3).int().tolist() == [[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert joint_and_unimodal(1).tolist() == [[True]]


def test_cardinality_is_uniform_and_so_are_the_members():
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([random_subsets(6, 1, generator) for _ in range(4000)])
    sizes = Counter(drawn.sum(1).tolist())
    assert set(sizes) == {2, 3, 4, 5}
    # four cells of 1000 expected, standard deviation 27
    assert all(abs(count - 1000) < 5 * 27.4 for count in sizes.values())
    pairs = drawn[drawn.sum(1) == 2].float().mean(0)
    assert ((pairs - 1 / 3).abs() < 5 * (2 / 9 / sizes[2]) ** 0.5).all()


def test_subsets_of_one_draw_differ_and_may_exhaust_what_there_is():
    masks = random_subsets(4, 10, torch.Generator().manual_seed(0))
    assert len({tuple(mask.tolist()) for mask in masks}) == 10
    assert set(masks.sum(1).tolist()) == {2, 3}


def test_nineteen_modalities():
    assert random_subsets(19, 3).shape == (3, 19)


def test_none_is_fine():
    assert random_subsets(2, 0).shape == (0, 2)


@pytest.mark.parametrize(("n", "k", "limit"), [(2, 1, 0), (3, 4, 3), (3, -1, 3)])
def test_more_than_there_are_is_an_error(n, k, limit):
    with pytest.raises(ValueError, match=rf"k must be in 0\.\.{limit}"):
        random_subsets(n, k)
