"""The rows: which fault of which component, how it is brought about, and what proves that it happened."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass

import httpx
from tests.faults.disks import Disk
from tests.faults.links import Link
from tests.faults.stack import Stack
from tests.faults.supervisor import running
from tests.integration.servers import wait_until

OURS = ("gateway", "api", "worker")
KILL_INJECTIONS, OTHER_INJECTIONS = 20, 5

# A cut or a black hole of a service is that of all its own connections, of a server that of all its clients'.
_LINKS = {
    "gateway": ("gateway-telegram", "gateway-pgbouncer", "gateway-rabbitmq", "gateway-sentinel"),
    "api": ("api-pgbouncer", "api-sentinel"),
    "worker": ("worker-pgbouncer", "worker-rabbitmq", "worker-sentinel"),
    "rabbitmq": ("gateway-rabbitmq", "worker-rabbitmq"),
    "sentinel": ("gateway-sentinel", "worker-sentinel", "api-sentinel"),
    "pgbouncer": ("gateway-pgbouncer", "worker-pgbouncer", "api-pgbouncer"),
    "postgresql": ("pgbouncer-postgresql",),
    "telegram": ("gateway-telegram",),
}


# Below its limit of 50 MB RabbitMQ stops its publishers. Filled to the last byte before it looks, which is each 10 s at
# the latest, the log of its quorum queues crashes, and it refuses every message until it is restarted.
_LEFT = {"rabbitmq": 30 << 20}
_RESERVE = 16 << 20
"""What the gateway keeps beside its spool by default, in bytes."""


@dataclass(frozen=True)
class Row:
    """One row of the report. The fault lasts `seconds` (0: it is over at once), give or take a fifth."""

    component: str
    fault: str
    seconds: float

    @property
    def name(self) -> str:
        """As rows are chosen by."""
        return f"{self.component}:{self.fault}"

    @property
    def injections(self) -> int:
        """How many the long form makes."""
        return KILL_INJECTIONS if self.fault == "kill" else OTHER_INJECTIONS

    @property
    def recovery_bar(self) -> float | None:
        """Seconds that the recovery's median may take, where there is a bar."""
        if self.name == "redis:kill":
            return 10.0
        return 5.0 if self.fault == "kill" and self.component in OURS else None


def _rows() -> Iterator[Row]:
    components = ("gateway", "api", "worker", "rabbitmq", "redis", "sentinel", "pgbouncer", "postgresql", "telegram")
    for component in components:
        # Redis is away for longer than Sentinel waits before it fails over.
        away = 9.0 if component == "redis" else 4.0
        yield Row(component, "kill", 0.0)
        yield Row(component, "stop", away)
        yield Row(component, "cut", away)
        yield Row(component, "blackhole", max(8.0, away))
        if component in ("gateway", "postgresql", "rabbitmq"):
            yield Row(component, "full", 15.0 if component == "rabbitmq" else 6.0)


ROWS = {row.name: row for row in _rows()}


class FaultNotSeenError(AssertionError):
    """What was to be brought about did not happen: the row proves nothing."""


@contextmanager
def fault(stack: Stack, row: Row) -> Iterator[None]:
    """The fault, for as long as the block runs; a kill is over when the block begins, and waits for the new process.

    Raises FaultNotSeenError.
    """
    with _FAULTS[row.fault](stack, row.component):
        yield


@contextmanager
def _kill(stack: Stack, component: str) -> Iterator[None]:
    program = stack.program(component)
    before, starts = program.tree(), program.starts
    program.kill()
    _require(not any(running(pid) for pid in before), f"{component} still runs")
    yield
    wait_until(lambda: program.starts > starts and program.alive, program.restart_seconds + 30)
    _require(program.pid != before[0], f"{component} was started again with the same pid")


@contextmanager
def _stop(stack: Stack, component: str) -> Iterator[None]:
    program = stack.program(component)
    pid = program.pid
    program.pause()
    try:
        _require(program.paused, f"{component} runs on after SIGSTOP")
        yield
        _require(program.paused and program.pid == pid, f"{component} did not stay stopped")
    finally:
        program.resume()


@contextmanager
def _cut(stack: Stack, component: str) -> Iterator[None]:
    links = _links(stack, component)
    reset = sum(link.reset for link in links)
    try:
        for link in links:
            link.cut()
        _require(all(link.refuses() for link in links), f"links of {component} still accept")
        _require(component == "sentinel" or sum(link.reset for link in links) > reset, f"{component} had no connection")
        yield
        _require(all(link.refuses() for link in links), f"links of {component} accept again")
    finally:
        for link in links:
            link.open()


@contextmanager
def _black_hole(stack: Stack, component: str) -> Iterator[None]:
    links = _links(stack, component)
    held = sum(link.held for link in links)
    try:
        for link in links:
            link.swallow()
        yield
        # Nobody asks a sentinel while the primary stays, so there may be nothing to hold.
        _require(component == "sentinel" or sum(link.held for link in links) > held, f"{component} missed nothing")
        _require(all(link.swallowing for link in links), f"links of {component} forward again")
    finally:
        for link in links:
            link.open()


@contextmanager
def _full(stack: Stack, component: str) -> Iterator[None]:
    small = stack.disks[component]
    most = _LEFT.get(component, 0) + (1 << 16)
    # What the spool trims may be free at the end: it writes events again only when its reserve has room again.
    trimmed = _RESERVE if component == "gateway" else 1 << 20
    try:
        small.fill(_LEFT.get(component, 0))
        if component == "gateway":
            _until_the_spool_notices(stack, small)
            small.fill()  # what its reserve has given back
        _require(small.free < most, f"{small.free} bytes are free on the disk of {component}")
        yield
        _require(small.free < most + trimmed, f"{small.free} bytes became free on the disk of {component}")
    finally:
        small.clear()
    _require(small.free > most + (1 << 20), f"the disk of {component} stays full")


_FAULTS: dict[str, Callable[[Stack, str], AbstractContextManager[None]]] = {
    "kill": _kill, "stop": _stop, "cut": _cut, "blackhole": _black_hole, "full": _full,
}  # fmt: skip


def _until_the_spool_notices(stack: Stack, small: Disk) -> None:
    """It goes on in the blocks that its log has, maybe for long: cut the log, and take what that frees."""

    def noticed() -> bool:
        with closing(sqlite3.connect(small.folder / "spool.db", timeout=10)) as spool, suppress(sqlite3.Error):
            spool.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        small.fill()
        return "the spool cannot be written" in httpx.get(f"{stack.gateway}/health", timeout=5).text

    wait_until(noticed, 60)


def _links(stack: Stack, component: str) -> list[Link]:
    if component == "redis":
        return [stack.cache.links[stack.cache.primary()]]
    return [stack.links[name] for name in _LINKS[component]]


def _require(condition: bool, otherwise: str) -> None:
    if not condition:
        raise FaultNotSeenError(otherwise)
