"""Users' own modules, read or called: what they do themselves, by autograd through their calls."""

import copy
import dataclasses
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.nets.declared import Declared
from tests.oracles import distance, ffjord_euler, gradients

DIM, STEPS = 3, 4


class Cfm(nn.Module):
    """As torchcfm's MLP: state and time in one tensor."""

    def __init__(self, dim=DIM, w=16):
        super().__init__()
        self.time_varying = True
        widths = (dim + 1, w, w, w, dim)
        self.net = nn.Sequential(*mlp(widths, nn.SELU))

    def forward(self, x):
        return self.net(x)


class Swish(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x) * x


class Matching(nn.Module):
    """As the MLP of flow_matching's examples: the time is reshaped and repeated."""

    def __init__(self, dim=DIM, w=16, activation=Swish, rounds=False):
        super().__init__()
        self.input_dim, self.rounds = dim, rounds
        self.main = nn.Sequential(*mlp((dim + 1, w, w, dim), activation))

    def forward(self, x, t):
        size = x.size()
        x = x.reshape(-1, self.input_dim)
        t = t.reshape(-1, 1).float() if self.rounds else t.reshape(-1, 1)
        t = t.expand(x.shape[0], 1)
        return self.main(torch.cat([x, t], dim=1)).reshape(*size)


class First(nn.Module):
    def __init__(self, activation=nn.Tanh):
        super().__init__()
        self.layers = nn.Sequential(*mlp((DIM + 1, 9, DIM), activation))

    def forward(self, t, x):
        return self.layers(torch.cat([t.expand(len(x), 1), x], 1))


class Batched(First):
    """Takes a time for each row."""

    def forward(self, t, x):
        return self.layers(torch.cat([t[:, None], x], 1))


class Columns(First):
    """Takes a column of times."""

    def forward(self, t, x):
        return self.layers(torch.cat([t, x], 1))


class Still(First):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(*mlp((DIM, 9, 8, DIM), nn.Softplus))

    def forward(self, t, x):
        return self.layers(x)


def mlp(widths, activation, **options):
    layers = []
    for m_in, m_out in zip(widths[:-1], widths[1:], strict=True):
        layers += [nn.Linear(m_in, m_out, **options), activation()]
    return layers[:-1]


CONVENTIONS = {
    "torchcfm": (Cfm, {"call": "f(cat)"}),
    "flow_matching": (Matching, {"call": "f(x, t)"}),
    "time first": (First, {"time": "first"}),
    "time of rows": (Batched, {"time": "first"}),
    "times in a column": (Columns, {"time": "first", "net": "layers"}),
    "no time": (Still, {"time": "none"}),
    "Sequential": (lambda: nn.Sequential(*mlp((DIM + 1, 7, DIM), nn.GELU)), {}),
    "Sequential, no time": (lambda: nn.Sequential(nn.Linear(DIM, DIM)), {"time": "none"}),
    "Sequential, time first": (
        lambda: nn.Sequential(*mlp((DIM + 1, 7, 5, DIM), nn.ReLU)),
        {"time": "first"},
    ),
}


def called(module, call="f(t, x)", time="last", net=None):
    """The module's own call, as a velocity f(t, x): knows of no layers."""
    rows = isinstance(module, Batched | Columns)

    def velocity(t, x):
        t = t.to(x.dtype)
        if isinstance(module, nn.Sequential) or call == "f(cat)":
            column = t.expand(len(x), 1)
            parts = {"last": (x, column), "first": (column, x), "none": (x,)}[time]
            return module(torch.cat(parts, 1))
        if rows:
            t = t.expand(len(x), 1) if isinstance(module, Columns) else t.expand(len(x))
        return module(t, x) if call == "f(t, x)" else module(x, t)

    return velocity


def states(rows=5, dtype=torch.float64):
    torch.manual_seed(1)
    z = torch.randn(rows, DIM, dtype=dtype, requires_grad=True)
    return z, torch.randn(rows, 1, dtype=dtype)


def flow_of(module, how=None, **settings):
    settings = {"n_steps": STEPS, "T": 0.8, "train_T": True, **settings}
    return FastCNF.from_module(module, **(how or {}), **settings)


