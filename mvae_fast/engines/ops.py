"""Every op of ``torch.ops.mvae_fast``: loaded, called, made differentiable and traceable here.

``solve`` and ``solve_backward`` have kernels in C++ and in CUDA; ``triton_solve`` and its backward
have the same schemas (schemas.inc), because Triton is a second engine on the same device.

Of autograd's styles these are what is fastest in eager mode. Registered on the op, PyTorch would
flatten and rebuild the list of tensors on every call (250 us, measured, where a whole small step
takes no more). An autograd.Function with a ``setup_context`` has its signature bound on every call
(30 us), so only torch.func, which needs it, takes that one; both share one rule.
"""

import ast
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvae_fast.checks import constant_when_traced
from mvae_fast.core.adaptive import Control, Found
from mvae_fast.core.field import Field
from mvae_fast.core.problem import Problem, Solution
from mvae_fast.core.tableaus import Embedded
from mvae_fast.core.trace import second_order_table, trace_table
from mvae_fast.engines import extension, flops, memory
from mvae_fast.engines.enums import NONLINEARITIES, OPERANDS, PENALTY_BITS, TABLES

_OPS = torch.ops.mvae_fast
_SCHEMAS: list[str] = ast.literal_eval(
    f"[{Path(__file__).with_name('schemas.inc').read_text(encoding='utf-8')}]"
)
_SEARCH = (
    "search(Tensor z, Tensor h, Tensor? probes, Tensor[] tensors, int[] widths, int[] layout, "
    "int nonlinearity, bool residual, bool exact, float[] a, float[] b, int operands, "
    "float[] times, float[] nodes, float[] error, float[] controls, int budget) "
    "-> (Tensor z_out, Tensor logp_out, Tensor saved, Tensor shares, Tensor counts)"
)
_LOG_DET = (
    "log_det(Tensor z, Tensor h, Tensor[] tensors, int[] widths, int[] layout, "
    "int nonlinearity, bool residual, float[] a, float[] b, int[] outputs) "
    "-> (Tensor z_out, Tensor logp_out)"
)
_FRAGMENT = torch.library.Library("mvae_fast", "FRAGMENT")
_FRAGMENT.define("cuda_device_error(int device) -> str")

Statics = tuple[Any, ...]
#: Tensors, which of them is what (csrc/arguments.h), and whether there is an exact trace, in closed
#: form.
Velocity = tuple[Sequence[Tensor], Sequence[int], bool]


def load(library: str, log: str, title: str, needs: str) -> str | None:
    """Load a library, which registers its ops; the reason, with the remedy, if there is none."""
    return extension.load(torch.ops.load_library, library, log, title, needs)


def solve(
    name: str,
    velocity: Callable[[Problem], Velocity],
    save_level: Callable[[Problem], int],
    problem: Problem,
    found: Found | None = None,
) -> Solution:
    """Take all steps in one call of the op ``mvae_fast::<name>``.

    Args:
        name: ``"solve"`` or ``"triton_solve"``.
        velocity: What the op is given for the problem's field: `tables`, for one.
        save_level: What its forward saves for a backward.
        problem: What to solve.
        found: By a search for its steps, which has taken them and saved what is needed.
    """
    _announce_flops()
    tensors, *net = _net(problem, velocity(problem))
    z, tableau = problem.z, problem.tableau
    operands = OPERANDS[problem.precision]
    if not operands and z.is_cuda and z.dtype == torch.float32 and _tf32():
        operands = OPERANDS["tf32"]
    statics = (
        *net,
        tableau.a,
        tableau.b,
        problem.outputs,
        # More than the steps saves no state either, and may be more than the op's int holds.
        min(problem.checkpoint_every, problem.outputs[-1]),
        sum(PENALTY_BITS[penalty] for penalty in problem.penalties),
        operands,
    )
    given = (z.contiguous(), problem.h.contiguous(), *[x.contiguous() for x in tensors])
    probes = _dense(problem.probes)
    if transformed():
        results = _TransformedSolve.apply(name, save_level(problem), probes, statics, *given)
    elif torch.is_grad_enabled() and any(x.requires_grad for x in given):
        taken = save_level(problem) if found is None else _results(problem, found)
        results = _Solve.apply(name, taken, probes, statics, *given)
    else:
        results = _forward(name, 0, probes, statics, *given)
    return Solution(*results[:3])


