"""A workload in diffrax: Tsit5 under ``jit``, gradients by its own checkpointing through the steps.

States and log-densities of all rows are one system, as in FastCNF and torchdiffeq, and its steps
are chosen by the same norm: the larger of the two root mean squares. Diffrax's default, one root
mean square over all numbers, would give the log-density less weight. The first step is given: with
``dt0=None`` diffrax 0.7 takes 0.01 for any ODE, hence one step more than others do.

References:
    On Neural Differential Equations (Kidger, 2021), https://arxiv.org/abs/2202.02435
"""

from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import optimistix
from jax import Array

from benchmarks.common.workloads import Workload
from benchmarks.peers.jax_flow import JaxFlow, Weights, layers_at, rates


class DiffraxFlow(JaxFlow):
    """As `JaxFlow`, with steps of diffrax.

    Args:
        control: The tolerance, absolute and relative, and the first step.
        arguments: As of `JaxFlow`.
    """

    def __init__(
        self, control: tuple[float, float], workload: Workload, form: str, *arguments: Any
    ) -> None:
        tolerance, first_step = control
        controller = diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_largest)

        def solution(weights: Weights, z: Array, logp: Array, probes: Array) -> Any:
            return diffrax.diffeqsolve(
                diffrax.ODETerm(velocity),
                diffrax.Tsit5(),
                t0=0.0,
                t1=1.0,
                dt0=first_step,
                y0=(z, logp[:, 0]),
                args=(weights, probes),
                stepsize_controller=controller,
            )

        def velocity(t: Array, state: tuple[Array, Array], given: Any) -> tuple[Array, Array]:
            weights, probes = given
            value, trace = rates(workload, form, layers_at(workload, weights, t), state[0], probes)
            return value, -trace

        self._solution = solution
        super().__init__(workload, form, *arguments)
        _, *states = arguments
        self._states = tuple(map(jnp.asarray, states))
        self._stats = jax.jit(lambda *given: solution(*given).stats)

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
        z_path, logp_path = self._solution(weights, z, logp, probes).ys
        return z_path[-1], logp_path[-1][:, None]

    def evaluations(self) -> int:
        """Of the velocity: six an attempt, since the last is the next one's first, and that one."""
        return 1 + 6 * int(self._stats(self._inputs[0], *self._states)["num_steps"])


def _largest(state: Any) -> Array:
    """The larger root mean square of states and log-densities."""
    return jnp.stack([optimistix.rms_norm(part) for part in jax.tree.leaves(state)]).max()
