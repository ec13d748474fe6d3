"""Units on the nodes of a Ray cluster, or in threads of this process."""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from .. import __version__, _progress
from .._error import Error
from ._report import FleetReport, noun
from ._search import Found
from ._units import Result, Unit, Work, failed

_LOOK_EVERY = 1.0  # seconds between looks at which nodes there are
_PATIENCE = 60.0  # seconds without any node that has room for a unit
_ANSWERED = 3.0  # seconds until a cluster's head has answered


def run(
    work: Work,
    units: list[Unit],
    found: Found | None = None,
    *,
    address: str,
    cpus: float,
    in_flight: int | None,
    retries: int,
    progress: _progress.Progress = None,
) -> FleetReport:
    began = time.monotonic()
    how: dict[str, Any]
    if address == "local":
        results = _told(_local(work, units, cpus, in_flight), len(units), noun(work.kind), progress)
        how = {"retried": 0, "nodes": 1}
    else:
        cluster = _Cluster(work, address=address, cpus=cpus, in_flight=in_flight, retries=retries)
        results = _told(cluster.results(units), len(units), noun(work.kind), progress)
        how = {"retried": cluster.retried, "nodes": len(cluster.used)}
    results += _unlisted(found)
    how |= {
        "units": len(results),
        "resumed": sum(bool(result.get("resumed")) for result in results),
        "seconds": time.monotonic() - began,
    }
    return FleetReport(work.kind, results, how, found.notes if found else [])


def _unlisted(found: Found | None) -> list[Result]:
    """Nobody knows which adapters are there: a report without them would be of others."""
    hint = "make it readable, or name folders beside it"
    unlisted = found.unlisted.items() if found else ()
    return [failed(Unit(uri), Error(uri, f"cannot be looked into: {why}", hint)) for uri, why in unlisted]


def check(cpus: float, in_flight: int | None, retries: int) -> None:
    if not 0 < cpus < math.inf:
        raise Error("cpus=", f"is {cpus:g}, expected a number above 0", "leave it out for 1")
    if in_flight is not None and in_flight < 1:
        raise Error(
            "in_flight=", f"is {in_flight}, expected 1 or more", "leave it out for twice what runs at once"
        )
    if retries < 0:
        raise Error("retries=", f"is {retries}, expected 0 or more", "leave it out for 3")


def _told(results: Iterable[Result], count: int, name: str, progress: _progress.Progress) -> list[Result]:
    out = []
    with _progress.heard(progress, unit=f" {name}s") as callback:
        for result in results:
            out.append(result)
            if callback is not None:
                callback(f"{name}s", len(out), count)
    return out