def assert_same(flow, velocity, tolerance=1e-10):
    """Values and gradients of a solve against autograd through the module, by hand."""
    z, logp = states()
    end = flow.sqrt_end_time
    oracle = ffjord_euler(velocity, z, end.square(), STEPS)
    expected = oracle[0], logp + oracle[1].unsqueeze(1)
    got = flow(z, logp)
    leaves = [z, *(p for p in flow.parameters() if p.requires_grad)]
    for ours, theirs in zip(
        [*got, *gradients(got, leaves)], [*expected, *gradients(expected, leaves)], strict=True
    ):
        assert distance(ours, theirs) < tolerance


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_declared_module_is_read_and_is_itself(name):
    make, how = CONVENTIONS[name]
    module = make().double()
    flow = flow_of(module, how)
    assert flow.fused, repr(flow)
    assert {id(p) for p in module.parameters()} < {id(p) for p in flow.parameters()}
    assert_same(flow, called(module, **how))


@pytest.mark.parametrize("name", CONVENTIONS)
def test_a_declared_module_in_float32(name):
    make, how = CONVENTIONS[name]
    module = make()
    flow = flow_of(module, how)
    assert flow.fused
    z, logp = states(dtype=torch.float32)
    got = flow(z, logp)
    oracle = ffjord_euler(
        called(copy.deepcopy(module).double(), **how),
        z.double(),
        flow.sqrt_end_time.double().square(),
        STEPS,
    )
    assert distance(got[0], oracle[0]) < 1e-5
    assert distance(got[1], logp.double() + oracle[1].unsqueeze(1)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_four_layers_of_512(dtype):
    module = Matching(w=512, activation=nn.SiLU).to(dtype)
    module.main.insert(2, nn.Linear(512, 512, dtype=dtype))
    module.main.insert(3, nn.SiLU())
    flow = flow_of(module, {"call": "f(x, t)"}, n_steps=2)
    assert flow.fused
    z, logp = (x.detach().to(dtype) for x in states())
    wide = called(copy.deepcopy(module).double(), "f(x, t)")
    oracle = ffjord_euler(wide, z.double(), flow.sqrt_end_time.double().square(), 2)
    got = flow(z, logp)[1] - logp
    assert distance(got[:, 0], oracle[1]) < (1e-5 if dtype == torch.float32 else 1e-10)


ACTIVATIONS = {
    "tanh": nn.Tanh,
    "relu": lambda: nn.ReLU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "celu": nn.CELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU("tanh"),
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
    "leaky_relu": nn.LeakyReLU,
    "own": Swish,
    "none": nn.Identity,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name, engine):
    module = nn.Sequential(*mlp((DIM + 1, 8, 7, DIM), ACTIVATIONS[name])).double()
    flow = flow_of(module, {"net": None}, engine=engine)
    assert flow.fused
    assert_same(flow, called(module))


class Square(nn.Module):
    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def forward(self, x):
        return x**self.power


def replaced(index, module):
    def change(net):
        net.net[index] = module

    return change


def prune_it(net):
    prune.l1_unstructured(net.net[0], "weight", amount=0.4)


def own_forward(net):
    net.forward = lambda x: 2 * type(net).forward(net, x)


def tied(net):
    net.net[4].weight = net.net[2].weight


def transposed(net):
    net.net[4].weight = nn.Parameter(net.net[2].weight.detach().T)


def no_bias(net):
    for linear in net.net[::2]:
        linear.bias = None


def freeze(net):
    net.net[0].weight.requires_grad_(False)
    net.net[2].bias.requires_grad_(False)


def scale(module, inputs, output):
    return 0.5 * output


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Backwards(nn.Sequential):
    def __iter__(self):
        return iter([*self._modules.values()][::-1])


class Negative(nn.Sequential):
    def forward(self, x):
        return -super().forward(x)


class Times(nn.Module):
    def forward(self, weight):
        return 3 * weight


# What is done to torchcfm's MLP; None where it is read on, or a part of the reason.
CHANGES = {
    "nested": (
        lambda net: setattr(net, "net", nn.Sequential(nn.Sequential(*net.net[:3]), *net.net[3:])),
        None,
    ),
    "identity": (replaced(0, nn.Sequential(nn.Identity(), nn.Linear(DIM + 1, 16))), None),
    "dropout of nothing": (lambda net: net.net.insert(2, nn.Dropout(0.0)), None),
    "no bias": (no_bias, None),
    "tied": (tied, None),
    "transposed": (transposed, None),
    "frozen": (freeze, None),
    "weight_norm": (lambda net: parametrizations.weight_norm(net.net[2]), None),
    "another weight": (replaced(2, nn.Linear(16, 16)), None),
    "pruned": (prune_it, None),
    "all activations": (
        lambda net: [replaced(i, nn.Tanh())(net) for i in (1, 3, 5)],
        None,
    ),
    "other sizes": (replaced(2, nn.Linear(16, 16, bias=False)), None),
    "batch norm": (replaced(3, nn.BatchNorm1d(16)), "net.3 is BatchNorm1d"),
    "layer norm": (replaced(3, nn.LayerNorm(16)), "net.3 is LayerNorm"),
    "another activation": (replaced(3, nn.Tanh()), "several kinds of activations: selu, tanh"),
    "activation with an argument": (replaced(1, nn.ELU(0.5)), "net.1 is ELU"),
    "slope": (replaced(1, nn.LeakyReLU(0.2)), "net.1 is LeakyReLU"),
    "sharp softplus": (replaced(1, nn.Softplus(3.0)), "net.1 is Softplus"),
    "unknown activation": (replaced(1, nn.Mish()), "net.1 is Mish"),
    "two activations": (replaced(1, nn.Sequential(nn.SELU(), nn.SELU())), "another activation"),
    "last activation": (lambda net: net.net.append(nn.SELU()), "does not end with a linear layer"),
    "first activation": (lambda net: net.net.insert(0, nn.SELU()), "before any linear layer"),
    "subclass": (replaced(2, Doubled(16, 16)), "net.2 is Doubled, not Linear"),
    "order": (
        lambda net: setattr(net, "net", Backwards(*[*net.net][::-1])),
        "net has an __iter__ of its own",
    ),
    "sequential's forward": (
        lambda net: setattr(net, "net", Negative(*net.net)),
        "net has a forward of its own",
    ),
    "own parametrization": (
        lambda net: parametrize.register_parametrization(net.net[2], "weight", Times()),
        "net.2 has the parametrization Times",
    ),
    "hook of a layer": (lambda net: net.net[2].register_forward_hook(scale), "net.2 has forward"),
    "hook of an activation": (lambda net: net.net[1].register_forward_hook(scale), "net.1 has"),
    "hook of the net": (lambda net: net.net.register_forward_hook(scale), "net has forward hooks"),
    "hook of the module": (lambda net: net.register_forward_hook(scale), " has forward hook"),
    "own forward": (own_forward, " has a forward of its own"),
    "own forward of a layer": (
        lambda net: setattr(net.net[0], "forward", lambda x: x[:, :1].expand(-1, 16)),
        "net.0 has a forward of its own",
    ),
    "attribute": (lambda net: setattr(net, "gain", 2.0), "other attributes"),
    "child": (lambda net: setattr(net, "more", nn.Linear(1, 1)), "other attributes"),
    "no sequential": (
        lambda net: setattr(net, "net", nn.Linear(DIM + 1, DIM)),
        "net is Linear, not Sequential",
    ),
}


#: Where the comparison sees that they are without effect, or that there is nothing to compare.
ONLY_LATER = ("no sequential", "attribute", "child")


@pytest.mark.parametrize(
    ("change", "when"),
    [(x, w) for x in CHANGES for w in ("before", "after") if w == "after" or x not in ONLY_LATER],
)
def test_changes_are_read_or_called(change, when):
    apply, reason = CHANGES[change]
    module = Cfm()
    if when == "before":
        apply(module)
    module.double()
    flow = flow_of(module, {"call": "f(cat)"}, n_steps=STEPS)
    if when == "after":
        assert flow.fused
        apply(module)
        module.double()
    pruned_before = change == "pruned" and when == "before"
    assert flow.fused == (reason is None and not pruned_before), repr(flow)
    if pruned_before:
        assert "no copy of it" in repr(flow)
    elif reason is not None:
        assert reason in repr(flow)
        with pytest.raises(ValueError, match="engine: 'reference' integrates"):
            flow(*states(), settings=dataclasses.replace(flow.settings, engine="reference"))
    assert_same(flow, called(module, "f(cat)"))


def test_dropout_is_read_in_eval_mode_only():
    module = Matching(activation=lambda: nn.Sequential(nn.Tanh(), nn.Dropout(0.5))).double()
    flow = flow_of(module, {"call": "f(x, t)"})
    assert not flow.fused and "main.1.1 is Dropout in training" in repr(flow)
    flow.eval()
    assert flow.fused
    assert_same(flow, called(module, "f(x, t)"))


def test_an_own_activation_that_is_changed():
    module = Matching(activation=Square).double()
    flow = flow_of(module, {"call": "f(x, t)"})
    assert flow.fused
    assert_same(flow, called(module, "f(x, t)"), 1e-9)
    module.main[1].power = 3
    assert not flow.fused and "main.1 has other attributes" in repr(flow)
    assert_same(flow, called(module, "f(x, t)"), 1e-9)
    module.main[1] = Square()
    assert flow.fused


def test_a_lazy_layer_is_called_until_it_is_declared_with_its_sizes():
    layers = [nn.LazyLinear(8), nn.Tanh(), nn.Linear(8, DIM)]
    module = nn.Sequential(*layers)
    flow = flow_of(module)
    assert "LazyLinear, not Linear" in repr(flow)
    module(torch.zeros(1, DIM + 1))
    flow.double()
    assert not flow.fused and "when it was declared" in repr(flow)
    assert_same(flow, called(module))
    assert flow_of(module).fused


class Scaled(Cfm):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return self.net(x) * self.scale


class Centred(Cfm):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        return self.net(x) - self.mean


class Skipping(Cfm):
    def __init__(self):
        super().__init__()
        self.skip = nn.Dropout(0.0)

    def forward(self, x):
        return self.skip(self.net(x))


class Counting(Cfm):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.net(x)


class Dropping(Cfm):
    def forward(self, x):
        return nn.functional.dropout(self.net(x), 0.5, self.training)


class Opaque(Cfm):
    def __init__(self):
        super().__init__()
        self.mean = torch.zeros(())

    def forward(self, x):
        return self.net(x) - self.mean.to(x)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (Scaled, "depends on scale"),
        (Centred, "has the buffer mean"),
        (Skipping, "calls skip"),
        (Counting, "changes itself"),
        (Opaque, "the attribute mean, of type Tensor"),
    ],
)
def test_what_a_declaration_does_not_say_is_called(make, reason):
    module = make().double()
    flow = flow_of(module, {"call": "f(cat)", "net": "net"})
    assert not flow.fused and reason in repr(flow)
    assert_same(flow, called(module, "f(cat)"))


