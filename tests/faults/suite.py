"""One injection: load, fault, recovery, and the books."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from random import Random

import httpx
import msgspec
from tests.faults.faults import Row, fault
from tests.faults.ledger import Account, Ledger
from tests.faults.probes import Probe, probes
from tests.faults.stack import Stack, answers
from tests.integration.servers import wait_until

RATE = 200.0
EDIT_EVERY, DELETE_EVERY = 10, 25
CAUGHT_UP_SECONDS = 1.0
"""A message whose effect takes longer is late: the chain has not caught up."""
RECOVERY_LIMIT, SETTLE_LIMIT = 120.0, 30.0
_WARM, _QUIET, _AFTER = 1.0, 1.5, 2.0
_BUCKET = math.log(1.05)
_FAILOVERS_APART = 22.0
"""Sentinel waits twice its fail-over timeout before it tries the same primary again."""


class Latencies(msgspec.Struct):
    """Seconds from post to first effect, counted in classes 5 % wide; `highest` is exact."""

    classes: dict[int, int] = msgspec.field(default_factory=dict)
    highest: float = 0.0

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Latencies:
        """Those of some messages."""
        classes = Counter(math.ceil(math.log(max(value, 1e-4)) / _BUCKET) for value in seconds)
        return cls(dict(classes), max(seconds, default=0.0))

    def plus(self, other: Latencies) -> Latencies:
        """Both together."""
        return Latencies(dict(Counter(self.classes) + Counter(other.classes)), max(self.highest, other.highest))

    def percentile(self, percent: float) -> float | None:
        """The upper bound of the class in which it lies; None without any message."""
        wanted, seen = sum(self.classes.values()) * percent / 100, 0
        for number in sorted(self.classes):
            seen += self.classes[number]
            if seen >= wanted:
                return min(math.exp(number * _BUCKET), self.highest)
        return None


class Injection(msgspec.Struct):
    """What one injection did. `recovery` in seconds; `troubles` are what the parts said, `restarts` by component."""

    sent: int
    edited: int
    deleted: int
    durable: int
    published: int
    published_again: int
    effects: int
    lost: int
    not_stored: int
    not_published: int
    not_effected: int
    duplicate_effects: int
    reordered: int
    recovery: float
    serving: dict[str, float]
    caught_up: float
    during: Latencies
    after: Latencies
    troubles: dict[str, list[str]]
    seed: int = 0
    fault_seconds: float = 0.0
    restarts: dict[str, int] = msgspec.field(default_factory=dict)


class NotRecoveredError(AssertionError):
    """The chain did not come back within the limit."""


class Suite:
    """Injections into one stack, one after the other."""

    def __init__(self, stack: Stack, resources: ExitStack) -> None:
        self.stack = stack
        self.ledger = Ledger(stack)
        self.ledger.prepare()
        self._last_failover = 0.0
        self._probes: list[Probe] = probes(stack)
        for probe in self._probes:
            resources.callback(probe.close)

    def inject(self, row: Row, seed: int) -> Injection:
        """One injection of `row`. Raises FaultNotSeenError or NotRecoveredError."""
        random = Random(seed)  # noqa: S311 - spreads the moments
        self._ready(row)
        starts = self._starts()
        self.ledger.begin(time.time())
        self._load(True)
        _pace(_WARM + random.random())
        seconds = row.seconds * random.uniform(0.8, 1.2)
        begun = time.time()
        with fault(self.stack, row):
            ended = time.time()
            _pace(seconds)
        if seconds:
            ended = time.time()
        if row.component == "redis":
            self._last_failover = time.monotonic()
        if row.name == "telegram:kill":  # the load died with it
            wait_until(lambda: answers(f"{self.stack.control}/health"), RECOVERY_LIMIT)
            self._load(True)
        self._recovered(row)
        _pace(_AFTER)
        self._load(False)
        account = self._settled()
        found = self._result(account, begun, ended)
        return msgspec.structs.replace(
            found,
            seed=seed,
            fault_seconds=round(ended - begun, 3) if seconds else 0.0,
            restarts=dict(self._starts() - starts),
        )

    def _ready(self, row: Row) -> None:
        """Nothing is left over from what was before."""
        wait_until(self._well, RECOVERY_LIMIT)
        if row.component in ("redis", "sentinel"):
            cache = self.stack.cache
            wait_until(lambda: cache.replicated() and cache.can_fail_over(), RECOVERY_LIMIT)
            _pace(self._last_failover + _FAILOVERS_APART - time.monotonic())

    def _well(self) -> bool:
        programs = self.stack.supervisor.programs.values()
        return all(program.alive for program in programs) and all(probe.well_for(_QUIET) for probe in self._probes)

    def _recovered(self, row: Row) -> None:
        deadline = time.monotonic() + RECOVERY_LIMIT
        while not self._well():
            if time.monotonic() > deadline:
                now = {probe.name: probe.troubles(time.time() - 5) for probe in self._probes}
                starts = dict(self._starts())
                raise NotRecoveredError(f"{row.name}: not recovered after {RECOVERY_LIMIT:g} s: {now}; {starts}")
            time.sleep(0.05)

    def _load(self, on: bool) -> None:
        url = f"{self.stack.control}/load"
        if on:
            body = {"rate": RATE, "edit_every": EDIT_EVERY, "delete_every": DELETE_EVERY}
            httpx.post(url, json=body, timeout=10).raise_for_status()
        else:
            httpx.delete(url, timeout=10).raise_for_status()

    def _settled(self) -> Account:
        """The books once nothing is missing; after a while as they are."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while (account := self.ledger.account()).lost and time.monotonic() < deadline:
            time.sleep(0.3)
        return account

    def _starts(self) -> Counter[str]:
        return Counter({name: program.starts for name, program in self.stack.supervisor.programs.items()})

    def _result(self, account: Account, begun: float, ended: float) -> Injection:
        late = [sent + took for sent, took in account.latencies if took > CAUGHT_UP_SECONDS and sent > begun - 1]
        caught_up = max(0.0, max(late, default=ended) - ended)
        serving = {probe.name: round(probe.serving_from(ended) - ended, 3) for probe in self._probes}
        recovery = max(caught_up, *serving.values())
        during = [took for sent, took in account.latencies if begun <= sent <= ended + recovery]
        after = [took for sent, took in account.latencies if sent > ended + recovery]
        return Injection(
            sent=len(account.sent),
            edited=sum(sent.edited for sent in account.sent.values()),
            deleted=sum(sent.deleted for sent in account.sent.values()),
            durable=account.durable,
            published=account.published,
            published_again=account.published_again,
            effects=account.effects,
            lost=len(account.lost),
            not_stored=len(account.not_stored),
            not_published=len(account.not_published),
            not_effected=len(account.not_effected),
            duplicate_effects=account.duplicate_effects,
            reordered=account.reordered,
            recovery=round(recovery, 3),
            serving=serving,
            caught_up=round(caught_up, 3),
            during=Latencies.of(during),
            after=Latencies.of(after),
            troubles={probe.name: probe.troubles(begun)[:10] for probe in self._probes},
        )


def _pace(seconds: float) -> None:
    """Let the load run on, or the fault last: no result is waited for."""
    time.sleep(max(0.0, seconds))
