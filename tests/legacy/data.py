"""Fills a legacy database: all that Telegram's newest messages lack is made up, with every defect that is known.

    python -m tests.legacy.data --database postgresql://timescale@10.0.0.5:5433/tradingsystem --shape A FOLDER

FOLDER has `recent.csv` of `tests.legacy.telegram`, and gets `failure-queue.jsonl` and `counts.json`: how much of what
there is. The password comes from PGPASSWORD. Prints whether it did anything: a database that has the tables is left
as it is.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import psycopg
from tests.legacy import tables
from tests.legacy.tables import Connection, Shape
from tests.legacy.telegram import APART, DAYS

_SAID = (
    "CREATE TEMP TABLE said (channel_id bigint, message_id bigint, sent_at bigint, text text, photo int, edited int,"
    " deleted int)"
)
_JUNK: dict[str, list[tuple[str, str]]] = {
    "A": [
        ("minha sala", "1"),
        ("", "2"),
        ("0", "3"),
        ("{channel}", "0"),
        ("{channel}", "-4"),
        ("{channel}", "99999999999"),
    ],
    "B": [("0", "1"), ("9999999999999", "2"), ("{channel}", "abc"), ("{channel}", ""), ("{channel}", "99999999999")],
    "C": [("0", "1"), ("9999999999999", "2"), ("{channel}", "0"), ("{channel}", "-4"), ("{channel}", "99999999999")],
}
"""Ids that are none of Telegram; one row more has a date before its time."""
_COUNTS = """
SELECT
  count(*) AS messages,
  count(*) FILTER (WHERE NOT queue_only) AS stored,
  count(*) FILTER (WHERE queue_only) AS only_in_failure_queue,
  count(*) FILTER (WHERE twice AND NOT queue_only) AS duplicates,
  count(*) FILTER (WHERE deleted AND NOT queue_only) AS deleted,
  count(*) FILTER (WHERE deleted AND twice AND NOT queue_only) AS resurrected,
  count(*) FILTER (WHERE m % 83 = 0 AND NOT queue_only) AS undated,
  count(*) FILTER (WHERE sent < newest - interval '90 days' AND NOT queue_only) AS older_than_retention,
  count(*) FILTER (
    WHERE state NOT IN ('received', 'queued', 'contaminated', 'retrying') AND NOT queue_only
  ) AS processed,
  count(*) FILTER (WHERE state = 'contaminated' AND NOT queue_only) AS contaminated,
  (SELECT count(*) FROM telegram_gateway.messages) AS rows,
  (SELECT count(*) FROM tp_capital.tp_capital_signals) AS signals
FROM telegram
"""
# What the gateway has appended: a message is in it whether or not the table has it.
_QUEUE = """
SELECT json_build_object(
  'channelId', channel_id::text, 'messageId', message_id, 'text', CASE WHEN NOT photo THEN text ELSE '' END,
  'caption', CASE WHEN photo THEN text END, 'mediaType', CASE WHEN photo THEN 'photo' END, 'mediaRefs', '[]'::json,
  'source', 'user_client', 'messageType', 'channel_post',
  'telegramDate', to_char(sent, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'receivedAt', to_char(made_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
  'failedAt', to_char(made_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')
)::text
FROM telegram WHERE queue_only OR recent AND m % 7 = 0 ORDER BY sent
"""


def fill(connection: Connection, shape: Shape, recent: Path) -> dict[str, int]:
    """Make the tables and their content; how much of what there is."""
    connection.execute("SET timezone = 'UTC'")
    newest = datetime.now(UTC).date()
    tables.create(connection, shape, newest - timedelta(days=DAYS + 1), newest + timedelta(days=7))
    connection.execute(_SAID)
    with connection.cursor().copy("COPY said FROM STDIN (FORMAT csv, HEADER)") as copy:
        copy.write(recent.read_bytes())
    channel_type, message_type = tables.KEYS[shape]
    script = Path(__file__).with_suffix(".sql").read_text()
    names = {"channel_type": channel_type, "message_type": message_type, "days": DAYS, "apart": APART}
    connection.execute(script.format(**names, channel_title="label" if shape == "A" else "title").encode())
    _add_junk(connection, shape)
    if shape != "B":
        connection.execute(
            "INSERT INTO telegram_gateway.forwarding_rules (source_channel_id, destination)"
            " SELECT channel_id, 'https://example.org/hook' FROM telegram_gateway.channels LIMIT 3"
        )
    connection.execute("ANALYZE")
    cursor = connection.execute(_COUNTS)
    assert cursor.description
    row = cursor.fetchone()
    assert row
    counts = {column.name: int(value) for column, value in zip(cursor.description, row, strict=True)}
    return counts | {"junk": len(_JUNK[shape]) + 1}


def _add_junk(connection: Connection, shape: Shape) -> None:
    channel = connection.execute("SELECT max(channel_id) FROM said").fetchone()
    assert channel
    insert = (
        "INSERT INTO telegram_gateway.messages (channel_id, message_id, text, status, telegram_date)"
        " VALUES (%s, %s, 'lixo', 'published', %s)"
    )
    for found, number in _JUNK[shape]:
        connection.execute(insert, [found.format(channel=channel[0]), number, None])
    connection.execute(insert, [str(channel[0]), "2000000001", datetime(1970, 1, 1, tzinfo=UTC)])


def write_queue(connection: Connection, path: Path) -> None:
    """Write the failure queue; for the connection that has filled the database."""
    lines = [line for (line,) in connection.execute(_QUEUE)]
    path.write_text("".join(f"{line}\n" for line in lines))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True, help="URL without password")
    parser.add_argument("--shape", choices=get_args(Shape), required=True)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    with psycopg.connect(given.database, autocommit=True) as connection:
        there = connection.execute("SELECT to_regclass('telegram_gateway.messages') IS NOT NULL").fetchone()
        missing = there == (False,)
        if missing:
            with connection.transaction():
                counts = fill(connection, given.shape, given.folder / "recent.csv")
                write_queue(connection, given.folder / "failure-queue.jsonl")
            (given.folder / "counts.json").write_text(json.dumps(counts))
        print(json.dumps({"changed": missing}))


if __name__ == "__main__":
    main()
