"""The path of single messages with their times, for the last few thousand."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from telegram_stack.spool import Entry

_STEPS = {"database": "stored", "queue": "published", "cache": "cached"}


class Path(msgspec.Struct, kw_only=True):
    """When one version of a message passed each step, in seconds since the epoch; None where it has not.

    `message_date` is Telegram's, in whole seconds; a deletion has none.
    """

    channel_id: int
    message_id: int
    version: int
    kind: str
    message_date: float | None
    received: float
    spooled: float
    stored: float | None = None
    published: float | None = None
    cached: float | None = None


class Trace:
    """Remembers the last `capacity` events that a sink has done."""

    def __init__(self, capacity: int = 5000) -> None:
        self._capacity = capacity
        self._paths: OrderedDict[tuple[int, int, int], Path] = OrderedDict()
        self._newest: dict[tuple[int, int], int] = {}

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """`entries` are durable in `sink`."""
        now = time.time()
        for entry in entries:
            event = entry.event
            key = (event.channel_id, event.message_id, event.version)
            path = self._paths.get(key)
            if path is None:
                path = self._paths[key] = Path(
                    channel_id=event.channel_id,
                    message_id=event.message_id,
                    version=event.version,
                    kind=event.kind,
                    message_date=None if event.message_date is None else event.message_date.timestamp(),
                    received=event.received_at.timestamp(),
                    spooled=entry.spooled_at,
                )
                self._newest[event.key] = max(event.version, self._newest.get(event.key, 0))
            if sink in _STEPS:
                setattr(path, _STEPS[sink], now)
        while len(self._paths) > self._capacity:
            (channel_id, message_id, version), _ = self._paths.popitem(last=False)
            if self._newest.get((channel_id, message_id)) == version:
                del self._newest[channel_id, message_id]

    def paths(self) -> list[Path]:
        """Every path that is remembered, the oldest first."""
        return list(self._paths.values())

    def path(self, channel_id: int, message_id: int) -> Path | None:
        """The path of the message's newest version."""
        version = self._newest.get((channel_id, message_id))
        return None if version is None else self._paths.get((channel_id, message_id, version))