def test_what_is_not_used_is_not_in_the_way():
    module = Cfm()
    module.other = nn.Linear(2, 2)
    assert not flow_of(module, {"call": "f(cat)"}).fused
    assert "remedy: net=" in repr(flow_of(module, {"call": "f(cat)"}))
    flow = flow_of(module.double(), {"call": "f(cat)", "net": "net"})
    assert flow.fused
    z, logp = states()
    assert torch.isfinite(flow(z, logp)[1]).all()


def test_functional_dropout_is_read_in_eval_mode_only():
    module = Dropping().double()
    flow = flow_of(module, {"call": "f(cat)"})
    assert not flow.fused and "not as declared in training" in repr(flow)
    flow.eval()
    assert flow.fused
    assert_same(flow, called(module, "f(cat)"))


def test_times_that_are_rounded():
    module = Matching(rounds=True)
    flow = flow_of(module, {"call": "f(x, t)"})
    assert flow.fused
    flow.double()
    assert not flow.fused and "in this dtype" in repr(flow)
    assert_same(flow, called(module, "f(x, t)"), 1e-7)  # autograd rounds the gradient of the end


class Detached(Matching):
    def forward(self, x, t):
        return super().forward(x.detach() + 0 * x, t)


class Late(Matching):
    def forward(self, x, t):
        return super().forward(x, 1 - t)