def _net(problem: Problem, velocity: Velocity) -> tuple[Any, ...]:
    """What the ops are given of a velocity, in the order of their schemas."""
    (tensors, layout, exact), field = velocity, problem.field
    nonlinearity = NONLINEARITIES[field.nonlinearity]
    return tensors, field.widths, layout, nonlinearity, field.residual, exact


def _results(problem: Problem, found: Found) -> tuple[Tensor, ...]:
    """What the op would have returned."""
    assert found.saved is not None
    penalties = problem.z.new_empty((len(problem.outputs), 0, problem.z.shape[0]))
    return found.z, found.logp, penalties, found.saved


def tables(problem: Problem) -> Velocity:
    """The velocity as tables, which PyTorch makes of a field's coefficients."""
    made = problem.field.tables()
    table = trace_table(made) if problem.closed else None
    second = second_order_table(made) if problem.log_det == "second_order" else None
    tensors: list[Tensor] = []
    layout = [TABLES]
    everything = (made.weight, made.gate, made.bias, table, second)
    for x in (*everything, *(made.context or (None,) * (len(made.widths) - 1))):
        layout.append(-1 if x is None else len(tensors))
        if x is not None:
            tensors.append(x)
    return tensors, layout, table is not None


def search(
    velocity: Velocity,
    problem: Problem,
    times: Sequence[float],
    method: Embedded,
    control: Control,
    budget: int,
) -> Found:
    """The steps of an embedded pair, and where they lead, in one call of the op.

    Args:
        velocity: What the op is given for the problem's field.
        problem: One attempt, of one step.
        times: n + 1 of them, all ascending or all descending.
        method: What it attempts.
        control: What decides about the steps.
        budget: Bytes that may be kept for a backward beside the states; -1: there will be none.
    """
    _announce_flops()
    tensors, *net = _net(problem, velocity)
    tableau = method.tableau
    z, logp, saved, shares, counts = _OPS.search.default(
        problem.z.contiguous(),
        problem.h,
        _dense(problem.probes),
        [x.contiguous() for x in tensors],
        *net,
        tableau.a,
        tableau.b,
        OPERANDS[problem.precision],
        times,
        tableau.c,
        method.error,
        (
            control.rtol,
            control.atol,
            control.first_step,
            control.min_step,
            control.max_step,
            control.max_num_steps,
            control.safety,
            control.ifactor,
            control.dfactor,
            method.order,
            method.last_is_first,
        ),
        budget,
    )
    *counts, evaluations, size = counts.tolist()
    return Found(z, logp, shares, counts, evaluations, None if budget < 0 else saved[:size])


def log_det(velocity: Callable[[Problem], Velocity], problem: Problem) -> Solution:
    """Take all steps, with the log-determinant of each, in one call of the op; no gradients.

    Args:
        velocity: What the op is given for the problem's field, without a trace.
        problem: What to solve.
    """
    _announce_flops()
    tableau = problem.tableau
    tensors, *net, _ = _net(problem, velocity(problem._replace(trace=None, log_det="trace")))
    given = (problem.z.contiguous(), problem.h.contiguous(), [x.contiguous() for x in tensors])
    z, logp = _OPS.log_det.default(*given, *net, tableau.a, tableau.b, problem.outputs)
    return Solution(z, logp, z.new_empty((len(problem.outputs), 0, problem.z.shape[0])))


def differentiable(problem: Problem) -> bool:
    """Whether there is anything to differentiate in."""
    if not torch.is_grad_enabled():
        return False
    field = problem.field
    parts = field.tensors if isinstance(field, Field) else (field.weight, field.gate, field.bias)
    every = (problem.z, problem.h, *parts, *field.context, *field.gate_context)
    return any(x is not None and x.requires_grad for x in every)


def transformed() -> bool:
    """Whether torch.func or forward-mode AD may be looking at the tensors."""
    return not torch.compiler.is_compiling() and (
        torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0
    )


def _announce_flops() -> None:
    """Where FlopCounterMode may be looking on, let it know what the ops multiply."""
    if torch.compiler.is_compiling() or not torch._C._len_torch_dispatch_stack():
        return
    ops: dict[str, Callable[..., int]] = {}
    ops |= {f"{engine}solve": flops.forward_flops for engine in ("", "triton_")}
    ops |= {f"{name}_backward": flops.backward_flops for name in ops}
    ops["search"] = flops.search_flops
    ops["log_det"] = flops.log_det_flops
    flops.announce(
        {getattr(_OPS, name): formula for name, formula in ops.items() if hasattr(_OPS, name)}
    )


