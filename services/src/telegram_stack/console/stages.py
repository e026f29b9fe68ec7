"""The way of a message, stage by stage: how many a second, how far behind, and the last half hour of it."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from telegram_stack.api.config import WorkerConfig
from telegram_stack.api.errors import ApiError
from telegram_stack.api.gateway_client import GatewayClient
from telegram_stack.api.health import UnhealthyError, http_get

_log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two looks."""
KEPT = 181
_RATE_LOOKS = 3  # the present rate is of so many
_LATE_SECONDS = 30.0
_NAMES = {"database": "Store", "cache": "Cache", "queue": "Queue"}
_DONE = ("published", "ignored", "deleted", "failed")


@dataclass(frozen=True)
class Look:
    """Counters at a time: how many events each stage had done since its beginning. What did not answer is absent."""

    at: float
    done: Mapping[str, float]


@dataclass(frozen=True)
class Stage:
    """One stage as a page shows it. `rate` in events a second; `points` are rates of the past, the newest last.

    `state` is ok, late, down or unknown; `lag` says in words how far behind it is.
    """

    name: str
    title: str
    state: str
    lag: str
    rate: float | None
    points: tuple[float | None, ...] = ()
    reason: str = ""


class Stages:
    """Looks at gateway and worker now and then, whether anybody watches or not."""

    def __init__(
        self, gateway: GatewayClient, worker: WorkerConfig, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._gateway = gateway
        self._worker = worker
        self._clock = clock
        self._looks: deque[Look] = deque(maxlen=KEPT)
        self._health: dict[str, Any] | None = None
        self._problem = "it was not asked yet"
        self._worker_problem = "it was not asked yet"
        self._latency: tuple[float, float] | None = None
        self._typical: float | None = None

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            try:
                await self.look()
            except Exception:
                _log.exception("the console cannot look at the stages")
            await asyncio.sleep(EVERY)

    async def look(self) -> None:
        """Look once."""
        done: dict[str, float] = {}
        try:
            health = await self._gateway.health()
            done = _gateway_counters(health)
            self._health, self._problem = health, ""
        except (ApiError, KeyError, TypeError) as error:
            self._health = None
            self._problem = error.message if isinstance(error, ApiError) else f"its health lacks {error}"
        done |= await self._look_at_worker()
        self._looks.append(Look(self._clock(), done))

    async def _look_at_worker(self) -> dict[str, float]:
        try:
            config = self._worker
            code, text = await http_get(config.host, config.port, "/metrics", config.timeout)
            if code != 200:
                raise UnhealthyError(f"its metrics port answers {code}")
        except UnhealthyError as error:
            self._worker_problem, self._typical = str(error), None
            return {}
        figures = _figures(text.decode(errors="replace"))
        latency = (
            figures.get("telegram_worker_latency_seconds_sum", 0.0),
            figures.get("telegram_worker_latency_seconds_count", 0.0),
        )
        if self._latency is not None and latency[1] > self._latency[1]:
            self._typical = (latency[0] - self._latency[0]) / (latency[1] - self._latency[1])
        self._latency = latency
        self._worker_problem = ""
        return {"worker": sum(figures.get(f'telegram_worker_messages_total{{status="{state}"}}', 0) for state in _DONE)}

    def stages(self) -> list[Stage]:
        """All of them, in the order of a message's way."""
        return [*self._gateway_stages(), self._worker_stage()]

    def _gateway_stages(self) -> list[Stage]:
        health = self._health
        if health is None:
            titles = {"receipt": "Receipt", "spool": "Spool", **_NAMES}
            lag = "not known without the gateway"
            stages = [self._stage(name, title, "unknown", lag) for name, title in titles.items()]
            return [replace(stages[0], reason=self._problem), *stages[1:]]
        connected = health["connected"]
        pending = health["spoolPending"]
        found = [
            self._stage(
                "receipt", "Receipt", "ok" if connected else "down",
                "connected to Telegram" if connected else "no connection to Telegram",
                "" if connected else "; ".join(health["causes"]),
            ),
            self._stage("spool", "Spool", "ok", f"{_events(pending)} to be written"),
        ]  # fmt: skip
        for name, sink in health["sinks"].items():
            late = sink["oldestSeconds"] > _LATE_SECONDS
            state = "down" if not sink["available"] else "late" if late or sink["quarantined"] else "ok"
            lag = f"{_events(sink['lag'])} behind"
            if sink["lag"] and sink["oldestSeconds"] >= 1:
                lag += f", the first for {sink['oldestSeconds']:.0f} s"
            reason = sink["reason"]
            if sink["quarantined"]:
                reason += f"{'; ' if reason else ''}{_events(sink['quarantined'])} refused for good, in quarantine"
            found.append(self._stage(name, _NAMES.get(name, name), state, lag, reason))
        return found

    def _worker_stage(self) -> Stage:
        if self._worker_problem:
            return self._stage("worker", "Worker", "unknown", "", self._worker_problem)
        lag = "nothing done since the console began to look"
        if self._typical is not None:
            lag = f"{self._typical * 1000:.0f} ms from receipt to effect"
        late = self._typical is not None and self._typical > _LATE_SECONDS
        return self._stage("worker", "Worker", "late" if late else "ok", lag)

    def _stage(self, name: str, title: str, state: str, lag: str, reason: str = "") -> Stage:
        looks = list(self._looks)
        rates = [_rate(name, first, second) for first, second in itertools.pairwise(looks)]
        present = _rate(name, looks[max(0, len(looks) - 1 - _RATE_LOOKS)], looks[-1]) if len(looks) > 1 else None
        return Stage(name, title, state, lag, present, tuple(rates), reason)


def chart(points: tuple[float | None, ...], width: float, height: float) -> list[str]:
    """The rates as lines (``x,y x,y …``) in a picture of `width` by `height`, the newest at the right edge.

    Where a rate is not known the line is broken.
    """
    top = max((point for point in points if point is not None), default=0.0) or 1.0
    step = width / (KEPT - 2)
    lines: list[list[str]] = [[]]
    for place, point in enumerate(points, start=KEPT - 1 - len(points)):
        if point is None:
            lines.append([])
        else:
            lines[-1].append(f"{place * step:.1f},{height - 1 - point / top * (height - 2):.1f}")
    return [" ".join(line) for line in lines if len(line) > 1]


def _rate(name: str, first: Look, second: Look) -> float | None:
    """None where one of them did not know, or where the count began anew."""
    if name not in first.done or name not in second.done or second.at <= first.at:
        return None
    events = second.done[name] - first.done[name]
    return events / (second.at - first.at) if events >= 0 else None


def _gateway_counters(health: Mapping[str, Any]) -> dict[str, float]:
    """Each sink has done what the spool has, but for what it is behind."""
    sequence = health["spoolSequence"]
    sinks = {name: sequence - sink["lag"] for name, sink in health["sinks"].items()}
    return {"receipt": sequence + health["spoolPending"], "spool": sequence, **sinks}


def _figures(text: str) -> dict[str, float]:
    """The worker's samples of Prometheus' text format, by name and labels as they stand there."""
    found = {}
    for line in text.splitlines():
        if line.startswith(("telegram_worker_messages_total{", "telegram_worker_latency_seconds_")):
            name, _, value = line.rpartition(" ")
            found[name] = float(value)
    return found


def _events(count: int) -> str:
    return "1 event" if count == 1 else f"{count} events"
