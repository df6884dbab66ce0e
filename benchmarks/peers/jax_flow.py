r"""A workload in JAX: ``jit``, the gradient by ``value_and_grad``, the steps unrolled.

Unrolled because W2 then trains 15 % faster than with ``lax.scan`` over the steps; its inference is
5 % slower (one pinned core). The trace is

- ``"vjp"``, ``"jvp"``: Hutchinson's estimate, in reverse or in forward mode;
- ``"exact"``: that of the Jacobian of each row, by ``jacfwd``;
- ``"closed form"``: FastCNF's own formula for one or two hidden layers (docs/math.md).

References:
    JAX: composable transformations of Python+NumPy programs (Bradbury et al., 2018)
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.common.workloads import Workload

FORMS = ("vjp", "jvp", "exact", "closed form")

_NONLINEARITIES: dict[str, Callable[[Array], Array]] = {
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
}
_SLOPES: dict[str, Callable[[Array], Array]] = {
    "softplus": jax.nn.sigmoid,
    "tanh": lambda a: 1 - jnp.tanh(a) ** 2,
}

Weights = Mapping[str, Array]
# Weight (m_out, m_in), gate (m_out,), bias (m_out,), at one time.
_Layer = tuple[Array, Array, Array]


class JaxFlow:
    """One form of a workload with Euler's method, for its shapes; compiled at the first call of
    each mode.

    Args:
        form: One of `FORMS`.
        weights: A state_dict of `benchmarks.peers.ffjord.Net`.
        arrays: Start states (B, D), log-densities (B, 1) and noise (B, D).
    """

    def __init__(
        self, workload: Workload, form: str, weights: Mapping[str, np.ndarray], *arrays: np.ndarray
    ) -> None:
        z, logp, probes = map(jnp.asarray, arrays)
        flow = partial(self.solve, workload, form, logp=logp, probes=probes)

        def loss(weights: Weights, z: Array) -> tuple[Array, tuple[Array, Array]]:
            z_t, logp_t = flow(weights, z)
            return (logp_t[:, 0] + (z_t**2).sum(1) / 2).mean(), (z_t, logp_t)

        self._names = list(weights)
        self._inputs = {name: jnp.asarray(weight) for name, weight in weights.items()}, z
        self._modes: dict[str, Callable[..., Any]] = {
            "train": jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)),
            "inference": jax.jit(flow),
        }

    def solve(
        self,
        workload: Workload,
        form: str,
        weights: Weights,
        z: Array,
        *,
        logp: Array,
        probes: Array,
    ) -> tuple[Array, Array]:
        """End states and log-densities."""
        steps = workload.steps
        for step in range(steps):
            layers = layers_at(workload, weights, step / steps)
            velocity, trace = rates(workload, form, layers, z, probes)
            z, logp = z + velocity / steps, logp - trace[:, None] / steps
        return z, logp

    def run(self, mode: str) -> Any:
        """One call, to the end: JAX's calls return before they are done."""
        return jax.block_until_ready(self._modes[mode](*self._inputs))

    def results(self, mode: str) -> list[np.ndarray]:
        """What `benchmarks.common.candidates.MODES` return, in their order."""
        if mode == "inference":
            return list(map(np.asarray, self.run(mode)))
        (_, ends), (gradients, of_z) = self.run(mode)
        ordered = (gradients[name] for name in self._names)
        return list(map(np.asarray, (*ends, of_z, *ordered)))


def rates(
    workload: Workload, form: str, layers: list[_Layer], z: Array, probes: Array
) -> tuple[Array, Array]:
    """Velocity (B, D) and trace (B,)."""
    if form == "closed form":
        return _closed_form(workload, layers, z)
    velocity = partial(_velocity, workload, layers)
    if form == "vjp":
        value, pull = jax.vjp(velocity, z)
        return value, (pull(probes)[0] * probes).sum(1)
    if form == "jvp":
        value, product = jax.jvp(velocity, (z,), (probes,))
        return value, (product * probes).sum(1)
    return velocity(z), jax.vmap(lambda row: jnp.trace(jax.jacfwd(velocity)(row)))(z)


def layers_at(workload: Workload, weights: Weights, t: float | Array) -> list[_Layer]:
    """The layers at time t."""
    layers = []
    for index in range(len(workload.hidden) + 1):
        of_layer = partial(_get, weights, index)
        weight, bias = of_layer("_layer.weight"), of_layer("_layer.bias")
        gate = jnp.ones_like(bias)
        if workload.layer_type == "concat":
            weight, bias = weight[:, 1:], bias + weight[:, 0] * t
        elif workload.layer_type == "squash":
            gate = jax.nn.sigmoid(of_layer("_hyper.weight")[:, 0] * t + of_layer("_hyper.bias"))
            bias = gate * bias
        else:
            argument = of_layer("_hyper_gate.weight")[:, 0] * t + of_layer("_hyper_gate.bias")
            gate = jax.nn.sigmoid(argument)
            bias = gate * bias + of_layer("_hyper_bias.weight")[:, 0] * t
        layers.append((weight, gate, bias))
    return layers


def _get(weights: Weights, index: int, name: str) -> Array:
    return weights[f"layers.{index}.{name}"]


def _velocity(workload: Workload, layers: list[_Layer], y: Array) -> Array:
    for index, (weight, gate, bias) in enumerate(layers):
        if index > 0:
            y = _NONLINEARITIES[workload.nonlinearity](y)
        y = y @ weight.T * gate + bias
    return y


def _closed_form(workload: Workload, layers: list[_Layer], y: Array) -> tuple[Array, Array]:
    slopes = []
    for index, (weight, gate, bias) in enumerate(layers):
        if index > 0:
            slopes.append(_SLOPES[workload.nonlinearity](y))
            y = _NONLINEARITIES[workload.nonlinearity](y)
        y = y @ weight.T * gate + bias
    weights, gates = [layer[0] for layer in layers], [layer[1] for layer in layers]
    if len(slopes) == 1:
        return y, slopes[0] @ (gates[0] * ((weights[0] * weights[1].T) @ gates[1]))
    around = (weights[0] * gates[2]) @ weights[2]
    table = gates[1][:, None] * weights[1] * around.T * gates[0]
    return y, (slopes[1] @ table * slopes[0]).sum(1)
