"""The ops as PyTorch sees them: opcheck, torch.func, forward-mode AD, torch.compile."""

import copy
import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from mvae_fast import FastCNF, ODEfunc, ODEnet, engines
from mvae_fast.core.problem import PENALTIES, PRECISIONS, Problem
from mvae_fast.core.tableaus import TABLEAUS
from mvae_fast.engines import cpp, ops
from mvae_fast.engines.enums import OPERANDS
from tests.contract import Case, converted, replace
from tests.oracles import LAYER_TYPES, random_net

needs_cpp = pytest.mark.skipif(cpp.why_missing() is not None, reason="needs the C++ engine")


def op_arguments(monkeypatch, case, requires_grad=False, **changes):
    """What the op is called with for a problem in float32."""
    seen = []

    def note(name, save, probes, statics, z, h, *tensors):
        seen.append(
            (
                z,
                h,
                probes,
                list(tensors),
                *(list(x) if isinstance(x, tuple) else x for x in statics),
            )
        )
        raise StopIteration

    problem = converted(case.problem(), lambda x: x.float().requires_grad_(requires_grad))
    if problem.probes is not None:
        problem = replace(problem, probes=problem.probes.detach())
    with monkeypatch.context() as patch, torch.no_grad():
        patch.setattr(ops, "_forward", note)
        with pytest.raises(StopIteration):
            engines.solve("cpp", replace(problem, **changes))
    return seen[0]


def check_op(arguments):
    # The op itself has no autograd: engines/ops.py says why.
    checks = ("test_schema", "test_faketensor")
    solve = torch.ops.mvae_fast.solve.default
    levels = (0, 1, 2) if arguments[12] == 1 else (0, 1)  # checkpoint_every
    for save in levels:
        torch.library.opcheck(solve, (*arguments, save), test_utils=checks)
    for save in levels[1:]:
        *results, saved = solve(*arguments, save)
        for tensor_grads in (False, True):
            torch.library.opcheck(
                torch.ops.mvae_fast.solve_backward.default,
                (*map(torch.ones_like, results), saved, *arguments, tensor_grads),
                test_utils=checks,
            )


@needs_cpp
@pytest.mark.parametrize("shape", [(5, 3, (7,)), (1, 1, (1,)), (33, 17, (3, 5)), (3, 2, (3, 4, 5))])
@pytest.mark.parametrize("trace", [None, "exact", "hutchinson"])
@pytest.mark.parametrize("context", ["", "some"])
@pytest.mark.slow
def test_opcheck(monkeypatch, shape, trace, context):
    form = {None: "tables 10E", "exact": "tables 1EE", "hutchinson": "tables EEE"}[trace]
    for kind in (form, "concatsquash", "pieces"):
        case = Case(shape, kind, trace=trace, context=context, outputs=(1, 3))
        check_op(op_arguments(monkeypatch, case))


@needs_cpp
@pytest.mark.parametrize("form", ["tables 1EE", "squash", "features"])
@pytest.mark.parametrize(
    "options",
    [
        {"solver": "rk4"},
        {"log_det": "second_order"},
        {"steps": 7, "every": 2, "outputs": (1, 7)},
        {"penalties": PENALTIES[:3]},
        {"trace": "hutchinson", "penalties": PENALTIES[1::2]},
        {"precision": "bf16"},
        {"requires_grad": True},
    ],
)
@pytest.mark.slow
def test_opcheck_of_options(monkeypatch, form, options):
    options = {"trace": "exact", "outputs": (1, 3), **options}
    others = {name: options.pop(name) for name in ("precision", "requires_grad") if name in options}
    check_op(op_arguments(monkeypatch, Case((5, 3, (7,)), form, **options), **others))


