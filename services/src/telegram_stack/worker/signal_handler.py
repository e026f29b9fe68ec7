"""The first handler: trading signals, one row a message in ``telegram.signals``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from telegram_stack.worker.handlers import Effect
from telegram_stack.worker.signals import NoSignal, parse

if TYPE_CHECKING:
    from telegram_stack.database import Connection
    from telegram_stack.events import Event

_UPSERT = """
INSERT INTO telegram.signals AS s (
  channel_id, message_id, version, asset, signal_type, buy_min, buy_max, target_1, target_2, target_final, stop,
  raw_message, source, message_date
)
SELECT * FROM unnest(
  %b::bigint[], %b::bigint[], %b::bigint[], %b::text[], %b::text[], %b::numeric[], %b::numeric[], %b::numeric[],
  %b::numeric[], %b::numeric[], %b::numeric[], %b::text[], %b::text[], %b::timestamptz[]
)
ON CONFLICT (channel_id, message_id) DO UPDATE SET
  version = excluded.version, asset = excluded.asset, signal_type = excluded.signal_type, buy_min = excluded.buy_min,
  buy_max = excluded.buy_max, target_1 = excluded.target_1, target_2 = excluded.target_2,
  target_final = excluded.target_final, stop = excluded.stop, raw_message = excluded.raw_message,
  source = excluded.source, message_date = excluded.message_date
WHERE excluded.version > s.version
"""


class SignalHandler:
    """Parses each text or caption; what is no signal is ignored with the parser's reason."""

    def handle(self, event: Event) -> Effect:
        """Read the signal in `event`."""
        found = parse(event.content.text if event.content else "")
        if isinstance(found, NoSignal):
            return Effect("ignored", reason=found.reason)
        return Effect("published", metadata={"signal_asset": found.asset}, value=found)

    async def store(self, connection: Connection, effects: Sequence[tuple[Event, Effect]]) -> None:
        """Upsert the signals."""
        rows = [
            (
                event.channel_id,
                event.message_id,
                event.version,
                signal.asset,
                signal.signal_type,
                signal.buy_min,
                signal.buy_max,
                signal.target_1,
                signal.target_2,
                signal.target_final,
                signal.stop,
                event.content.text if event.content else "",
                event.source,
                event.message_date or event.received_at,
            )
            for event, effect in effects
            for signal in (effect.value,)
        ]
        await connection.execute(_UPSERT, [list(column) for column in zip(*rows, strict=True)])
