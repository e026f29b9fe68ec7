"""A channel's history, page by page."""

from __future__ import annotations

from typing import Any

from telethon import functions
from telethon.tl import types

from telegram_stack.telegram.asking import Telegram
from telegram_stack.telegram.convert import unmarked

PAGE = 100
"""Telegram gives no more messages at once."""


async def history(
    telegram: Telegram,
    channel_id: int,
    access_hash: int,
    *,
    offset_id: int = 0,
    add_offset: int = 0,
    limit: int = PAGE,
) -> Any:
    """Messages below `offset_id`, the newest first; see https://core.telegram.org/api/offsets."""
    return await telegram.ask(
        functions.messages.GetHistoryRequest(
            peer=types.InputPeerChannel(unmarked(channel_id), access_hash),
            offset_id=offset_id,
            offset_date=None,
            add_offset=add_offset,
            limit=limit,
            max_id=0,
            min_id=0,
            hash=0,
        )
    )
