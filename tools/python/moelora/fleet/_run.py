"""Units on the nodes of a Ray cluster, or in threads of this process."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from .._error import Error
from ._report import FleetReport
from ._units import Result, Unit, Work

_LOOK_EVERY = 1.0  # seconds between looks at which nodes there are


def run(
    work: Work, units: list[Unit], *, address: str, cpus: float, in_flight: int | None, retries: int
) -> FleetReport:
    began = time.monotonic()
    how: dict[str, Any]
    if address == "local":
        results, how = _local(work, units, cpus, in_flight), {"retried": 0, "nodes": 1}
    else:
        cluster = _Cluster(work, address=address, cpus=cpus, in_flight=in_flight, retries=retries)
        results = cluster.results(units)
        how = {"retried": cluster.retried, "nodes": len(cluster.used)}
    how |= {
        "units": len(units),
        "resumed": sum(bool(result.get("resumed")) for result in results),
        "seconds": time.monotonic() - began,
    }
    return FleetReport(work.kind, results, how)


def _local(work: Work, units: list[Unit], cpus: float, in_flight: int | None) -> list[Result]:
    """The work is done without the GIL: threads suffice."""
    workers = max(1, int(len(os.sched_getaffinity(0)) / cpus))
    most = in_flight or 2 * workers
    todo, results = deque(units), []
    running: set[Future[Result]] = set()
    with ThreadPoolExecutor(workers) as pool:
        while todo or running:
            while todo and len(running) < most:
                running.add(pool.submit(work.do, todo.popleft()))
            done, running = wait(running, return_when=FIRST_COMPLETED)
            results += [future.result() for future in done]
    return results


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise Error(
            "ray", "is not installed", 'pip install "moelora[ray]", or use the address "local"'
        ) from None
    return ray


class _Cluster:
    """Hands units to nodes: to the one with the least to do for its size, never more than it soon
    has room for; what dies with its worker goes to another node."""

    def __init__(self, work: Work, *, address: str, cpus: float, in_flight: int | None, retries: int) -> None:
        self._ray = _import_ray()
        if not self._ray.is_initialized():
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            except ConnectionError as error:
                raise Error(address, str(error), 'start Ray, or use the address "local"') from None
        # What kills a worker is counted and placed here, not in Ray.
        self._task = self._ray.remote(num_cpus=cpus, max_retries=0)(_do)
        self._work = self._ray.put(work)
        self._cpus, self._most, self._retries = cpus, in_flight, retries
        self._nodes: dict[str, float] = {}
        self._looked = -_LOOK_EVERY
        self._running: dict[Any, tuple[Unit, int, str]] = {}  # unit, how often it was begun, where
        self.retried = 0
        self.used: set[str] = set()

    def results(self, units: list[Unit]) -> list[Result]:
        todo: deque[tuple[Unit, int, str]] = deque((unit, 0, "") for unit in units)
        out: list[Result] = []
        while todo or self._running:
            self._look()
            while todo and (node := self._room(avoid=todo[0][2])):
                self._hand_out(*todo.popleft()[:2], node)
            for ref in self._finished():
                unit, begun, node = self._running.pop(ref)
                result = self._result(ref, unit, begun)
                if result is not None:
                    out.append(result)
                else:
                    self.retried += 1
                    todo.appendleft((unit, begun, node))
        return out

    def _look(self) -> None:
        if time.monotonic() - self._looked < _LOOK_EVERY:
            return
        self._looked = time.monotonic()
        self._nodes = {
            node["NodeID"]: node["Resources"].get("CPU", 0) / self._cpus
            for node in self._ray.nodes()
            if node["Alive"]
        }

    def _room(self, avoid: str) -> str | None:
        """The node for the next unit; None while all have enough."""
        if self._most is not None and len(self._running) >= self._most:
            return None
        load = {node: 0 for node in self._nodes}
        for _, _, node in self._running.values():
            load[node] = load.get(node, 0) + 1
        fit = {
            node: load[node] / size
            for node, size in self._nodes.items()
            if size >= 1 and load[node] < 2 * size
        }
        others = {node: share for node, share in fit.items() if node != avoid}
        if avoid in self._nodes and len(self._nodes) > 1 and not others:
            return None  # another will have room
        return min(others or fit, key=(others or fit).__getitem__, default=None)

    def _hand_out(self, unit: Unit, begun: int, node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=True)  # elsewhere where it is gone by then
        self._running[self._task.options(scheduling_strategy=there).remote(self._work, unit)] = (
            unit,
            begun + 1,
            node,
        )
        self.used.add(node)

    def _finished(self) -> Iterator[Any]:
        if not self._running:
            time.sleep(0.05)  # no node has room
            return iter(())
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=_LOOK_EVERY)
        return iter(done)

    def _result(self, ref: Any, unit: Unit, begun: int) -> Result | None:
        """None where it is to be done again."""
        try:
            return self._ray.get(ref)
        except self._ray.exceptions.RayTaskError:
            raise  # of our own code
        except self._ray.exceptions.RayError as error:
            self._looked = -_LOOK_EVERY  # a node may be gone
            if begun <= self._retries:
                return None
            said = f"its worker died {begun} times, last: {str(error).splitlines()[0]}"
            return {
                "unit": unit.name,
                "error": {"where": unit.name, "what": said, "hint": ""},
                "outcome": "failed",
            }


def _do(work: Work, unit: Unit) -> Result:
    return work.do(unit)
