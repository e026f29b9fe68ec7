"""The tables of the legacy database, in the three shapes, and those of its other schemas, which nobody may touch."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any, Literal

import psycopg
from benchmarks.database.legacy import COLUMNS

Shape = Literal["A", "B", "C"]
Connection = psycopg.Connection[Any]

KEYS = {"A": ("text", "bigint"), "B": ("bigint", "text"), "C": ("bigint", "bigint")}
"""By shape the types of `channel_id` and `message_id`."""

_STATUS = "status IN ('received','retrying','published','queued','failed','reprocess_pending','reprocessed','deleted')"
_SCHEMAS = """
CREATE SCHEMA telegram_gateway;
CREATE SCHEMA tp_capital;
CREATE SCHEMA workspace;
CREATE SCHEMA documentation;
CREATE SCHEMA rag
"""
_TRIGGER = """
CREATE FUNCTION telegram_gateway.set_updated_at() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN NEW.updated_at = now(); RETURN NEW; END $$;
CREATE TRIGGER set_updated_at BEFORE UPDATE ON telegram_gateway.messages
  FOR EACH ROW EXECUTE FUNCTION telegram_gateway.set_updated_at()
"""
# The statements that name a message by its number alone read one index here, or they would fill the machine.
_INDEXES = """
CREATE INDEX ON telegram_gateway.messages (message_id);
CREATE INDEX ON telegram_gateway.messages (received_at) WHERE status = 'received'
"""
_OWN_CHANNEL = {
    "A": "label text, description text",
    "B": "title text, last_sync_at timestamptz",
    "C": "title text, last_sync_at timestamptz",
}
_CHANNELS = """
CREATE TABLE telegram_gateway.channels (
  id bigserial PRIMARY KEY, channel_id bigint NOT NULL UNIQUE, {own}, is_active boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now()
)
"""
_RULES = """
CREATE TABLE telegram_gateway.forwarding_rules (
  id bigserial PRIMARY KEY, source_channel_id bigint NOT NULL, destination text NOT NULL,
  is_active boolean NOT NULL DEFAULT true, filters jsonb NOT NULL DEFAULT '{}',
  created_at timestamptz NOT NULL DEFAULT now()
)
"""
SIGNALS = """
CREATE TABLE tp_capital.tp_capital_signals (
  id bigserial PRIMARY KEY, channel text, signal_type text NOT NULL DEFAULT 'Swing Trade', asset text NOT NULL,
  buy_min double precision, buy_max double precision, target_1 double precision, target_2 double precision,
  target_final double precision, stop double precision, raw_message text, source text, ts bigint,
  ingested_at timestamptz NOT NULL DEFAULT now(), created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
)
"""
OTHERS = ("workspace.items", "documentation.systems", "rag.chunks")
_OTHERS = """
CREATE TABLE workspace.items (
  id serial PRIMARY KEY, title text NOT NULL, tags text[], created_at timestamptz DEFAULT now()
);
CREATE TABLE documentation.systems (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, meta jsonb);
CREATE TABLE rag.chunks (id bigserial PRIMARY KEY, document_id text NOT NULL, embedding real[], content text NOT NULL);
INSERT INTO workspace.items (title, tags) SELECT 'item ' || n, ARRAY['a', 'b'] FROM generate_series(1, 20) AS n;
INSERT INTO documentation.systems (name, meta)
  SELECT 'system ' || n, jsonb_build_object('n', n) FROM generate_series(1, 7) AS n;
INSERT INTO rag.chunks (document_id, embedding, content)
  SELECT 'doc-' || n, ARRAY[n, n + 1]::real[], repeat('texto ', n) FROM generate_series(1, 30) AS n
"""


def create(connection: Connection, shape: Shape, first: date, last: date) -> None:
    """Make every table; those of shape A take days from `first` to `last` and keep what is outside apart."""
    connection.execute(_SCHEMAS.encode())
    _create_messages(connection, shape, first, last)
    connection.execute(f"ALTER TABLE telegram_gateway.messages ADD CHECK ({_STATUS})".encode())
    connection.execute(_INDEXES.encode())
    if shape != "A":
        connection.execute("CREATE INDEX ON telegram_gateway.messages (channel_id, message_id)")
    connection.execute(_CHANNELS.format(own=_OWN_CHANNEL[shape]).encode())
    if shape != "B":
        connection.execute(_RULES.encode())
    connection.execute(SIGNALS.encode())
    connection.execute(_OTHERS.encode())


def _create_messages(connection: Connection, shape: Shape, first: date, last: date) -> None:
    table = f"CREATE TABLE telegram_gateway.messages ({COLUMNS[shape]})"
    if shape != "A":
        connection.execute(table.encode())
        return
    if _has_timescale(connection):
        connection.execute("CREATE EXTENSION timescaledb")
        connection.execute(table.encode())
        connection.execute(
            "SELECT create_hypertable("
            "'telegram_gateway.messages', 'created_at', chunk_time_interval => interval '1 day')"
        )
    else:
        connection.execute(f"{table} PARTITION BY RANGE (created_at)".encode())
        connection.execute("CREATE TABLE telegram_gateway.messages_rest PARTITION OF telegram_gateway.messages DEFAULT")
        for day in (first + timedelta(days=number) for number in range((last - first).days + 1)):
            partition = (
                f"CREATE TABLE telegram_gateway.messages_{day:%Y%m%d} PARTITION OF telegram_gateway.messages"
                f" FOR VALUES FROM ('{day} 00:00+00') TO ('{day + timedelta(days=1)} 00:00+00')"
            )
            connection.execute(partition.encode())
    connection.execute(_TRIGGER.encode())


def _has_timescale(connection: Connection) -> bool:
    loaded = connection.execute("SELECT current_setting('shared_preload_libraries')").fetchone()
    return loaded is not None and "timescaledb" in loaded[0]


def fingerprints(connection: Connection) -> dict[str, str]:
    """By table of the other schemas the number of its rows and a checksum: the same before and after."""
    found = {}
    for table in OTHERS:
        checksum = "coalesce(md5(string_agg(t::text, ';' ORDER BY t::text)), '')"
        query = f"SELECT count(*) || ' ' || {checksum} FROM {table} AS t"  # noqa: S608 - names from above
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        found[table] = row[0]
    return found
