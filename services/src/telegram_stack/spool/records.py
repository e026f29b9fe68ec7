"""What the spool holds, and how it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from telegram_stack.events import Event


class SpoolError(Exception):
    """The spool cannot be opened; the message says what to do."""


class SpoolFullError(Exception):
    """Too many events wait for a spool that cannot be written."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An event as the spool holds it. `spooled_at` is the time of its commit group, in seconds since the epoch."""

    seq: int
    event: Event
    body: bytes
    spooled_at: float


class Channel(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway knows of a channel.

    Everything up to `last_message_id` is in the spool; `pts` is Telegram's counter of the channel at that point.
    `registered` mirrors ``telegram.channels``: active, inactive, or None where the table does not have it.
    """

    channel_id: int
    access_hash: int | None = None
    title: str | None = None
    username: str | None = None
    last_message_id: int | None = None
    pts: int | None = None
    registered: bool | None = None
