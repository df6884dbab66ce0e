"""A compiled loss is one graph, and its values and gradients are those of eager code."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from mvae_fast.vae import MVAE, attributes_modality, cnf_posterior
from mvae_fast.vae.compiled import harmless, places, places_of_terms
from tests.vae.models import D, bimodal, data, image, trimodal
from tests.vae.test_mvae import some_missing


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def cnf():
    return cnf_posterior(D, hidden=(7,), n_steps=2)


def double(x):
    return {name: v.double() if v.is_floating_point() else v for name, v in x.items()}


def loss_and_gradients(call, model, *arguments):
    model.zero_grad()
    torch.manual_seed(0)
    loss = call(*arguments)
    loss.backward()
    return [loss.detach(), *(p.grad for p in model.parameters())]


def assert_equal(model, eager, compiled, *arguments):
    # Sums over more rows, of which some are 0, round otherwise: 1e-15 times the longest sum.
    torch.testing.assert_close(
        loss_and_gradients(compiled, model, *arguments),
        loss_and_gradients(eager, model, *arguments),
        rtol=1e-12,
        atol=1e-12,
    )


@pytest.mark.parametrize("flow", [None, cnf], ids=["mvae", "mvae-cnf"])
@pytest.mark.slow
def test_the_loss_is_one_graph_for_all_sizes(flow):
    model = bimodal(flow and flow()).double()
    counter = CompileCounter()
    compiled = torch.compile(model.loss, fullgraph=True, dynamic=True, backend=counter)
    for rows in (7, 12):
        assert_equal(model, model.loss, compiled, double(data(rows)))
    assert counter.frame_count == 1


@pytest.mark.parametrize("flow", [None, cnf], ids=["mvae", "mvae-cnf"])
@pytest.mark.slow
def test_missing_data_are_in_the_same_graph(flow):
    # At the mean: with noise, the rows that count are given other numbers than all rows are.
    model = trimodal(flow and flow()).double()
    x, mask = some_missing()
    counter = CompileCounter()

    def loss(x, mask):
        return model(x, mask, at="mean").loss

    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    assert_equal(model, loss, compiled, double(x), mask)
    assert counter.frame_count == 1
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
def test_a_modality_may_be_left_out():
    model = bimodal().double()
    x = {"image": double(data(7))["image"], "label": None}

    def loss(x):
        return model(x, at="mean").loss

    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    assert_equal(model, loss, compiled, x)


@pytest.mark.slow
def test_batch_norm_sees_the_rows_that_are_there():
    torch.manual_seed(0)
    model = MVAE({"image": image(), "flags": attributes_modality(3, D, hidden=4)}, D).double()
    x = {"image": data(7)["image"].double(), "flags": torch.rand(7, 3).double()}
    mask = {"flags": torch.tensor([True, False, True, True, False, True, False])}

    def loss(x, mask=None):
        return model(x, mask, at="mean").loss

    compiled = torch.compile(loss, backend=CompileCounter())
    assert_equal(model, loss, compiled, x)
    assert_equal(model, loss, compiled, x, mask)


def test_what_compiled_code_is_made_of():
    x = torch.tensor([[1, 2], [3, -100]])
    assert harmless(x, torch.tensor([True, False])).tolist() == [[1, 2], [0, 0]]
    assert places(torch.tensor([True, False, True])).tolist() == [0, 2]
    subsets = [[True, True], [True, False], [False, True]]
    assert places_of_terms(subsets, 0, batch=2).tolist() == [0, 1, 2, 3]
    assert places_of_terms(torch.tensor(subsets), 0, batch=2).tolist() == [0, 1, 2, 3, 4, 5]