@constant_when_traced
def _tf32() -> bool:
    """PyTorch's own switch for float32 products on a GPU, whichever way it was set."""
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


def _dense(probes: Tensor | None) -> Tensor | None:
    """Probes as the engines read them: dense rows, at a distance of D or, when shared, of 0."""
    if probes is None:
        return None
    dim = probes.shape[2]
    dense = dim == 1 or probes.stride(2) == 1
    return probes if dense and probes.stride(1) in (0, dim) else probes.contiguous()


def states_only(problem: Problem) -> int:
    """The level of an engine that keeps no more."""
    return memory.STATES


def _forward(
    name: str, save: int, probes: Tensor | None, statics: Statics, z: Tensor, h: Tensor, *x: Tensor
) -> tuple[Tensor, ...]:
    return getattr(_OPS, name).default(z, h, probes, list(x), *statics, save)


def _backward(
    name: str, probes: Tensor | None, statics: Statics, tensor_grads: bool, *tensors: Tensor | None
) -> tuple[Tensor, ...]:
    """Flat: autograd looks for no tensors in a list, and would take the gradients for constants."""
    _announce_flops()
    grads, (z, h, *x) = tensors[:4], tensors[4:]
    z_bar, h_bar, bars = getattr(_OPS, f"{name}_backward").default(
        *grads, z, h, probes, x, *statics, tensor_grads
    )
    return z_bar, h_bar, *bars


class _Solve(torch.autograd.Function):
    """The gradient of the op, in eager mode and under torch.compile."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        name, save, probes, statics, z, h, *x = inputs
        if isinstance(save, tuple):  # the results, of a search that has taken the steps
            results = save
        else:
            results = getattr(_OPS, name).default(z, h, probes, x, *statics, save)
        # What is saved is no result: as one it would be wrapped, and take 2 us more.
        _Solve.keep(ctx, inputs, results[3])
        return results[:3]

    @staticmethod
    def keep(ctx: Any, inputs: tuple[Any, ...], saved: Tensor) -> None:
        ctx.name, _, probes, ctx.statics, z, *rest = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(probes, saved, z, *rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        probes, saved, z, *rest = ctx.saved_tensors
        needed = any(ctx.needs_input_grad[6:])
        outputs, penalties = ctx.statics[7], ctx.statics[9]
        dense: list[Tensor | None] = [None if x is None else x.contiguous() for x in grads[:3]]
        if any(x is None for x in dense[: 2 + (penalties > 0)]):
            shapes = _shapes(z, outputs, penalties)
            dense = [z.new_zeros(n) if x is None else x for x, n in zip(dense, shapes, strict=True)]
        # Grad mode is on in a backward only under create_graph or torch.func.
        run = _SolveBackward.apply if torch.is_grad_enabled() else _backward
        bars = run(ctx.name, probes, ctx.statics, needed, *dense, saved, z, *rest)
        bars = bars if needed else (*bars, *(None,) * (len(rest) - 1))
        return None, None, None, None, *bars


class _TransformedSolve(_Solve):
    """The same for torch.func. It refuses forward-mode AD, as it must: a bare op would give zero
    tangents silently."""

    @staticmethod
    def forward(
        name: str, save: int, probes: Tensor | None, statics: Statics, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        return _forward(name, save, probes, statics, *tensors)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(output[3])
        _Solve.keep(ctx, inputs, output[3])

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> None:
        raise NotImplementedError(
            "the compiled engines have no forward-mode derivatives (jvp, jacfwd, hessian); "
            "remedy: engine='reference', which has them"
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        return _by_loop(_TransformedSolve.apply, info, in_dims, args)


class _SolveBackward(torch.autograd.Function):
    """The backward under create_graph and torch.func: refuses to be differentiated."""

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor, ...]:
        return _backward(*args)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> None:
        raise RuntimeError(
            "the compiled engines have first derivatives only, and a derivative of their backward "
            "was asked for; remedy: engine='reference', which is differentiable to any order"
        )

    jvp = staticmethod(_TransformedSolve.jvp)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> Any:
        # jacrev batches its backward.
        return _by_loop(_SolveBackward.apply, info, in_dims, args)


def _by_loop(
    apply: Callable[..., tuple[Tensor, ...]], info: Any, in_dims: tuple[Any, ...], args: Any
) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    results = [
        apply(
            *(
                arg.select(dim, i).contiguous() if isinstance(dim, int) else arg
                for arg, dim in zip(args, in_dims, strict=True)
            )
        )
        for i in range(info.batch_size)
    ]
    stacked = tuple(torch.stack(pieces) for pieces in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)


def _shapes(z: Tensor, outputs: Sequence[int], penalties: int) -> tuple[tuple[int, ...], ...]:
    """Of the results: states, log-densities, penalties."""
    (batch, dim), count = z.shape, len(outputs)
    return (count, batch, dim), (count, batch), (count, penalties.bit_count(), batch)


def _fake_solve(z: Tensor, h: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
    probes, _, widths, _, _, _, exact, _, b, outputs, checkpoint_every, penalties, _, save = (
        arguments
    )
    saved = (h.shape[0] - 1) // checkpoint_every * z.numel() if save else 0
    if save == memory.ACTIVATIONS:
        count = 0 if probes is None else probes.shape[0]
        pieces = memory.kept_pieces(widths, exact, count, len(b))
        kept = sum(memory.padded(m, z.element_size()) for m, _ in pieces)
        saved += kept * z.shape[0] * h.shape[0] * len(b)
    shapes = (*_shapes(z, outputs, penalties), (saved,))
    return tuple(z.new_empty(shape) for shape in shapes)


def _fake_solve_backward(*arguments: Any) -> tuple[Tensor, Tensor, list[Tensor]]:
    z, h, _, tensors = arguments[4:8]
    wanted = tensors if arguments[-1] else ()
    return torch.empty_like(z), torch.empty_like(h), [torch.empty_like(x) for x in wanted]


def _fake_log_det(z: Tensor, h: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    states, changes, _ = _shapes(z, arguments[-1], 0)
    return z.new_empty(states), z.new_empty(changes)


_FAKES: tuple[Callable[..., Any], ...] = (_fake_solve, _fake_solve_backward)


def cpu_capabilities(name: str = "") -> str:
    """Run the kernels of an instruction set in the whole process, if one is named.

    Returns:
        The one that runs and, best first, all of this processor; spaces between.
    """
    return _OPS.cpu_capabilities.default(name)


def cpu_peak(repeats: int) -> int:
    """Multiply-adds of the register tile, see `mvae_fast.engines.cpp.peak`."""
    return _OPS.cpu_peak.default(repeats)


def cuda_device_error(device: int) -> str:
    """What CUDA says of running the library's kernels on a GPU; empty if nothing is wrong."""
    return _OPS.cuda_device_error.default(device)