def _local(work: Work, units: list[Unit], cpus: float, in_flight: int | None) -> Iterator[Result]:
    """The work is done without the GIL: threads suffice."""
    workers = max(1, int(len(os.sched_getaffinity(0)) / cpus))
    most = in_flight or 2 * workers
    todo = deque(units)
    running: set[Future[Result]] = set()
    with ThreadPoolExecutor(workers) as pool:
        try:
            while todo or running:
                while todo and len(running) < most:
                    running.add(pool.submit(work.do, todo.popleft()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C: those that run are the last


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise Error(
            "ray", "is not installed", 'pip install "moelora[ray]", or use the address "local"'
        ) from None
    return ray


def _connect(ray: Any, address: str) -> None:
    try:
        _check_answered(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Error(
            address,
            f"no Ray cluster can be reached there: {said}",
            'start one (ray start --head), or use the address "local"',
        ) from error


def _check_answered(address: str) -> None:
    """Where nobody listens Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWERED).close()


class _Cluster:
    """Hands units to nodes: to the one with the least to do for its size, never more than it soon
    has room for; what dies with its worker goes to another node."""

    def __init__(self, work: Work, *, address: str, cpus: float, in_flight: int | None, retries: int) -> None:
        self._ray = _import_ray()
        if not self._ray.is_initialized():
            _connect(self._ray, address)
        # What kills a worker is counted and placed here, not in Ray.
        self._task = self._ray.remote(num_cpus=cpus, max_retries=0)(_do)
        self._work = self._ray.put((work, os.getcwd()))
        self._cpus, self._most, self._retries = cpus, in_flight, retries
        self._nodes: dict[str, float] = {}  # how many units each runs at once
        self._looked = -_LOOK_EVERY
        self._had_nodes = time.monotonic()
        self._running: dict[Any, tuple[Unit, int, str]] = {}  # unit, how often it was begun, where
        self._load: Counter[str] = Counter()  # of _running, by node
        self.retried = 0
        self.used: set[str] = set()

    def results(self, units: list[Unit]) -> Iterator[Result]:
        todo: deque[tuple[Unit, int, str]] = deque((unit, 0, "") for unit in units)
        while todo or self._running:
            self._look()
            while todo and (node := self._room(avoid=todo[0][2])):
                self._hand_out(*todo.popleft()[:2], node)
            for ref in self._finished():
                unit, begun, node = self._running.pop(ref)
                self._load[node] -= 1
                result = self._result(ref, unit, begun)
                if result is not None:
                    yield result
                else:
                    self.retried += 1
                    todo.appendleft((unit, begun, node))

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        sizes = {
            node["NodeID"]: node["Resources"].get("CPU", 0) / self._cpus
            for node in self._ray.nodes()
            if node["Alive"]
        }
        self._nodes = {node: size for node, size in sizes.items() if size >= 1}
        if self._nodes or self._running:
            self._had_nodes = now
        elif now - self._had_nodes > _PATIENCE:
            most = max(sizes.values(), default=0) * self._cpus
            raise Error(
                "cpus=",
                f"no node has the {self._cpus:g} CPUs of a unit; the largest of {len(sizes)} has {most:g}",
                "ask for fewer, or add nodes; what is done is kept where there is a state",
            )

    def _room(self, avoid: str) -> str | None:
        """The node for the next unit; None while all have enough."""
        if self._most is not None and len(self._running) >= self._most:
            return None
        fit = {
            node: self._load[node] / size for node, size in self._nodes.items() if self._load[node] < 2 * size
        }
        others = {node: share for node, share in fit.items() if node != avoid}
        if avoid in self._nodes and len(self._nodes) > 1 and not others:
            return None  # another will have room
        return min(others or fit, key=(others or fit).__getitem__, default=None)

    def _hand_out(self, unit: Unit, begun: int, node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=True)  # elsewhere where it is gone by then
        ref = self._task.options(scheduling_strategy=there).remote(self._work, unit)
        self._running[ref] = (unit, begun + 1, node)
        self._load[node] += 1
        self.used.add(node)

    def _finished(self) -> list[Any]:
        """Waits for one, and takes all that are done by then: a question for each costs more the more
        are running."""
        if not self._running:
            time.sleep(0.05)  # no node has room
            return []
        refs = list(self._running)
        done, left = self._ray.wait(refs, num_returns=1, timeout=_LOOK_EVERY)
        if done and left:
            done += self._ray.wait(left, num_returns=len(left), timeout=0)[0]
        return list(done)

    def _result(self, ref: Any, unit: Unit, begun: int) -> Result | None:
        """None where it is to be done again."""
        try:
            result: Result = self._ray.get(ref)
            return result
        except self._ray.exceptions.RayTaskError as error:
            # No unit raises: the worker could not take it.
            said = str(error).strip().splitlines()[-1]
            raise Error(
                "ray", f"a worker cannot run units: {said}", f"install moelora {__version__} on every node"
            ) from error
        except self._ray.exceptions.RayError as error:
            self._looked = -_LOOK_EVERY  # a node may be gone
            if begun <= self._retries:
                return None
            said = f"its worker died {begun} times, last: {str(error).splitlines()[0]}"
            hint = "give a unit more memory (cpus= of more than 1 runs fewer beside it), or look at it alone"
            return failed(unit, Error(unit.name, said, hint))


def _do(work_and_folder: tuple[Work, str], unit: Unit) -> Result:
    work, folder = work_and_folder
    with contextlib.suppress(OSError):  # where relative paths are meant from, if this node has it
        os.chdir(folder)
    return work.do(unit)
