"""Link previews that come after their message: Telegram fetches a page that it does not know yet."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from telethon.tl import types

_REMEMBERED = 1000


class Previews:
    """Remembers the most recent messages whose preview is still to come."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[int, list[Any]] = OrderedDict()

    def expect(self, message: Any) -> None:
        """Remember `message` when its preview is pending."""
        page = getattr(getattr(message, "media", None), "webpage", None)
        if isinstance(page, types.WebPagePending):
            waiting = self._waiting.setdefault(page.id, [])
            waiting[:] = [
                *(other for other in waiting if (other.peer_id, other.id) != (message.peer_id, message.id)),
                message,
            ]
            if len(self._waiting) > _REMEMBERED:
                self._waiting.popitem(last=False)

    def arrived(self, update: Any) -> list[Any]:
        """The messages of the update's channel that wait for its page, with the page."""
        waiting = self._waiting.get(update.webpage.id, [])
        found = [message for message in waiting if message.peer_id.channel_id == update.channel_id]
        if not isinstance(update.webpage, types.WebPagePending):
            waiting[:] = [message for message in waiting if message not in found]
            if not waiting:
                self._waiting.pop(update.webpage.id, None)
        for message in found:
            message.media.webpage = update.webpage
        return found
