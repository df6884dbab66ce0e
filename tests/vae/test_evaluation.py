import pytest
import torch

from mvae_fast.vae import cnf_posterior, evaluate, exact_log_abs_det_jacobian
from tests.vae.models import AffineFlow, bimodal, data, trimodal


def test_entries_are_the_terms_of_the_bounds():
    model = bimodal(AffineFlow())
    result = evaluate(model, [(data(), {})], n_samples=3)
    assert set(result) == {
        *(f"elbo/{name}" for name in ("joint", "image", "label")),
        *(f"kl/{name}" for name in ("joint", "image", "label")),
        *("nll/joint/image", "nll/joint/label", "nll/image", "nll/label"),
    }
    value = {key: mean for key, (mean, _) in result.items()}
    assert value["elbo/joint"] == pytest.approx(
        value["nll/joint/image"] + value["nll/joint/label"] + value["kl/joint"], rel=1e-5
    )
    assert value["elbo/label"] == pytest.approx(value["nll/label"] + value["kl/label"], rel=1e-5)


def test_values_are_those_of_elbo():
    model = bimodal(AffineFlow())
    x = data()
    paper = evaluate(model, [(x, None)], "paper")
    wanted = -model.elbo(x, at="mean").double()
    assert paper["elbo/joint"][0] == pytest.approx(wanted.mean().item(), rel=1e-6)
    assert paper["elbo/joint"][1] == pytest.approx(wanted.std().item() / 7**0.5, rel=1e-5)
    image = -model.elbo({"image": x["image"]}, at="mean").double()
    assert paper["elbo/image"][0] == pytest.approx(image.mean().item(), rel=1e-6)


def test_batches_do_not_matter_at_the_mean():
    model = trimodal(AffineFlow())
    x = data(7, ("image", "label", "sound"))
    whole = evaluate(model, [(x, {})], "paper")
    parts = [({k: v[a:b] for k, v in x.items()}, {}) for a, b in ((0, 3), (3, 7))]
    parted = evaluate(model, parts, "paper")
    assert list(parted) == list(whole)
    for key in whole:
        assert parted[key] == pytest.approx(whole[key], rel=1e-5), key


def test_rows_without_a_modality_are_left_out_of_its_average():
    model = bimodal()
    x = data()
    mask = {"label": torch.tensor([True] * 3 + [False] * 4)}
    first = {name: value[:3] for name, value in x.items()}
    some = evaluate(model, [(x, mask)], "paper")
    for key in ("elbo/joint", "elbo/label", "nll/joint/image", "kl/joint"):
        assert some[key] == pytest.approx(evaluate(model, [(first, {})], "paper")[key], rel=1e-6)
    assert some["elbo/image"] == pytest.approx(evaluate(model, [(x, {})], "paper")["elbo/image"])


def test_seed_decides_and_the_mode_is_kept():
    model = bimodal(AffineFlow()).train()
    one, two, other = (evaluate(model, [(data(), {})], seed=seed) for seed in (0, 0, 1))
    assert one == two != other
    assert model.training


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="convention must be one of"):
        evaluate(bimodal(), [(data(), {})], "bound")
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(bimodal(), [])


def test_exact_log_det_of_a_known_map():
    flow = AffineFlow()
    exact = exact_log_abs_det_jacobian(flow, torch.randn(4, 5))
    torch.testing.assert_close(exact, flow.log_scale.sum().detach().expand(4))


def test_integrated_trace_nears_the_exact_log_det_as_steps_shrink():
    torch.manual_seed(0)
    flow = cnf_posterior(6, hidden=[16], T=3.0).double()
    z = torch.randn(5, 6, dtype=torch.float64)
    gaps = []
    for flow.n_steps in (4, 8, 16):
        _, change = flow(z, torch.zeros(5, 1, dtype=torch.float64))
        exact = exact_log_abs_det_jacobian(flow, z)
        gaps.append((-change.squeeze(1) - exact).abs().max().item())
    # first order in the step
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.25)
    assert gaps[1] / gaps[2] == pytest.approx(2, rel=0.15)
    assert all(p.grad is None for p in flow.parameters())
