"""What users put into a net: wrappers, hooks, pruning, other activations. None may be skipped.

The oracle calls the net, module by module; an engine that reads weights past a wrapper differs.
"""

import copy
from types import MethodType

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils import weight_norm as old_weight_norm
from torch.utils.module_tracker import ModuleTracker

from mvae_fast import FastCNF, ODEfunc, ODEnet
from mvae_fast.flows import AmortizedCNF
from mvae_fast.nets.recognise import unreadable
from tests.oracles import LAYER_TYPES, distance, ffjord_euler, gradients, random_net

DIM, STEPS, END = 3, 4, 1.0


class LoRA(nn.Module):
    """As adapters are: the wrapped layer's attributes, and a product of low rank besides."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        self.a = nn.Parameter(torch.randn(2, base.in_features, dtype=base.weight.dtype))
        self.b = nn.Parameter(torch.randn(base.out_features, 2, dtype=base.weight.dtype))
        self.weight, self.bias = base.weight, base.bias

    def forward(self, x):
        return self.base(x) + x @ self.a.T @ self.b.T


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.name = getattr(inner, "name", None)
        self.scale = nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def forward(self, x):
        return self.inner(x) * self.scale


class Noise(nn.Module):
    """A parametrization that counts: it is another weight at every call."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, weight):
        self.calls += 1
        return weight * (1 + self.calls)


class Foreign(torch.Tensor):
    """As quantised and sharded weights are: what it is in a product, only its own code knows."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        out = super().__torch_function__(func, types, args, kwargs or {})
        return 3 * out.as_subclass(torch.Tensor) if func is nn.functional.linear else out


class FfjordSpectralNorm:
    """To the interface of FFJORD's: a pre-hook that divides by the norm of fixed vectors."""

    def __init__(self, module):
        weight = module._parameters.pop("weight")
        module.register_parameter("weight_orig", weight)
        module.register_buffer("weight", weight.data)
        module.register_buffer("weight_u", torch.randn(weight.shape[0], dtype=weight.dtype))
        module.register_buffer("weight_v", torch.randn(weight.shape[1], dtype=weight.dtype))
        module.register_forward_pre_hook(self)

    def __call__(self, module, inputs):
        sigma = module.weight_u @ (module.weight_orig @ module.weight_v)
        module.weight = module.weight_orig / sigma


def linear(net):
    return net.layers[0]._layer


def put(net, module):
    net.layers[0]._layer = module


def own_forward(net):
    def forward(self, x):
        return -nn.Linear.forward(self, x)

    linear(net).forward = MethodType(forward, linear(net))


def tensor_subclass(net):
    weight = linear(net).weight.detach()
    linear(net).weight = nn.Parameter(weight.as_subclass(Foreign), requires_grad=False)


def doubled(net):
    other = Doubled(linear(net).in_features, linear(net).out_features, dtype=torch.float64)
    put(net, other)


def scale_output(module, inputs, output):
    return 0.5 * output


def scale_input(module, inputs):
    return tuple(2 * x for x in inputs)


def scale_gradient(module, grad_input, grad_output):
    return tuple(None if g is None else 3 * g for g in grad_input)


def pruned(net):
    prune.l1_unstructured(linear(net), "weight", amount=0.4)
    prune.random_unstructured(linear(net), "bias", amount=2)


def custom_hook_beside_a_known_one(net):
    old_weight_norm(linear(net))
    linear(net).register_forward_pre_hook(scale_input)


