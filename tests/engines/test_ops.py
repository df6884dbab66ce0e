"""The ops as PyTorch sees them: opcheck, torch.func, forward-mode AD, torch.compile."""

import copy
import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mvae_fast import FastCNF, ODEfunc
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.core.tables import build_tables
from mvae_fast.core.trace import second_order_table, trace_table
from mvae_fast.engines import cpp as ops
from mvae_fast.engines import table_ops
from tests.oracles import LAYER_TYPES, random_net

needs_cpp = pytest.mark.skipif(ops.why_missing() is not None, reason="needs the C++ engine")


def op_arguments(
    shape,
    trace,
    layer_type="squash",
    requires_grad=False,
    steps=3,
    method="euler",
    second=False,
    checkpoint_every=1,
    penalties=0,
    operands=0,
):
    batch, dim, hidden = shape
    net = random_net(hidden, dim, layer_type, "tanh", torch.float32)
    with torch.no_grad():
        tableau = TABLEAUS[method]
        tables = build_tables(net, torch.linspace(0, 1, steps * len(tableau.b)))
        table = trace_table(tables) if trace == "exact" else None
    probes = torch.randn(2, batch, dim) if trace == "hutchinson" else None
    tensors = [
        torch.randn(batch, dim),
        torch.full((steps,), 0.1),
        tables.weight,
        tables.gate,
        tables.bias,
        table,
        second_order_table(tables) if second else None,
    ]
    tensors = [None if x is None else x.requires_grad_(requires_grad) for x in tensors]
    net_as_op = list(tables.widths), table_ops.nonlinearity_number(tables.nonlinearity), False
    method = list(tableau.a), list(tableau.b), [1, steps], checkpoint_every, penalties, operands
    return (*tensors, probes, *net_as_op, *method)


@needs_cpp
@pytest.mark.parametrize("shape", [(5, 3, (7,)), (1, 1, (1,)), (33, 17, (3, 5)), (3, 2, (3, 4, 5))])
@pytest.mark.parametrize("trace", ["none", "exact", "hutchinson"])
@pytest.mark.parametrize("requires_grad", [False, True])
def test_opcheck(shape, trace, requires_grad):
    layer_type = "concat" if trace == "none" else "blend" if trace == "hutchinson" else "squash"
    check_op(op_arguments(shape, trace, layer_type, requires_grad), requires_grad)


@needs_cpp
@pytest.mark.parametrize("requires_grad", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "rk4"},
        {"second": True},
        {"steps": 7, "checkpoint_every": 2},
        {"penalties": 7},
        {"trace": "hutchinson", "penalties": 10},
        {"operands": 1},
    ],
)
def test_opcheck_of_options(options, requires_grad):
    options = {"trace": "exact", "requires_grad": requires_grad, **options}
    check_op(op_arguments((5, 3, (7,)), **options), requires_grad)


def check_op(arguments, requires_grad):
    integrate = torch.ops.mvae_fast.integrate.default
    for save in (False, True) if not requires_grad else (True,):
        torch.library.opcheck(integrate, (*arguments, save))
    plain = [x.detach() if isinstance(x, torch.Tensor) else x for x in arguments]
    *results, states = integrate(*plain, True)
    z, *rest = arguments
    for table_grads in (False, True):
        torch.library.opcheck(
            torch.ops.mvae_fast.integrate_backward.default,
            (*map(torch.ones_like, results), z, states, *rest, table_grads),
            # Its backward refuses by design: only what does not differentiate it applies.
            test_utils=("test_schema", "test_faketensor")
            if requires_grad
            else ("test_schema", "test_autograd_registration", "test_faketensor"),
        )


@needs_cpp
def test_op_refuses_double_backward():
    arguments = op_arguments((5, 3, (7,)), "exact", requires_grad=True)
    z_out, *_ = torch.ops.mvae_fast.integrate.default(*arguments, True)
    (first,) = torch.autograd.grad(z_out.sum(), arguments[0], create_graph=True)
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        first.sum().backward()
    results = torch.ops.mvae_fast.integrate.default(*arguments, True)
    *results, states = (x.detach() for x in results)
    gradients = torch.ops.mvae_fast.integrate_backward.default(
        *results, arguments[0], states, *arguments[1:], True
    )
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        gradients[0].sum().backward()