@pytest.mark.parametrize(
    ("make", "how", "message"),
    [
        (Matching, {"call": "f(x, t)", "time": "first"}, r"not main\(cat\(t, x\)\), but main\(ca"),
        (First, {}, r"is not layers\(cat\(x, t\)\), but layers\(cat\(t, x\)\): it differs by"),
        (Matching, {"call": "f(t, x)"}, "called as f\\(t, x\\), "),
        (Cfm, {"call": "f(t, x)"}, "called as f\\(t, x\\), raises TypeError"),
        (Cfm, {"call": "f(cat)", "time": "none"}, "maps 4 inputs to 3, but time='none' expects as"),
        (Still, {}, "maps 3 inputs to 3, but time='last' expects one input more"),
        (Late, {"call": "f(x, t)"}, r"is not main\(cat\(x, t\)\): it differs by"),
        (Detached, {"call": "f(x, t)"}, r"its gradient of x differs"),
        (Cfm, {"call": "f(x)"}, r"call: got 'f\(x\)', expected one of 'f\(t, x\)'"),
        (Cfm, {"time": "both"}, "time: got 'both', expected one of 'first'"),
        (Cfm, {"net": "main"}, "net: got 'main', .* the children of Cfm are: net"),
    ],
)
def test_a_wrong_declaration_is_refused(make, how, message):
    with pytest.raises(ValueError, match=message):
        flow_of(make(), how)


def test_zero_weights_do_not_hide_what_differs():
    module = First()
    nn.init.zeros_(module.layers[-1].weight)
    nn.init.zeros_(module.layers[-1].bias)
    with pytest.raises(ValueError, match="but layers"):
        flow_of(module)
    assert flow_of(module, {"time": "first"}).fused


