"""How the gateway is, with causes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from telegram_stack.sinks.base import Observer
from telegram_stack.spool import Entry, Spool
from telegram_stack.telegram.channels import Channels
from telegram_stack.telegram.recovery import Progress
from telegram_stack.telegram.source import TelegramSource
from telegram_stack.telegram.sync import SyncProgress

Status = Literal["healthy", "degraded", "unauthenticated", "unhealthy"]


_NAMED = 100


class SinkHealth(msgspec.Struct, rename="camel"):
    """How a sink is. `lag` counts entries, `oldest_seconds` is the age of the first of them."""

    available: bool
    lag: int
    oldest_seconds: float
    quarantined: int
    reason: str = ""


class Health(msgspec.Struct, rename="camel", kw_only=True):
    """The whole answer.

    `recovering` counts the channels of which something may be missing, `gaps` names the first 100 of them; `recovery`
    says how far that is, `sync` how far a backfill on request, `floodWaits` which of Telegram's methods must not be
    used for how many seconds. `spoolReserveBytes` is what a full disk can be given back; 0 while it is given back.
    """

    status: Status
    causes: list[str]
    connected: bool
    telegram: str
    version: str
    uptime_seconds: float
    channels: int
    recovering: int
    gaps: list[str]
    recovery: Progress
    sync: SyncProgress
    flood_waits: dict[str, int]
    spool_pending: int
    spool_sequence: int
    spool_reserve_bytes: int
    sinks: dict[str, SinkHealth]

    @property
    def serving(self) -> bool:
        """Whether the gateway does its work, if with limits: HTTP 200 or 503."""
        return self.status in ("healthy", "degraded")


class HealthCheck(Observer):
    """Remembers how each sink's last write went and adds what source and spool say."""

    def __init__(
        self,
        source: TelegramSource,
        spool: Spool,
        channels: Channels,
        sinks: Sequence[str],
        version: str,
        *,
        sync: Callable[[], SyncProgress] = SyncProgress,
        late_seconds: float = 30.0,
    ) -> None:
        self._source = source
        self._spool = spool
        self._channels = channels
        self._reasons = dict.fromkeys(sinks, "")
        self._version = version
        self._sync = sync
        self._late_seconds = late_seconds
        self._started = time.monotonic()

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """The sink works."""
        if entries:
            self._reasons[sink] = ""

    def unavailable(self, sink: str, reason: str) -> None:
        """The sink was tried in vain."""
        self._reasons[sink] = reason

    def rejected(self, sink: str, entries: Sequence[Entry], reason: str) -> None:
        """Quarantine is counted by the spool."""

    async def check(self) -> Health:
        """How the gateway is now."""
        quarantined = await self._spool.quarantined()
        sinks = {}
        for name, reason in self._reasons.items():
            oldest = await self._spool.oldest_waiting(name)
            sinks[name] = SinkHealth(
                available=not reason,
                lag=self._spool.lag(name),
                oldest_seconds=0.0 if oldest is None else round(max(0.0, time.time() - oldest), 3),
                quarantined=quarantined.get(name, 0),
                reason=reason,
            )
        status, causes = self._judge(sinks)
        gaps = self._channels.open
        return Health(
            status=status,
            causes=causes,
            connected=self._source.state == "connected",
            telegram=self._source.state,
            version=self._version,
            uptime_seconds=round(time.monotonic() - self._started, 1),
            channels=sum(1 for channel_id in self._channels.known if self._channels.accepts(channel_id)),
            recovering=len(gaps),
            gaps=[str(channel_id) for channel_id in gaps[:_NAMED]],
            recovery=self._source.progress,
            sync=self._sync(),
            flood_waits={method: math.ceil(seconds) for method, seconds in self._source.floods.waiting().items()},
            spool_pending=self._spool.pending,
            spool_sequence=self._spool.last_seq,
            spool_reserve_bytes=self._spool.reserve_bytes,
            sinks=sinks,
        )

    def _judge(self, sinks: dict[str, SinkHealth]) -> tuple[Status, list[str]]:
        causes = []
        for name, sink in sinks.items():
            if sink.reason:
                causes.append(f"{name} is unavailable ({sink.reason}): {sink.lag} events wait in the spool")
            elif sink.oldest_seconds > self._late_seconds:
                causes.append(f"{name} is {sink.oldest_seconds:.0f} s behind: {sink.lag} events wait in the spool")
            if sink.quarantined:
                causes.append(f"{name} has refused {sink.quarantined} events for good: they are in quarantine")
        status: Status = "degraded" if causes else "healthy"
        if self._spool.failure is not None:
            causes.insert(0, f"the spool cannot be written: {self._spool.failure}")
            status = "unhealthy"
        if self._source.state == "unauthenticated":
            return "unauthenticated", [self._source.cause, *causes]
        if self._source.state != "connected":
            return "unhealthy", [f"not connected to Telegram: {self._source.cause or self._source.state}", *causes]
        return status, causes