# What is done to a squash net; the module that a refusal names, or None where engines may read on.
FIRST = r"odefunc\.diffeq\.layers\.0"
ALTERATIONS = {
    "LoRA": (lambda net: put(net, LoRA(linear(net))), rf"{FIRST}\._layer is LoRA, not Linear"),
    "subclass of Linear": (doubled, rf"{FIRST}\._layer is Doubled, not Linear"),
    "own forward": (own_forward, rf"{FIRST}\._layer has a forward of its own"),
    "no bias": (lambda net: setattr(linear(net), "bias", None), rf"{FIRST}\._layer has no bias"),
    "gate replaced": (
        lambda net: setattr(net.layers[1], "_hyper", nn.Linear(1, 1, dtype=torch.float64)),
        r"layers\.1\._hyper has a weight \(1, 1\), not \(3, 1\)",
    ),
    "tensor subclass": (tensor_subclass, rf"{FIRST}\._layer has a Foreign for a weight"),
    "hook of a linear": (
        lambda net: linear(net).register_forward_hook(scale_output),
        rf"{FIRST}\._layer has forward hooks",
    ),
    "pre-hook of a linear": (
        lambda net: linear(net).register_forward_pre_hook(scale_input),
        rf"{FIRST}\._layer has forward pre-hooks",
    ),
    "hook of a layer": (
        lambda net: net.layers[1].register_forward_hook(scale_output),
        r"odefunc\.diffeq\.layers\.1 has forward hooks",
    ),
    "hook of an activation": (
        lambda net: net.activation_fns[0].register_forward_hook(scale_output),
        r"odefunc\.diffeq\.activation_fns\.0 has forward hooks",
    ),
    "hook of the net": (
        lambda net: net.register_forward_hook(scale_output),
        r"odefunc\.diffeq has forward hooks",
    ),
    "backward hook": (
        lambda net: net.layers[0].register_full_backward_hook(scale_gradient),
        rf"{FIRST} has backward hooks",
    ),
    "backward pre-hook": (
        lambda net: linear(net).register_full_backward_pre_hook(lambda m, g: (2 * g[0],)),
        rf"{FIRST}\._layer has backward hooks",
    ),
    "other activation": (
        lambda net: net.activation_fns.__setitem__(0, nn.Sigmoid()),
        r"activation_fns\.0 is Sigmoid, not Pointwise",
    ),
    "wrapped activation": (
        lambda net: net.activation_fns.__setitem__(0, Wrapped(net.activation_fns[0])),
        r"activation_fns\.0 is Wrapped, not Pointwise",
    ),
    "activation of another net": (
        lambda net: net.activation_fns.__setitem__(
            0, random_net((5,), 3, "squash", "elu").activation_fns[0]
        ),
        r"activation_fns\.0 is elu, not tanh",
    ),
    "other nonlinearity by name": (
        lambda net: setattr(net, "nonlinearity", "elu"),
        r"activation_fns\.0 is tanh, not elu",
    ),
    "layer of another type": (
        lambda net: net.layers.__setitem__(1, random_net((5,), 3, "concat").layers[1]),
        r"odefunc\.diffeq\.layers\.1 is ConcatLinear, not SquashLinear",
    ),
    "one layer more": (
        lambda net: (
            net.layers.append(random_net((), 3, "squash").layers[0]),
            net.activation_fns.append(nn.Tanh()),
        ),
        r"odefunc\.diffeq has 3 layers, not the 2 it was built with",
    ),
    "own parametrization": (
        lambda net: parametrize.register_parametrization(linear(net), "weight", Noise()),
        rf"{FIRST}\._layer has the parametrization Noise",
    ),
    "spectral norm of FFJORD": (
        lambda net: FfjordSpectralNorm(linear(net)),
        rf"{FIRST}\._layer has forward pre-hooks",
    ),
    "own hook beside a known one": (
        custom_hook_beside_a_known_one,
        rf"{FIRST}\._layer has forward pre-hooks",
    ),
    "pruning": (pruned, None),
    "old weight_norm": (lambda net: old_weight_norm(linear(net)), None),
    "old spectral_norm": (
        lambda net: old_spectral_norm(linear(net)),
        rf"{FIRST}\._layer has forward pre-hooks",
    ),
    "weight_norm": (lambda net: parametrizations.weight_norm(linear(net)), None),
    "spectral_norm": (
        lambda net: parametrizations.spectral_norm(linear(net)),
        rf"{FIRST}\._layer has the parametrization _SpectralNorm",
    ),
    "orthogonal": (lambda net: parametrizations.orthogonal(linear(net)), None),
}
# Their weights change with every call in training, and with none in eval mode.
READABLE_IN_EVAL_MODE = {"old spectral_norm", "spectral_norm"}
PATHS = {
    "auto": {},
    "torchdiffeq": {"interp": "linear"},  # Without effect, but for torchdiffeq only.
}


def make(alteration=None, **settings):
    torch.manual_seed(0)
    net = random_net((5,), DIM, "squash", "tanh")
    if alteration is not None:
        ALTERATIONS[alteration][0](net)
    return FastCNF(ODEfunc(net, "brute_force"), END, n_steps=STEPS, **settings).double()


def states():
    torch.manual_seed(1)
    return torch.randn(4, DIM, dtype=torch.float64), torch.randn(4, 1, dtype=torch.float64)


