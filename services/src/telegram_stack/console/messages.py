"""Messages as they come, and those that were."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlencode

from telegram_stack.console.door import Page, Visit

SHOWN = 50


async def show(visit: Visit) -> dict[str, Any]:
    """The newest of a filter, or those behind a cursor; found by words where there are some."""
    words, channel, cursor = visit.query("q"), visit.query("channelId"), visit.query("cursor")
    query = {"channelId": channel, "cursor": cursor, "limit": SHOWN}
    if words:
        found = visit.part("GET", "/api/messages/search", query={**query, "q": words})
    else:
        found = visit.part("GET", "/api/messages", query={**query, "includeDeleted": "true"})
    messages, registry = await asyncio.gather(found, visit.part("GET", "/api/channels"))
    filters = {name: value for name, value in (("q", words), ("channelId", channel)) if value}
    names = {row.channel_id: row.label or row.title or row.username for row in registry.data or ()}
    following = messages.data.next_cursor if messages.data else None
    return {
        "words": words,
        "channel": channel,
        "names": names,
        "messages": messages,
        "live": not cursor,
        "first": f"?{urlencode(filters)}",
        "older": f"?{urlencode({**filters, 'cursor': following})}" if following else None,
    }


PAGE = Page(path="/console/messages", title="Messages", template="messages.html", show=show)
