"""Which messages the handler sees."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from telegram_stack.events import Event
    from telegram_stack.worker.config import FilterConfig


class Filter:
    """The configured conditions; all of them must hold."""

    def __init__(self, config: FilterConfig) -> None:
        self._channels = frozenset(config.channels)
        self._types = frozenset(config.message_types)
        self._sources = frozenset(config.sources)
        self._matches = re.compile(config.text_matches, re.IGNORECASE) if config.text_matches else None
        self._excludes = re.compile(config.text_excludes, re.IGNORECASE) if config.text_excludes else None

    def refusal(self, event: Event) -> str | None:
        """Why `event` is not for the handler, without a word of its text; None when it is."""
        text = event.content.text if event.content else ""
        message_type = event.content.message_type if event.content else "other"
        if self._channels and event.channel_id not in self._channels:
            return "filtered by channel"
        if self._types and message_type not in self._types:
            return "filtered by message type"
        if self._sources and event.source not in self._sources:
            return "filtered by source"
        if self._matches and not self._matches.search(text):
            return "filtered: text does not match"
        if self._excludes and self._excludes.search(text):
            return "filtered: text is excluded"
        return None