@needs_cpp
@pytest.mark.parametrize("form", ["tables 1EE", "squash"])
def test_op_checks_its_arguments(monkeypatch, form):
    solve = torch.ops.mvae_fast.solve.default
    arguments = op_arguments(monkeypatch, Case(form=form, trace="exact", context="all"))
    names = [x.name for x in solve._schema.arguments]
    *results, saved = solve(*arguments, 2)
    ones = [*map(torch.ones_like, results)]

    def refused(match, op=solve, head=(), tail=(0,), **changes):
        given = dict(zip(names, arguments, strict=False)) | changes
        with pytest.raises(RuntimeError, match=match):
            op(*head, *given.values(), *tail)

    refused("z has shape", z=torch.zeros(5, 4))
    refused("z must be float32 or float64", z=torch.zeros(5, 3, dtype=torch.float16))
    refused("h has", h=torch.zeros(2, 2))
    refused("widths", widths=[3, 7, 4])
    refused("a must be zero on and above", a=[1.0])
    refused("b is 2 for a single stage", b=[2.0])
    refused("outputs must end with the number of steps, 3", outputs=[2])
    refused("outputs must ascend", outputs=[0, 3])
    refused("both an exact trace and probes", probes=torch.zeros(1, 5, 3))
    refused("penalties includes that of J eps without probes", penalties=8)
    refused("operands is neither 0", operands=OPERANDS["fp16"])
    double = {"z": torch.zeros(5, 3).double(), "h": torch.zeros(3).double()}
    refused("h must have the dtype of z", z=double["z"])
    refused("rounded operands need a float32 z", **double, operands=1)
    layout, tensors = arguments[names.index("layout")], arguments[names.index("tensors")]
    refused("layout names tensor|names tensor", tensors=tensors[:1])
    refused("layout has .* numbers, too few", layout=layout[:-1])
    refused("layout has .* numbers, expected", layout=[*layout, -1])
    refused("layout begins with 2", layout=[2, *layout[1:]])
    refused("context", tensors=[*tensors[:-1], tensors[-1][:4]])
    refused("a tensor", tensors=[*tensors[:-1], tensors[-1].double()])
    if form == "squash":
        refused(
            "weight has 12 numbers, expected 7 times 3", tensors=[torch.zeros(4, 3), *tensors[1:]]
        )
        refused("time", h=torch.zeros(4), outputs=[4])
        refused("layout has 33 time features", layout=[*layout[:2], 33, *layout[3:]])
    else:
        refused("weight has", tensors=[tensors[0][:, 1:].contiguous(), *tensors[1:]])
        refused("gate has 3 rows, expected 1 or 4", h=torch.zeros(4), outputs=[4])
        refused("layout has no weight", layout=[1, -1, *layout[2:]])
    # The backward: of other states than those that the forward saved.
    backward = torch.ops.mvae_fast.solve_backward.default
    refused("saved has", backward, (*ones, saved[1:]), (True,))
    few = ones[0][:, :4].contiguous()
    refused("grad_z", backward, (few, *ones[1:], saved), (True,))
    refused("save is 3, expected 0, 1 or 2", tail=(3,))
    refused("save is 2 with checkpoint_every 2, expected 1", tail=(2,), checkpoint_every=2)


@needs_cpp
def test_no_closed_form_of_deep_nets(monkeypatch):
    arguments = list(op_arguments(monkeypatch, Case((5, 3, (4, 4, 4)), "squash")))
    names = [x.name for x in torch.ops.mvae_fast.solve.default._schema.arguments]
    arguments[names.index("exact")] = True
    with pytest.raises(RuntimeError, match="of 4 layers, but a closed form exists up to 3"):
        torch.ops.mvae_fast.solve.default(*arguments, False)


@needs_cpp
@pytest.mark.parametrize("form", ["tables 1EE", "squash"])
def test_double_backward_is_refused(form):
    problem = converted(Case(form=form, trace="exact").problem(), lambda x: x.requires_grad_())
    z_out, *_ = engines.solve("cpp", problem)
    (first,) = torch.autograd.grad(z_out.sum(), problem.z, create_graph=True)
    with pytest.raises(RuntimeError, match=r"the compiled engines have first derivatives only"):
        first.sum().backward()


class Stub:
    """What `ops.solve` looks at of a tensor that is on a GPU."""

    requires_grad = False

    def __init__(self, is_cuda, dtype=torch.float32):
        self.is_cuda, self.dtype = is_cuda, dtype

    def contiguous(self):
        return self


CPU, GPU, GPU64 = Stub(False), Stub(True), Stub(True, torch.float64)


@pytest.fixture
def statics(monkeypatch):
    """What is given to an op besides tensors."""

    def call(z, **settings):
        seen = []

        def note(name, save, probes, statics, *tensors):
            seen.append(statics)
            return z, z, z, z

        field = Case().problem().field
        problem = Problem(z, Stub(False), field, **{"outputs": (4,), **settings})
        with monkeypatch.context() as patch:
            patch.setattr(ops, "_forward", note)
            ops.solve("solve", lambda problem: ([], [1], True), ops.states_only, problem)
        return seen[0]

    return call