@needs_cpp
def test_op_needs_saved_states_for_backward():
    arguments = op_arguments((5, 3, (7,)), "exact", requires_grad=True)
    z_out, *_ = torch.ops.mvae_fast.integrate.default(*arguments, False)
    with pytest.raises(RuntimeError, match="backward needs the states of save=True"):
        z_out.sum().backward()


@needs_cpp
def test_op_checks_its_arguments():
    arguments = list(op_arguments((5, 3, (7,)), "exact"))
    arguments[0] = torch.zeros(5, 4)
    with pytest.raises(RuntimeError, match="z has shape"):
        torch.ops.mvae_fast.integrate.default(*arguments, False)


def flow_and_states(engine, trace="exact", **settings):
    net = random_net((7,), 3, "squash", "tanh")
    flow = FastCNF(ODEfunc(net), n_steps=3, trace=trace, engine=engine, **settings).double()
    return flow, torch.randn(5, 3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)


def objective(flow, logp):
    return lambda z: flow(z, logp)[1].square().sum()


def test_func_grad(engine):
    flow, z, logp = flow_and_states(engine)
    got = torch.func.grad(objective(flow, logp))(z)
    (expected,) = torch.autograd.grad(objective(flow, logp)(z.requires_grad_()), z)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_func_grad_of_parameters(engine):
    flow, z, logp = flow_and_states(engine, train_T=True)
    parameters = dict(flow.named_parameters())

    def loss(parameters):
        return torch.func.functional_call(flow, parameters, (z, logp))[1].square().sum()

    got = torch.func.grad(loss)(parameters)
    objective(flow, logp)(z).backward()
    for name, parameter in flow.named_parameters():
        torch.testing.assert_close(got[name], parameter.grad, rtol=1e-13, atol=1e-13)


def test_func_jacrev(engine):
    flow, z, _ = flow_and_states(engine)
    row = z[:1]
    got = torch.func.jacrev(lambda x: flow(x)[0])(row)[:, 0]
    expected = torch.autograd.functional.jacobian(lambda x: flow(x)[0], row)[:, 0]
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def test_func_vmap_of_grad(engine):
    flow, z, _ = flow_and_states(engine)

    def loss(row):
        return flow(row.unsqueeze(0), torch.zeros(1, dtype=torch.float64))[1].square().sum()

    got = torch.func.vmap(torch.func.grad(loss))(z)
    expected = torch.stack([torch.func.grad(loss)(row) for row in z])
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)


def loss_of_row(flow, parameters, row):
    zero = row.new_zeros(1, 1)
    z, logp = torch.func.functional_call(flow, parameters, (row.unsqueeze(0), zero))
    return z.square().sum() + logp.sum()


def test_func_gradients_of_parameters_row_by_row(engine):
    flow, z, _ = flow_and_states(engine)
    gradient = torch.func.grad(functools.partial(loss_of_row, flow))
    got = torch.func.vmap(gradient, (None, 0))(dict(flow.named_parameters()), z)
    for i, row in enumerate(z):
        flow.zero_grad()
        loss_of_row(flow, {}, row).backward()
        for name, parameter in flow.named_parameters():
            torch.testing.assert_close(got[name][i], parameter.grad, rtol=1e-13, atol=1e-13)


def test_func_vmap_over_an_ensemble(engine):
    flows = [flow_and_states(engine)[0] for _ in range(3)]
    _, z, logp = flow_and_states(engine)

    def call(parameters, buffers):
        return torch.func.functional_call(flows[0], (parameters, buffers), (z, logp))

    got = torch.func.vmap(call)(*torch.func.stack_module_state(flows))
    expected = [torch.stack(results) for results in zip(*(f(z, logp) for f in flows), strict=True)]
    torch.testing.assert_close(got, tuple(expected), rtol=1e-13, atol=1e-13)


def test_vmap_draws_noise_as_it_is_told_to(engine):
    flow, z, _ = flow_and_states(engine, trace="hutchinson")

    def change(row):
        return flow(row.unsqueeze(0), row.new_zeros(1))[1]

    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(change)(z)
    rows = z[:1].expand(4, -1)
    same = torch.func.vmap(change, randomness="same")(rows)
    torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-13, atol=1e-13)
    different = torch.func.vmap(change, randomness="different")(rows)
    assert torch.pdist(different).min() > 1e-6


