"""The path of single messages with their times, for the last few thousand."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from telegram_stack.events import utc_now
from telegram_stack.spool import Entry

_STEPS = {"database": "stored", "queue": "published", "cache": "cached"}


class Path(msgspec.Struct, rename="camel"):
    """When one version of a message passed each step; None where it has not."""

    version: int
    kind: str
    received: datetime
    spooled: datetime
    message_date: datetime | None = None
    stored: datetime | None = None
    published: datetime | None = None
    cached: datetime | None = None


class Trace:
    """Remembers the last `capacity` events that a sink has done."""

    def __init__(self, capacity: int = 5000) -> None:
        self._capacity = capacity
        self._paths: OrderedDict[tuple[int, int, int], Path] = OrderedDict()

    def written(self, sink: str, entries: Sequence[Entry]) -> None:
        """`entries` are durable in `sink`."""
        now = utc_now()
        for entry in entries:
            event = entry.event
            key = (event.channel_id, event.message_id, event.version)
            path = self._paths.get(key)
            if path is None:
                spooled = datetime.fromtimestamp(entry.spooled_at, UTC)
                path = Path(event.version, event.kind, event.received_at, spooled, event.message_date)
                self._paths[key] = path
            setattr(path, _STEPS[sink], now)
        while len(self._paths) > self._capacity:
            self._paths.popitem(last=False)

    def paths(self, channel_id: int, message_id: int) -> list[Path]:
        """The versions of a message, the oldest first."""
        return [path for key, path in self._paths.items() if key[:2] == (channel_id, message_id)]
