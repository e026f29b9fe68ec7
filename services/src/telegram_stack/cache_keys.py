"""The cache's keys and how long they live: what gateway, worker and API call alike. Pure data.

The cache is never the only copy, and a write to it may be lost in a fail-over.
"""

from __future__ import annotations

MESSAGE_SECONDS = 3600
"""How long a message stays."""
RECENT_SECONDS = 3600
"""How far back the recent and pending sets go, by the message's date."""
DEDUP_SECONDS = 7200
"""How long it is remembered that a consumer has processed a message."""


MESSAGES = "telegram:msg:"
"""What the names of all messages begin with."""


def message(channel_id: int, message_id: int) -> str:
    """String: the event's body, as the broker carries it."""
    return f"{MESSAGES}{channel_id}:{message_id}"


def recent(channel_id: int) -> str:
    """Sorted set: message ids by date in seconds since the epoch."""
    return f"telegram:channel:{channel_id}:recent"


def pending(consumer: str, channel_id: int) -> str:
    """Sorted set: message ids by date that `consumer` has not processed; it removes them itself."""
    return f"{complete(consumer)}:{channel_id}"


def pending_channels(consumer: str) -> str:
    """Set: the channels in whose pending sets of `consumer` something was put within the hour."""
    return f"{complete(consumer)}:channels"


def complete(consumer: str) -> str:
    """String: the pending sets of `consumer` hold all there is to do, as far as the database knew; gone with them."""
    return f"telegram:pending:{consumer}"


def dedup(consumer: str, channel_id: int, message_id: int, version: int) -> str:
    """String: `consumer` has processed this version. Written after the durable write, never before."""
    return f"telegram:dedup:{consumer}:{channel_id}:{message_id}:{version}"
