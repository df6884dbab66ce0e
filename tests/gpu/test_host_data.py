"""Nothing of a solve comes from the host: such copies make it wait, and no CUDA graph takes them.

On the meta device, where no engine and no GPU is needed, and any read of a value raises.
"""

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from tests.gpu.flows import Step
from tests.gpu.places import Place
from tests.gpu.test_options import OPTIONS

META = Place("meta", "reference")


class NoHostData(TorchFunctionMode):
    """Raises where Python numbers become a tensor on a device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor):
            made = func(*args, **kwargs)
            given = args[1] if func is Tensor.new_tensor else args[0]
            assert made.device.type == "cpu" or isinstance(given, Tensor), f"{given} is copied"
            return made
        if func is Tensor.__getitem__:
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            assert not any(isinstance(part, list) for part in index), f"{index} is copied"
        return func(*args, **kwargs)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("option", OPTIONS)
def test_nothing_is_copied_from_the_host(option, residual):
    step = Step(META, **OPTIONS[option])
    base = step.flow.odefunc
    if residual and option != "second order":
        getattr(base, "odefunc", base).residual = True
    with NoHostData():
        assert all(result.device.type == "meta" for result in step())


def test_copies_are_noticed():
    on_device = torch.zeros(3, device="meta")
    with NoHostData():
        for copy in (
            lambda: torch.tensor((1.0, 2.0), device="meta"),
            lambda: on_device.new_tensor([1.0]),
            lambda: on_device[[0, 2]],
        ):
            with pytest.raises(AssertionError, match="is copied"):
                copy()
        assert torch.tensor(1.0).ndim == 0 and on_device[1:].shape == (2,)