def test_what_a_problem_is_to_the_op(statics):
    given = {"outputs": (2, 4), "tableau": TABLEAUS["midpoint"], "checkpoint_every": 3}
    got = statics(CPU, **given, penalties=("root_mean_square", "frobenius"), precision="bf16")
    tableau = TABLEAUS["midpoint"]
    assert got[2:] == (1, False, True, tableau.a, tableau.b, (2, 4), 3, 2 + 8, 1)
    # More steps than there are between checkpoints, and than an int holds.
    assert statics(CPU, checkpoint_every=10**30)[8] == 4


def test_numbers_of_precisions(statics):
    assert [statics(CPU, precision=name)[-1] for name in PRECISIONS] == [0, 1, 2]


@pytest.fixture
def matmul_precision():
    before = torch.get_float32_matmul_precision()
    yield torch.set_float32_matmul_precision
    torch.set_float32_matmul_precision(before)


def test_products_on_a_gpu_follow_pytorchs_switch(statics, matmul_precision):
    matmul_precision("highest")
    assert statics(GPU)[-1] == 0
    matmul_precision("high")
    assert statics(GPU)[-1] == 3  # TF32
    assert statics(GPU, precision="bf16")[-1] == 1
    assert statics(CPU)[-1] == statics(GPU64)[-1] == 0


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


@pytest.mark.slow
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


@pytest.mark.filterwarnings("error:Dynamo detected a call to a `functools.lru_cache`")
@pytest.mark.parametrize("layer_type", LAYER_TYPES)
@pytest.mark.slow
def test_compile_traces_every_layer_type(layer_type):
    net = random_net((5,), 3, layer_type, "swish")
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", train_T=True).double()
    check_compiled(flow, backend="aot_eager")


@pytest.mark.parametrize("hidden", [(), (5, 4), (5, 4, 3)], ids=len)
@pytest.mark.slow
def test_compile_traces_every_engine(engine, hidden):
    net = random_net(hidden, 3, "concatsquash", "softplus")
    odefunc = ODEfunc(net, residual=True)
    check_compiled(
        FastCNF(odefunc, n_steps=1, trace="exact", engine=engine).double(), backend="aot_eager"
    )


@pytest.mark.slow
def test_compile_with_the_default_backend():
    flow, _, _ = flow_and_states("auto")
    check_compiled(flow)


@pytest.mark.slow
def test_compile_draws_noise():
    flow, z, logp = flow_and_states("auto", trace="hutchinson")
    torch._dynamo.reset()
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    assert not torch.equal(compiled(z, logp)[1], compiled(z, logp)[1])
    noise = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(compiled(z, logp, probes=noise), flow(z, logp, probes=noise))


@pytest.mark.slow
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


@pytest.mark.slow
def test_export(engine):
    flow, z, logp = flow_and_states(engine)
    program = torch.export.export(flow, (z, logp))
    torch.testing.assert_close(program.module()(z, logp), flow(z, logp))


@pytest.mark.slow
def test_compile_and_export_with_context(engine):
    net = ODEnet((5,), (3,), layer_type="concatsquash", context_dim=2)
    flow = FastCNF(ODEfunc(net), n_steps=2, trace="exact", engine=engine).double()
    z, context = torch.randn(4, 3).double(), torch.randn(4, 2).double()
    torch._dynamo.reset()
    compiled = torch.compile(flow, fullgraph=True, backend="aot_eager")
    results = []
    for call in (flow, compiled):
        start, given = z.clone().requires_grad_(), context.clone().requires_grad_()
        z_t, logp = call(start, z.new_zeros(4, 1), context=given)
        grads = torch.autograd.grad(z_t.square().sum() + logp.sum(), (start, given))
        results.append((z_t, logp, *grads))
    torch.testing.assert_close(results[1], results[0], rtol=1e-12, atol=1e-12)
    program = torch.export.export(flow, (z, z.new_zeros(4, 1)), {"context": context})
    got = program.module()(z, z.new_zeros(4, 1), context=context)
    torch.testing.assert_close(got, results[0][:2])


def test_func_with_context(engine):
    problem = Case(form="concatsquash", trace="exact", context="all").problem()

    def loss(u):
        field = replace(problem.field, context=(u, problem.field.context[1]))
        return engines.solve(engine, replace(problem, field=field)).logp.square().sum()

    u = problem.field.context[0].clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(u), u)
    got = torch.func.grad(loss)(u.detach())
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-13)