def by_hand(net, z, logp):
    end = torch.tensor(END, dtype=torch.float64)
    z_t, change = ffjord_euler(net, z, end, STEPS)
    return z_t, logp + change.unsqueeze(1)


def moved(state):
    """Other weights under the same keys: a checkpoint."""
    return {k: v * 1.1 + 0.01 if v.is_floating_point() else v for k, v in state.items()}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "mode", ["train", *(pytest.param(mode, marks=pytest.mark.slow) for mode in ("eval", "loaded"))]
)
@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.slow
def test_what_is_inside_of_a_net_is_never_skipped(alteration, mode, path):
    flow = make(alteration)
    flow.solver_options.update(PATHS[path])
    flow.train(mode == "train")
    other = make(alteration).odefunc.diffeq.train(mode == "train")
    z, logp = states()
    for step in range(2):  # The second one meets weights that were moved behind the first.
        if mode == "loaded" or step:
            for net in (flow.odefunc.diffeq, other):
                net.load_state_dict(moved(net.state_dict()))
        # A net with calls that count needs a copy of its own.
        inputs = [p for p in flow.parameters() if p.requires_grad]
        others = [p for p in other.parameters() if p.requires_grad]
        expected, got = by_hand(other, z, logp), flow(z, logp)
        for a, b in zip(got, expected, strict=True):
            assert distance(a, b) < 1e-12
        assert len(inputs) == len(others)
        for a, b in zip(gradients(got, inputs), gradients(expected, others), strict=True):
            assert distance(a, b) < 1e-11


@pytest.mark.parametrize("alteration", ALTERATIONS)
@pytest.mark.slow
def test_a_named_engine_refuses_and_names_the_module(alteration, engine):
    z, logp = states()
    flow = make(alteration, engine=engine)
    message = ALTERATIONS[alteration][1]
    if message is None:
        expected = by_hand(make(alteration).odefunc.diffeq, z, logp)
        assert distance(flow(z, logp)[0], expected[0]) < 1e-12
    else:
        with pytest.raises(ValueError, match=rf"engine: '{engine}' integrates.*here.*{message}"):
            flow(z, logp)
        flow.engine = "auto"
        assert "engine=auto (torchdiffeq: odefunc.diffeq" in repr(flow)
    readable = message is None or alteration in READABLE_IN_EVAL_MODE
    assert flow.eval().fused == readable


def test_training_with_weight_hooks_goes_on():
    for alteration in ("pruning", "old weight_norm", "old spectral_norm"):
        flow = make(alteration)
        optimizer = torch.optim.SGD(flow.parameters(), lr=0.1)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            z_t, logp_t = flow(*states())
            loss = z_t.square().sum() - logp_t.sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert len(set(losses)) == 3, alteration


@pytest.mark.parametrize("kind", ["forward", "forward_pre", "full_backward", "full_backward_pre"])
def test_hooks_on_every_module(kind):
    called = []

    def hook(module, *args):
        called.append(type(module).__name__)

    register = getattr(nn.modules.module, f"register_module_{kind}_hook")
    flow = make()
    handle = register(hook)
    try:
        z, logp = states()
        sum(x.sum() for x in flow(z.requires_grad_(), logp)).backward()
        assert "every module has hooks" in repr(flow)
    finally:
        handle.remove()
    assert {"Linear", "SquashLinear", "Pointwise", "ODEnet"} <= set(called)
    assert flow.fused


def test_hooks_that_only_look_on():
    """FlopCounterMode counts the engine's products, and not those of another path."""
    flow = make()
    z, logp = states()
    expected = flow(z, logp)
    with ModuleTracker() as tracker:
        assert flow.fused and tracker.parents == {"Global"}
        for a, b in zip(flow(z, logp), expected, strict=True):
            assert torch.equal(a, b)
        with nn.modules.module.register_module_forward_hook(lambda *call: None):
            assert not flow.fused

    class Stricter(ModuleTracker):
        pass

    with Stricter():
        assert not flow.fused


@pytest.mark.parametrize("kind", [nn.Linear, ODEnet])
def test_a_class_that_was_patched(kind, monkeypatch):
    forward = kind.forward
    monkeypatch.setattr(kind, "forward", lambda self, *args: 2 * forward(self, *args))
    flow = make()
    z, logp = states()
    expected = by_hand(flow.odefunc.diffeq, z, logp)
    for a, b in zip(flow(z, logp), expected, strict=True):
        assert distance(a, b) < 1e-12
    assert not flow.fused


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_a_hook_inside_of_every_layer_type(layer_type):
    net = random_net((5, 4), DIM, layer_type, "swish")
    assert unreadable(net) is None
    places = [name for name, module in net.named_modules() if name and "layers" != name]
    for place in places:
        if place == "activation_fns":
            continue
        handle = net.get_submodule(place).register_forward_hook(scale_output)
        assert unreadable(net) == f"net.{place} has forward hooks"
        handle.remove()
    assert unreadable(net) is None


