"""Two processes, half a batch each, have the gradients of one process with the whole batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mvae_fast.vae import cnf_posterior
from tests.vae.models import AffineFlow, D, bimodal, data

# The second process gets no label at all, and still must give gradients to the networks of labels,
# whether a mask says so or its data lack them.
MASK = {"label": torch.tensor([True, True, False, False, False, False])}


def affine():
    return AffineFlow()


def cnf():
    torch.manual_seed(0)
    return cnf_posterior(D, hidden=(7,), n_steps=2)


def work(rank, folder, make_flow):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = DistributedDataParallel(bimodal(make_flow()))
    half = slice(3 * rank, 3 * rank + 3)
    x = {name: value[half] for name, value in data(6).items()}
    mask = {"label": MASK["label"][half]}
    left_out = x if mask["label"].any() else {"image": x["image"]}
    for given in (left_out, x):  # a second step hangs or fails if the first left a gradient behind
        model.zero_grad()
        model(given, mask, at="mean").loss.backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{folder}/gradients.pt")
    # Freed with the process group already destroyed, it would end the group's threads while holding
    # Python's lock, which one of them may wait for: one run in twenty hung.
    del model
    dist.barrier()  # a process that leaves first may keep the other waiting for ever
    dist.destroy_process_group()


@pytest.mark.parametrize("make_flow", [affine, cnf])
@pytest.mark.slow
def test_gradients_equal_those_of_one_process(tmp_path, make_flow):
    mp.spawn(work, (str(tmp_path), make_flow), nprocs=2)
    model = bimodal(make_flow())
    model(data(6), MASK, at="mean").loss.backward()
    gradients = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for got, p in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad, rtol=1e-5, atol=1e-6)
