"""The shapes of the answers: the legacy names, and what we know besides. Ids are strings, as they were."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Message(msgspec.Struct, rename="camel", kw_only=True):
    """A message."""

    id: UUID
    channel_id: str
    message_id: str
    thread_id: str | None
    source: str
    message_type: str
    text: str | None
    caption: str | None
    media_type: str | None
    media_refs: list[dict[str, Any]]
    status: str
    received_at: datetime
    telegram_date: datetime
    published_at: datetime | None
    failed_at: datetime | None
    queued_at: datetime | None
    reprocess_requested_at: datetime | None
    reprocessed_at: datetime | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    edit_date: datetime | None
    sender_id: str | None
    grouped_id: str | None
    entities: list[dict[str, Any]]
    reply_to: dict[str, Any] | None
    forward: dict[str, Any] | None


class Channel(msgspec.Struct, rename="camel", kw_only=True):
    """A channel of the registry. `account` is the one whose gateway takes it; empty for the first."""

    id: str
    channel_id: str
    label: str | None
    description: str | None
    title: str | None
    username: str | None
    is_active: bool
    account: str
    last_message_id: str | None
    created_at: datetime
    updated_at: datetime


class Pagination(msgspec.Struct, rename="camel", kw_only=True, omit_defaults=True):
    """Where a page is. `total` and `offset` are absent behind a cursor: to count costs more than the page."""

    total: int | msgspec.UnsetType = msgspec.UNSET
    limit: int
    offset: int | msgspec.UnsetType = msgspec.UNSET
    has_more: bool


class MessagePage(msgspec.Struct, rename="camel", kw_only=True):
    """Messages; `next_cursor` asks for those behind them, None when there are none."""

    success: bool = True
    data: list[Message]
    pagination: Pagination
    next_cursor: str | None


class Unprocessed(msgspec.Struct, rename="camel", kw_only=True):
    """What a consumer has still to do, and the filters as they were understood."""

    success: bool = True
    data: list[Message]
    count: int
    filters: dict[str, Any]


class Marked(msgspec.Struct, rename="camel", kw_only=True):
    """How many were marked; `not_found` are ids as they were given."""

    requested: int
    updated: int
    not_found: list[str]


def number_text(value: int | None) -> str | None:
    """A number of 64 bits as JSON can carry it: as a string."""
    return None if value is None else str(value)