def check_version() -> str | None:
    """None if the loaded C++ library is of this version, else the reason and the remedy.

    It is then ready to be traced.
    """
    own = ("cpu_capabilities(str name) -> str", "cpu_peak(int repeats) -> int", _SEARCH, _LOG_DET)
    for text in (*_SCHEMAS, *own):
        schema = torch._C.parse_schema(f"mvae_fast::{text}")
        name = schema.name.partition("::")[2]
        op = getattr(_OPS, name, None)
        if op is None or op.default._schema != schema:
            fault = "lacks" if op is None else "has another"
            return (
                f"the C++ extension is of another version of mvae_fast: it {fault} {name}; remedy: "
                "run `pip install .` again"
            )
    for text, fake in zip(_SCHEMAS, _FAKES, strict=True):
        torch.library.register_fake(f"mvae_fast::{text.partition('(')[0]}", fake)
    torch.library.register_fake("mvae_fast::log_det", _fake_log_det)
    return None


def define_triton(
    forward: Callable[..., Any], backward: Callable[..., Any], devices: Sequence[str]
) -> None:
    """Define ``mvae_fast::triton_solve`` and its backward.

    Args:
        forward: Takes the arguments of ``mvae_fast::solve``.
        backward: Takes those of ``mvae_fast::solve_backward``.
        devices: Dispatch keys, ``"CPU"`` or ``"CUDA"``.
    """
    for schema, function, fake in zip(_SCHEMAS, (forward, backward), _FAKES, strict=True):
        _FRAGMENT.define(f"triton_{schema}")
        name = f"triton_{schema.partition('(')[0]}"
        for key in devices:
            _FRAGMENT.impl(name, function, key)
        torch.library.register_fake(f"mvae_fast::{name}", fake)