@pytest.mark.parametrize("index", [0, 1, 2])
def test_a_hypernetwork_that_was_changed(index):
    net = random_net((5,), DIM, "hyper")
    net.layers[0]._hypernet[index] = nn.Sequential(net.layers[0]._hypernet[index], nn.Identity())
    assert "_hypernet" in unreadable(net)
    net = random_net((5,), DIM, "hyper")
    net.layers[1]._hypernet.append(nn.Identity())
    assert unreadable(net) == "net.layers.1._hypernet has 4 modules, not 3"


def test_an_activation_that_is_missing():
    net = random_net((5, 4), DIM)
    del net.activation_fns[1]
    assert unreadable(net) == "net has 1 activation_fns, not 2"
    with pytest.raises(IndexError):  # of the net's own call
        FastCNF(ODEfunc(net)).double()(states()[0])


def test_subclasses_of_the_net():
    class Overridden(ODEnet):
        def forward(self, t, y):
            return -super().forward(t, y)

    class Called(ODEnet):
        def __call__(self, t, y):
            return -super().__call__(t, y)

    class Kept(ODEnet):
        pass

    assert unreadable(Kept((4,), (2,))) is None
    assert unreadable(Overridden((4,), (2,))) == "net has a forward of its own"
    assert unreadable(Called((4,), (2,))) == "net has a __call__ of its own"
    assert unreadable(nn.Linear(2, 2)) == "net is Linear, not ODEnet"
    told = "net is Sequential, not ODEnet (FastCNF.from_module reads one of linear layers)"
    assert unreadable(nn.Sequential(nn.Linear(2, 2))) == told
    other = type("ODEnet", (nn.Module,), {"__module__": "lib.layers"})()
    assert unreadable(other) == "net is lib.layers.ODEnet, not mvae_fast.nets.odenet.ODEnet"


def test_an_amortised_flow_refuses_what_it_cannot_call():
    flow = AmortizedCNF(DIM, 2, (5,))
    net = next(module for module in flow.modules() if isinstance(module, ODEnet))
    net.layers[0]._layer.register_forward_hook(scale_output)
    with pytest.raises(ValueError, match=r"net: net\.layers\.0\._layer has forward hooks; an amor"):
        flow(torch.zeros(4, DIM), torch.zeros(4, 1), cond=torch.zeros(4, 2))


def test_a_sharded_inner_layer_is_called(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        flow = make()
        z, logp = states()
        expected = by_hand(make().odefunc.diffeq, z, logp)
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        fully_shard(flow.odefunc.diffeq.layers[0], mesh=mesh)
        for a, b in zip(flow(z, logp), expected, strict=True):
            assert distance(a, b) < 1e-12
        assert "FSDPSquashLinear" in repr(flow)
    finally:
        del flow
        dist.destroy_process_group()


def test_velocity_that_hides_its_graph_has_no_trace():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = ODEnet((4,), (DIM,))

        def forward(self, t, y):
            with torch.no_grad():
                return self.net(t, y)

    flow = FastCNF(ODEfunc(Hidden(), "brute_force"))
    z = torch.zeros(2, DIM)
    assert flow(z).shape == z.shape
    with pytest.raises(RuntimeError, match="diffeq: Hidden depends on the state, but autograd"):
        flow(z, torch.zeros(2, 1))


def test_quantised_layers_are_called():
    # Without time: these layers take no input of one axis.
    flow = FastCNF(ODEfunc(ODEnet((5,), (DIM,), layer_type="ignore")), END, n_steps=STEPS)
    quantised = torch.ao.quantization.quantize_dynamic(copy.deepcopy(flow.odefunc.diffeq))
    flow.odefunc.diffeq = quantised
    z, logp = (x.float() for x in states())
    h, expected = END / STEPS, z
    for s in range(STEPS):
        expected = expected + h * quantised(torch.tensor(h * s), expected)
    torch.testing.assert_close(flow(z), expected)
    with pytest.raises(RuntimeError, match="diffeq: ODEnet depends on the state, but autograd"):
        flow(z, logp)
