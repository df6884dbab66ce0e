"""Two processes, half a batch each, have the gradients of one process with the whole batch."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from tests.vae.models import AffineFlow, bimodal, data

# The second process gets no label at all, and still must give gradients to the networks of labels.
MASK = {"label": torch.tensor([True, True, False, False, False, False])}


def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = DistributedDataParallel(bimodal(AffineFlow()))
    half = slice(3 * rank, 3 * rank + 3)
    x = {name: value[half] for name, value in data(6).items()}
    for _ in range(2):  # a second step hangs or fails if the first left a gradient behind
        model.zero_grad()
        model(x, {"label": MASK["label"][half]}, at="mean").loss.backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{folder}/gradients.pt")
    dist.barrier()  # a process that leaves first may keep the other waiting for ever
    dist.destroy_process_group()


def test_gradients_equal_those_of_one_process(tmp_path):
    mp.spawn(work, (str(tmp_path),), nprocs=2)
    model = bimodal(AffineFlow())
    model(data(6), MASK, at="mean").loss.backward()
    gradients = torch.load(tmp_path / "gradients.pt", weights_only=True)
    for got, p in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(got, p.grad, rtol=1e-5, atol=1e-6)