def test_activation_checkpointing(engine):
    flow, z, logp = flow_and_states(engine, trace="hutchinson")
    gradients = []
    for call in (flow, functools.partial(checkpoint, flow, use_reentrant=False)):
        torch.manual_seed(0)
        start = z.clone().requires_grad_()
        call(start, logp)[1].sum().backward()
        gradients.append(start.grad)
    assert torch.equal(*gradients)


def test_forward_mode(engine):
    flow, z, logp = flow_and_states(engine)
    tangent = torch.randn_like(z)
    if engine == "reference":
        _, got = torch.func.jvp(objective(flow, logp), (z,), (tangent,))
        expected = (torch.func.grad(objective(flow, logp))(z) * tangent).sum()
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        return
    # A wrong answer would be zeros without a word.
    remedy = r"no forward-mode derivatives \(jvp, .*; remedy: engine='reference'"
    with pytest.raises(NotImplementedError, match=remedy):
        torch.func.jvp(objective(flow, logp), (z,), (tangent,))
    for second in (torch.func.hessian, lambda f: torch.func.jacfwd(torch.func.grad(f))):
        with pytest.raises(NotImplementedError, match=remedy):
            second(objective(flow, logp))(z)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(z, tangent)
        with pytest.raises(NotImplementedError, match=remedy):
            flow(dual, logp)


def test_hessian(engine):
    flow, z, logp = flow_and_states(engine)
    nested = torch.func.jacrev(torch.func.grad(objective(flow, logp)))
    if engine == "reference":
        assert nested(z).shape == (5, 3, 5, 3)
    else:
        with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
            nested(z)


class Model(torch.nn.Module):
    """Something around a flow, as in a VAE."""

    def __init__(self, flow):
        super().__init__()
        self.encoder = torch.nn.Linear(4, 3).double()
        self.flow = flow

    def forward(self, x):
        z, logp = self.flow(self.encoder(x), x.new_zeros(x.shape[0], 1))
        return z.square().sum() + logp.sum()


def check_compiled(flow, **settings):
    model, x = Model(flow), torch.randn(6, 4, dtype=torch.float64)
    eager = copy.deepcopy(model)
    expected = eager(x)
    expected.backward()
    torch._dynamo.reset()
    loss = torch.compile(model, fullgraph=True, **settings)(x)
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=1e-12)
    for got, parameter in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(got.grad, parameter.grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("layer_type", LAYER_TYPES)
def test_compile_traces_every_layer_type(layer_type):
    net = random_net((5,), 3, layer_type, "swish")
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", train_T=True).double()
    check_compiled(flow, backend="aot_eager")


@pytest.mark.parametrize("hidden", [(), (5, 4), (5, 4, 3)], ids=len)
def test_compile_traces_every_engine(engine, hidden):
    net = random_net(hidden, 3, "concatsquash", "softplus")
    odefunc = ODEfunc(net, residual=True)
    check_compiled(
        FastCNF(odefunc, n_steps=1, trace="exact", engine=engine).double(), backend="aot_eager"
    )


def test_compile_with_the_default_backend():
    flow, _, _ = flow_and_states("auto")
    check_compiled(flow)


def test_compile_draws_noise():
    flow, z, logp = flow_and_states("auto", trace="hutchinson")
    torch._dynamo.reset()
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(z, logp)[1], compiled(z, logp)[1])
    noise = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(compiled(z, logp, probes=noise), flow(z, logp, probes=noise))


def test_compile_does_not_recompile_for_every_batch_size(engine):
    flow, z, logp = flow_and_states(engine)
    torch._dynamo.reset()
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(flow, fullgraph=True, backend=count, dynamic=True)
    for batch in (5, 4, 3):
        # Copies: a view brings a guard on the size of its base.
        inputs = (z[:batch].clone(), logp[:batch].clone())
        torch.testing.assert_close(compiled(*inputs), flow(*inputs))
    assert len(graphs) == 1


def test_export(engine):
    flow, z, logp = flow_and_states(engine)
    program = torch.export.export(flow, (z, logp))
    torch.testing.assert_close(program.module()(z, logp), flow(z, logp))