def test_a_declaration_leaves_the_module_and_the_generators_alone():
    module = Matching().eval()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    state = torch.random.get_rng_state()
    Declared(module, "f(x, t)")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module.training
    assert all(torch.equal(x, before[name]) for name, x in module.state_dict().items())
    assert not any(part._forward_pre_hooks for part in module.modules())


def test_copies_and_files():
    module = First()
    flow = flow_of(module, {"time": "first"})
    z, logp = states(dtype=torch.float32)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow))):
        assert other.fused
        assert torch.equal(other(z, logp)[1], flow(z, logp)[1])
        other.odefunc.diffeq.module.layers.register_forward_hook(scale)
        assert not other.fused and flow.fused
    names = set(module.state_dict())
    assert {f"odefunc.diffeq.module.{name}" for name in names} < set(flow.state_dict())


def test_a_trained_module_is_the_users():
    module = First().double()
    flow = flow_of(module, {"time": "first"}, train_T=False)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    before = module.layers[0].weight.detach().clone()
    z, logp = states()
    flow(z, logp)[1].sum().backward()
    optimizer.step()
    assert not torch.equal(module.layers[0].weight, before)
    assert_same(flow, called(module, time="first"))


def test_torchdiffeq_and_odefunc_take_it_too():
    module = First().double()
    flow = FastCNF(ODEfunc(Declared(module, time="first"), "brute_force"), n_steps=STEPS).double()
    assert flow.fused
    flow.solver_options = {"interp": "linear"}  # for torchdiffeq only, without effect
    assert not flow.fused
    assert_same(flow, called(module))


def test_compiled():
    module = Cfm()
    flow = flow_of(module, {"call": "f(cat)"}, train_T=False)
    z, logp = states(dtype=torch.float32)
    expected = flow(z, logp)
    got = torch.compile(flow, fullgraph=True, backend="aot_eager")(z, logp)
    torch.testing.assert_close(got, expected)
    module.gain = 2.0
    assert not flow.fused


def test_functional_call():
    module = First().double()
    flow = flow_of(module, {"time": "first"})
    z, logp = states()
    tensors = {name: 1.1 * x.detach() for name, x in flow.named_parameters()}
    got = torch.func.functional_call(flow, tensors, (z, logp))
    other = copy.deepcopy(flow)
    other.load_state_dict(tensors, strict=False)
    torch.testing.assert_close(got, other(z, logp))


class Wrapper(nn.Module):
    """As libraries wrap a model to give it another calling convention."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, t, x):
        return self.model(x, t)


def test_a_sequential_further_inside():
    module = Wrapper(Matching()).double()
    assert "no only child" in repr(flow_of(module))
    flow = flow_of(module, {"net": "model.main"})
    assert flow.fused
    assert_same(flow, called(module))
    module.model.register_forward_hook(scale)
    assert not flow.fused
    assert_same(flow, called(module))


def test_a_module_that_is_replaced():
    flow = flow_of(Matching(), {"call": "f(x, t)"})
    flow.odefunc.diffeq.module = Matching()
    assert flow.fused
    flow.odefunc.diffeq.module = nn.Bilinear(DIM, 1, DIM)
    assert not flow.fused and "module.main is NoneType" in repr(flow)


def test_the_meta_device():
    with torch.device("meta"):
        module = Matching(activation=nn.SiLU)
    flow = flow_of(module, {"call": "f(x, t)"})
    assert not flow.fused and "no copy of it" in repr(flow)
    assert flow.sqrt_end_time.is_meta


@pytest.mark.parametrize("train_T", [False, True])
def test_the_flow_has_the_dtype_of_the_module(train_T):
    flow = flow_of(Matching().double(), {"call": "f(x, t)"}, train_T=train_T)
    assert flow.sqrt_end_time.dtype == torch.float64
    assert ("sqrt_end_time" in dict(flow.named_parameters())) == train_T


@pytest.mark.slow
def test_exported():
    flow = flow_of(Matching(activation=nn.SiLU), {"call": "f(x, t)"}, train_T=False).eval()
    rows = torch.export.Dim("rows", min=2)
    z, logp = (x.detach() for x in states(dtype=torch.float32))
    shapes = {"z": {0: rows}, "logpz": {0: rows}}
    program = torch.export.export(flow, (z, logp), dynamic_shapes=shapes)
    torch.testing.assert_close(program.module()(z[:2], logp[:2]), flow(z[:2], logp[:2]))
