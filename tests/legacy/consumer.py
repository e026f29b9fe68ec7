"""The legacy consumer: 100 messages every 5 s by SQL, a signal row or a mark for each.

Run in its folder: `python -m tests.legacy.consumer`. It knows its two databases by their URLs and nothing else, so that
the same statements can be sent to any database that has `telegram_gateway.messages`.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
from tests.legacy import settings

log = logging.getLogger("legacy-consumer")
NAME = "tp-capital"

_POLL = (
    "SELECT channel_id, message_id, coalesce(text, caption, ''), source, telegram_date FROM telegram_gateway.messages"
    " WHERE status = 'received' AND deleted_at IS NULL AND coalesce(metadata ->> 'processed_by', '') <> 'tp-capital'"
    " ORDER BY received_at LIMIT 100"
)
# By number alone: whatever else has this number in another channel counts as published too.
_PUBLISHED = "UPDATE telegram_gateway.messages SET status = 'published', published_at = now() WHERE message_id = %s"
_DONE = (
    "UPDATE telegram_gateway.messages SET metadata = metadata || %s::jsonb WHERE channel_id = %s AND message_id = %s"
)
_KNOWN = "SELECT id FROM tp_capital.tp_capital_signals WHERE channel = %s AND raw_message = %s LIMIT 1"
_SIGNAL = (
    "INSERT INTO tp_capital.tp_capital_signals (channel, raw_message, asset, buy_min, ts, source)"
    " VALUES (%s, %s, %s, %s, %s, 'telegram')"
)
_ASSET = re.compile(r"ATIVO:\s*(\w+)")
_BUY = re.compile(r"COMPRA:\s*(?:R\$\s*)?([\d.]*\d(?:,\d+)?)")


def poll(messages: psycopg.Connection[Any], signals: psycopg.Connection[Any]) -> int:
    """Take what is waiting, at most 100; how many there were."""
    rows = messages.execute(_POLL.encode()).fetchall()
    for channel, number, text, _source, date in rows:
        asset, buy = _ASSET.search(text), _BUY.search(text)
        mark: dict[str, Any] = {"processed_by": NAME, "processed_at": datetime.now(UTC).isoformat()}
        if asset and buy:
            when = date or datetime.now(UTC)
            _keep(signals, str(channel), text, [asset[1], _price(buy[1]), int(when.timestamp() * 1000)])
            mark["signal_asset"] = asset[1]
        else:
            mark |= {"ignored": True, "reason": "incomplete signal"}
        messages.execute(_PUBLISHED.encode(), [str(number)])
        messages.execute(_DONE.encode(), [json.dumps(mark), str(channel), str(number)])
    return len(rows)


def _keep(signals: psycopg.Connection[Any], channel: str, text: str, values: list[Any]) -> None:
    if signals.execute(_KNOWN, [channel, text]).fetchone() is None:
        signals.execute(_SIGNAL, [channel, text, *values])


def _price(text: str) -> float:
    return float(text.replace(".", "").replace(",", "."))


def run(messages: str, signals: str, seconds: float, stopping: threading.Event) -> None:
    """Poll until told to stop; a database that is away is asked again at the next poll."""
    while not stopping.is_set():
        try:
            with (
                psycopg.connect(messages, autocommit=True, application_name=NAME) as one,
                psycopg.connect(signals, autocommit=True, application_name=NAME) as two,
            ):
                while not stopping.is_set():
                    poll(one, two)
                    stopping.wait(seconds)
        except psycopg.Error as error:
            log.warning("the database does not do: %s", str(error).partition("\n")[0])
            stopping.wait(seconds)


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    given = settings.read()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    run(given.database, given.signals_database, given.poll_seconds, stopping)


if __name__ == "__main__":
    main()
