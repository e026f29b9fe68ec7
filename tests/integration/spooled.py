"""What the spool hands to sinks: events of channels that no other test writes to."""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from telegram_stack import events
from telegram_stack.events import Content, Event, version_of
from telegram_stack.spool import Entry

new_channels = itertools.count(-1001)
_numbers = itertools.count(1)


@pytest.fixture
def channel() -> int:
    """A channel that no other test writes to."""
    return next(new_channels)


def state(channel: int, message_id: int, text: str = "hello", edited: int = 0, **fields: Any) -> Event:
    """A message of today's first second, or its edit so many seconds later."""
    content = fields.pop("content", Content(text=text))
    date = fields.pop("date", datetime.now(UTC).replace(microsecond=0))
    edit_date = date + timedelta(seconds=edited) if edited else None
    return Event(
        kind="edit" if edited else "new",
        channel_id=channel,
        message_id=message_id,
        version=version_of(content, date, edit_date),
        received_at=events.utc_now(),
        message_date=date,
        edit_date=edit_date,
        content=content,
        **fields,
    )


def entries(*found: Event) -> list[Entry]:
    return [Entry(next(_numbers), event, events.encode(event), time.time()) for event in found]
