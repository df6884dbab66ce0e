import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mvae_fast.vae import product_of_experts


def textbook(mean, logvar, mask):
    """The product in float64, as the paper writes it: precisions, not their logarithms."""
    precision = torch.where(mask.unsqueeze(-1), torch.exp(-logvar.double()), 0.0)
    total = 1.0 + precision.sum(-2)
    product = (precision * torch.where(mask.unsqueeze(-1), mean.double(), 0.0)).sum(-2)
    return product / total, -total.log()


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 19),
    d=st.integers(1, 5),
    spread=st.sampled_from([0.0, 1.0, 10.0, 80.0]),
)
def test_agrees_with_the_textbook_formula_in_float64(seed, n, d, spread):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(3, n, d, generator=generator) * 3
    logvar = (torch.rand(3, n, d, generator=generator) * 2 - 1) * spread
    mask = torch.rand(3, n, generator=generator) < 0.7
    got = product_of_experts(mean, logvar, mask)
    wanted = textbook(mean, logvar, mask)
    # The experts' means set the scale on which a product's mean can be known.
    torch.testing.assert_close(got[0].double(), wanted[0], rtol=2e-5, atol=2e-6)
    torch.testing.assert_close(got[1].double(), wanted[1], rtol=2e-6, atol=2e-6)


def test_one_unit_expert_is_averaged_with_the_prior():
    mean, logvar = product_of_experts(torch.tensor([[[4.0]]]), torch.zeros(1, 1, 1))
    assert mean.item() == 2.0
    assert logvar.exp().item() == pytest.approx(0.5)


@pytest.mark.parametrize("logvar", [-1000.0, -200.0, 200.0, 1000.0, torch.inf])
def test_no_log_variance_overflows_or_underflows(logvar):
    mean, product = product_of_experts(torch.full((1, 1, 2), 3.0), torch.full((1, 1, 2), logvar))
    sure = logvar < 0
    torch.testing.assert_close(mean, torch.full((1, 2), 3.0 if sure else 0.0))
    torch.testing.assert_close(product, torch.full((1, 2), logvar if sure else 0.0))


@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -torch.inf, 1e30])
def test_masked_experts_have_exactly_no_weight(junk):
    mean = torch.randn(4, 3, 2, requires_grad=True)
    logvar = torch.randn(4, 3, 2, requires_grad=True)
    missing = torch.zeros(4, 3, dtype=torch.bool)
    missing[[0, 1, 1, 3], [1, 0, 2, 1]] = True
    poisoned = [torch.where(missing.unsqueeze(-1), junk, t) for t in (mean, logvar)]
    got = product_of_experts(*poisoned, ~missing)
    for row in range(4):
        alone = product_of_experts(
            mean[row, ~missing[row]].unsqueeze(0), logvar[row, ~missing[row]].unsqueeze(0)
        )
        torch.testing.assert_close(got[0][row], alone[0][0])
        torch.testing.assert_close(got[1][row], alone[1][0])
    (got[0].sum() + got[1].sum()).backward()
    for gradient in (mean.grad, logvar.grad):
        assert gradient.isfinite().all()
        assert (gradient[missing] == 0).all()
        assert (gradient[~missing] != 0).all()


def test_no_expert_leaves_the_prior():
    mask = torch.zeros(2, 3, dtype=torch.bool)
    mean, logvar = product_of_experts(torch.randn(2, 3, 4), torch.randn(2, 3, 4), mask)
    assert (mean == 0).all() and (logvar == 0).all()


def test_a_leading_axis_of_subsets_broadcasts():
    mean, logvar = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    masks = torch.rand(5, 4, 3) < 0.5
    together = product_of_experts(mean, logvar, masks)
    for s, mask in enumerate(masks):
        one = product_of_experts(mean, logvar, mask)
        torch.testing.assert_close(together[0][s], one[0])
        torch.testing.assert_close(together[1][s], one[1])


def test_gradcheck():
    mean = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    logvar = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert torch.autograd.gradcheck(lambda m, v: product_of_experts(m, v, mask), (mean, logvar))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"mean and logvar .* got \(1, 2, 3\) and \(1, 2, 4\)"):
        product_of_experts(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(TypeError, match="mask must be boolean"):
        product_of_experts(torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 2))
    with pytest.raises(ValueError, match="mask must broadcast"):
        product_of_experts(
            torch.zeros(1, 2, 3), torch.zeros(1, 2, 3), torch.ones(1, 3, dtype=torch.bool)
        )
