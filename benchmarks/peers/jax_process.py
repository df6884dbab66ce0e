"""JAX in a process of its own, which answers over a pipe.

JAX makes a thread for each core that its process may use when it is imported: so this one keeps to
as many cores as PyTorch has threads. It times its calls itself: neither the pipe nor a conversion
of arrays is in a sample.
"""

import os
from functools import cache
from itertools import count
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from benchmarks.compare import CLOCKS


class JaxProcess:
    """A process that runs JAX on so many cores, with or without float64, until this one ends."""

    def __init__(self, threads: int, double: bool) -> None:
        # Not forked: the fork of a process with PyTorch's threads would have locks but no threads.
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, threads, double), daemon=True).start()
        theirs.close()

    def ask(self, name: str, *arguments: object) -> Any:
        """What the method of `_Flows` of this name answers, or the error that it raises."""
        self._connection.send((name, arguments))
        answer = self._connection.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


@cache
def jax_process(threads: int, double: bool) -> JaxProcess:
    """The one process of this kind."""
    return JaxProcess(threads, double)


def _serve(connection: Connection, threads: int, double: bool) -> None:
    os.environ["JAX_ENABLE_X64"] = str(int(double))
    if hasattr(os, "sched_setaffinity"):  # Linux
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    flows = _Flows()
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = getattr(flows, name)(*arguments)
        except Exception as error:
            answer = error
        connection.send(answer)


class _Flows:
    """What the process does, by the names that it is asked for."""

    def __init__(self) -> None:
        self._flows: dict[int, Any] = {}
        self._keys = count()

    def build(self, control: tuple[float, float] | None, *arguments: Any) -> int:
        """Make a `benchmarks.peers.jax_flow.JaxFlow` or, with a control of steps, a
        `benchmarks.peers.diffrax_flow.DiffraxFlow`; the key that it is kept under."""
        # Imported only now: before, the cores and the environment had to be set.
        key = next(self._keys)
        if control is None:
            from benchmarks.peers.jax_flow import JaxFlow

            self._flows[key] = JaxFlow(*arguments)
        else:
            from benchmarks.peers.diffrax_flow import DiffraxFlow

            self._flows[key] = DiffraxFlow(control, *arguments)
        return key

    def drop(self, key: int) -> None:
        """Free the memory of a flow."""
        del self._flows[key]

    def results(self, key: int, mode: str) -> list[np.ndarray]:
        """As `benchmarks.peers.jax_flow.JaxFlow.results`."""
        results: list[np.ndarray] = self._flows[key].results(mode)
        return results

    def seconds(self, key: int, mode: str, clock: str) -> float:
        """What one call takes."""
        now, flow = CLOCKS[clock], self._flows[key]
        began = now()
        flow.run(mode)
        return now() - began

    def evaluations(self, key: int) -> int:
        """Of the velocity, in a solve."""
        evaluations: int = self._flows[key].evaluations()
        return evaluations

    def cores(self) -> int:
        """As many as this process may use."""
        return len(os.sched_getaffinity(0))
