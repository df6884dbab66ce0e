"""Any subset of many modalities gives every other one."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from mvae_fast.vae import (
    MVAE,
    attribute_modality,
    cnf_posterior,
    conv_modality,
    label_modality,
    mlp_modality,
    random_subsets,
)

D = 6
ROWS = 5


def six(**kwargs):
    """Kind, colour, two images, a sound and a flag."""
    torch.manual_seed(0)
    flow = cnf_posterior(D, hidden=(8,), n_steps=2)
    return MVAE(
        {
            "kind": label_modality(3, D, hidden=16, weight=5.0),
            "colour": label_modality(4, D, hidden=16, weight=5.0),
            "picture": mlp_modality((4, 4), D, hidden=16),
            "outline": mlp_modality((2, 8), D, hidden=16),
            "sound": mlp_modality((7,), D, hidden=16, likelihood="normal"),
            "flag": attribute_modality(D, hidden=16),
        },
        D,
        flow,
        **kwargs,
    )


def six_related(rows, seed=1):
    """Everything follows from kind and colour, but for a little noise."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.randint(0, 3, (rows,), generator=generator)
    colour = torch.randint(0, 4, (rows,), generator=generator)
    prototypes = torch.rand(12, 4, 4, generator=generator).round()
    picture = prototypes[4 * kind + colour]
    noise = 0.1 * torch.randn(rows, 7, generator=generator)
    return {
        "kind": kind,
        "colour": colour,
        "picture": picture,
        "outline": (picture.flatten(1) > picture.flatten(1).roll(1, 1)).float().view(-1, 2, 8),
        "sound": torch.cat([F.one_hot(kind, 3), F.one_hot(colour, 4)], 1) + noise,
        "flag": (kind == 1).long(),
    }


def nineteen(n_random_subsets=2):
    """CelebA's image and 18 attributes, with nets of a few units."""
    torch.manual_seed(0)
    modalities = {"image": conv_modality((3, 64, 64), D, channels=2)}
    for i in range(18):
        modalities[f"attribute {i}"] = attribute_modality(D, hidden=4, weight=10.0)
    return MVAE(modalities, D, n_random_subsets=n_random_subsets)


def nineteen_related(rows, seed=1):
    """An image whose 18 stripes are dark or bright as its attributes say."""
    generator = torch.Generator().manual_seed(seed)
    attributes = torch.randint(0, 2, (rows, 18), generator=generator)
    stripes = F.interpolate(attributes[:, None].float(), size=64)
    image = (0.2 + 0.6 * stripes)[:, :, None].expand(rows, 3, 64, 64).contiguous()
    return {"image": image, **{f"attribute {i}": attributes[:, i] for i in range(18)}}


LAYOUTS = pytest.mark.parametrize(
    ("make_model", "make_data"), [(six, six_related), (nineteen, nineteen_related)], ids=[6, 19]
)


def subsets_of(model):
    """Every proper subset of 6 modalities; of 19 each alone, each left out and some at random."""
    n = len(model.modalities)
    if n == 6:
        masks = torch.tensor(list(itertools.product([False, True], repeat=n)))[1:-1]
        assert len(masks) == 2**6 - 2
    else:
        alone = torch.eye(n, dtype=torch.bool)
        some = random_subsets(n, 30, torch.Generator().manual_seed(0))
        masks = torch.cat([alone, ~alone, some])
    names = list(model.modalities)
    return [[name for name, here in zip(names, mask, strict=True) if here] for mask in masks]


def check_generated(decoded, x, rows):
    assert list(decoded) == list(x)
    for name, distribution in decoded.items():
        sample = distribution.sample()
        assert sample.shape == (rows, *x[name].shape[1:]), name
        assert sample.dtype == x[name].dtype, name
        assert sample.isfinite().all(), name
        assert distribution.log_prob(sample).isfinite().all(), name


@LAYOUTS
@pytest.mark.slow
def test_trains_with_random_subsets(make_model, make_data):
    model = make_model(n_random_subsets=2)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for step in range(40):
        # The same noise and subsets over and over: what is left is the descent itself.
        generator = torch.Generator().manual_seed(step % 4)
        loss = model.loss(make_data(8), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    # Means over the four kinds of step.
    first, last = sum(losses[:4]), sum(losses[-4:])
    assert last < 0.85 * first
    for name, p in model.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name


@LAYOUTS
@pytest.mark.slow
def test_every_subset_generates_every_modality(make_model, make_data):
    model, x = make_model().eval(), make_data(ROWS)
    generator = torch.Generator().manual_seed(0)
    for names in subsets_of(model):
        given = {name: x[name] for name in names}
        check_generated(model.generate(2, given=given, generator=generator), x, 2 * ROWS)
        check_generated(model.reconstruct(given), x, ROWS)


@LAYOUTS
def test_rows_with_different_modalities_go_together(make_model, make_data):
    """A mask for each row gives what each row's own modalities give."""
    model, x = make_model().eval(), make_data(ROWS)
    names = list(model.modalities)
    present = torch.rand(ROWS, len(names), generator=torch.Generator().manual_seed(3)) < 0.4
    present[0] = False
    mask = {name: present[:, i] for i, name in enumerate(names)}
    holes = {}
    for name, value in x.items():
        holes[name] = value.clone()
        holes[name][~mask[name]] = torch.nan if value.is_floating_point() else -1
    together = model.reconstruct(holes, mask)
    check_generated(together, x, ROWS)
    check_generated(model.generate(2, holes, mask), x, 2 * ROWS)
    for row in present.any(1).nonzero().flatten().tolist():
        has = {n: x[n][row : row + 1] for i, n in enumerate(names) if present[row, i]}
        for name, alone in model.reconstruct(has).items():
            wanted = together[name].log_prob(x[name])[row]
            got = alone.log_prob(x[name][row : row + 1])[0]
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_what_was_learned_crosses_modalities():
    model = six(n_random_subsets=4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    x = six_related(64)
    torch.manual_seed(2)
    for _ in range(250):
        optimizer.zero_grad()
        model.loss(x, beta=0.1).backward()
        optimizer.step()
    for source in ("sound", "outline"):
        kind = model.reconstruct({source: x[source]})["kind"].base_dist.probs.argmax(1)
        assert (kind == x["kind"]).float().mean() > 0.8, source  # by chance: a third


def test_nineteen_decoders_run_on_the_rows_that_score_them():
    """Two times the batch and once more for each drawn subset that has the modality, where one
    pass for each term would take 23 times the batch."""
    model, x = nineteen(n_random_subsets=3), nineteen_related(7)
    rows = {}
    for name, modality in model.items():
        modality.decoder.register_forward_pre_hook(
            lambda module, args, name=name: rows.setdefault(name, []).append(len(args[0]))
        )
        modality.encoder.register_forward_pre_hook(
            lambda module, args, name=name: rows.setdefault(name, []).append(len(args[0]))
        )
    terms = model(x).terms
    assert len(terms.subsets) == 1 + 19 + 3
    scored = terms.subsets.sum(0)
    for name, count in zip(model.modalities, scored.tolist(), strict=True):
        assert rows[name] == [7, 7 * count], name
