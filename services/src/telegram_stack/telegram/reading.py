"""What Telegram says, live or asked for, as events whose versions are settled."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from telegram_stack.events import Event, Kind, deletion, utc_now
from telegram_stack.telegram.convert import message_event
from telegram_stack.telegram.previews import Previews
from telegram_stack.telegram.versions import Versions

log = logging.getLogger(__name__)


class Reader:
    """Remembers the last state of recent messages, so that the same thing said twice is one event."""

    def __init__(self, not_converted: Callable[[int | None], None]) -> None:
        """`not_converted` is told of each message that cannot be understood."""
        self._versions = Versions()
        self._previews = Previews()
        self.source = "user_client"
        """Who received it: ``user_client`` or ``bot``."""
        self._not_converted = not_converted

    def message(self, message: Any, kind: Kind, received_at: datetime) -> Event | None:
        """One message; None for what is no event. Raises whatever a message that nobody foresaw causes."""
        event = message_event(message, kind, received_at, self.source)
        self._previews.expect(message)
        return None if event is None else self._versions.settle(event)

    def deleted(self, channel_id: int, message_ids: Iterable[int], received_at: datetime) -> list[Event]:
        """Deletions of one channel."""
        return [self._versions.settle(deletion(channel_id, number, received_at)) for number in message_ids]

    def preview(self, update: Any, received_at: datetime) -> list[Event]:
        """A page came for messages that were received without it."""
        found = [self.message(message, "edit", received_at) for message in self._previews.arrived(update)]
        return [event for event in found if event is not None]

    def messages(self, messages: Iterable[Any], kind: Kind = "new") -> list[Event]:
        """What was asked for; a message that cannot be understood is left out and counted."""
        found = []
        for message in messages:
            try:
                event = self.message(message, kind, utc_now())
            except Exception:
                log.exception("a message cannot be understood", extra={"message_id": getattr(message, "id", None)})
                self._not_converted(None)
                continue
            if event is not None:
                found.append(event)
        return found
