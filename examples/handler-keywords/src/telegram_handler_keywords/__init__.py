"""Keeps which messages say certain words: a complete handler for the Telegram stack's worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from telegram_stack.worker.handlers import Effect

if TYPE_CHECKING:
    from telegram_stack.database import Connection
    from telegram_stack.events import Event

WORDS = ("dividendo", "split", "fusão")

_UPSERT = """
INSERT INTO keywords.hits AS h (channel_id, message_id, version, words) VALUES (%s, %s, %s, %s)
ON CONFLICT (channel_id, message_id) DO UPDATE SET version = excluded.version, words = excluded.words
WHERE excluded.version > h.version
"""


class KeywordHandler:
    """Looks for `WORDS` in each text or caption."""

    def handle(self, event: Event) -> Effect:
        """Decide, without any I/O. An exception here lets the message come again later."""
        text = event.content.text.casefold() if event.content else ""
        words = [word for word in WORDS if word in text]
        if not words and event.kind == "new":
            return Effect("ignored", reason="no keyword")
        # An edit is kept without a word, too: its message may have had some.
        return Effect("published", metadata={"words": len(words)}, value=words)

    async def store(self, connection: Connection, effects: Sequence[tuple[Event, Effect]]) -> None:
        """Write in the worker's transaction: what is here is committed together with the processed marker."""
        rows = [(*event.key, event.version, effect.value) for event, effect in effects]
        async with connection.cursor() as cursor:
            await cursor.executemany(_UPSERT, rows)
