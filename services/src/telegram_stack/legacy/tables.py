"""The statements for a legacy table, by its columns. No server needed here.

Each takes one document: what `form` makes of our messages, as a JSON array. So the statements are the same for any
number of them, and PostgreSQL gives each value the type of its column.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from telegram_stack.legacy.form import CONSUMER_KEYS

_NUMBERS = ("smallint", "integer", "bigint")
_NEEDED = ("id", "channel_id", "message_id", "text", "status", "metadata")
_SIGNAL_KEY = ("channel", "asset", "ts")
_SIGNAL_PRICES = ("buy_min", "buy_max", "target_1", "target_2", "target_final", "stop")

# Of an array of documents, for the feed and the comparison alike.
_GIVEN = {
    "channel_id": "text", "forms": "text[]", "message_id": "text", "thread_id": "bigint", "source": "text",
    "message_type": "text", "text": "text", "caption": "text", "media_type": "text", "media_refs": "jsonb",
    "status": "text", "received_at": "timestamptz", "telegram_date": "timestamptz", "published_at": "timestamptz",
    "failed_at": "timestamptz", "queued_at": "timestamptz", "reprocess_requested_at": "timestamptz",
    "reprocessed_at": "timestamptz", "metadata": "jsonb", "created_at": "timestamptz", "updated_at": "timestamptz",
    "deleted_at": "timestamptz",
}  # fmt: skip
_GIVEN_BESIDE = {
    "id": "text", "is_new": "boolean", "handled": "boolean", "processed": "boolean", "legacy_rows": "jsonb",
    "place": "integer",
}  # fmt: skip
_STATE_TIMES = ("published_at", "failed_at", "queued_at", "reprocess_requested_at", "reprocessed_at")
_SIGNAL_GIVEN = {
    "channel": "text", "forms": "text[]", "asset": "text", "signal_type": "text", "raw_message": "text",
    "source": "text", "message_date": "timestamptz", "ingested_at": "timestamptz", "place": "integer",
    "is_twin": "boolean",
} | dict.fromkeys(_SIGNAL_PRICES, "numeric")  # fmt: skip


class ShapeError(Exception):
    """The table is none that can be fed; the message is meant for the operator."""


@dataclass(frozen=True)
class Messages:
    """The statements for the table of messages; sessions are in UTC.

    `apply` takes documents, the last row id of before, and the earliest and latest `created_at` of rows it may find;
    it returns rows changed and rows added. `compare` takes the same and returns for each message that is not there as
    it is here: its place, and whether it is missing, differing, undeleted, unprocessed. `channels` says how the
    table calls its channels, the commonest form last.
    """

    apply: str
    compare: str
    channels: str


@dataclass(frozen=True)
class Signals:
    """The same for the table of signals. A signal is known by channel, asset and time, several with those by text."""

    apply: str
    compare: str


def messages(table: str, columns: Mapping[str, str]) -> Messages:
    """For `table`, quoted as SQL wants it, with `columns` (name to type, as format_type says). Raises ShapeError."""
    lacking = [name for name in _NEEDED if name not in columns]
    if not lacking and columns["id"] not in _NUMBERS and "created_at" not in columns:
        lacking = ["created_at, or a number as id"]
    if lacking:
        raise ShapeError(f"{table} lacks {', '.join(lacking)}: it is no table of messages that can be fed")
    given = _recordset(_GIVEN | _GIVEN_BESIDE)
    found = _found(table, columns)
    wanted = _wanted(columns)
    changed, now = ", ".join(wanted), ", updated_at = now()" if "updated_at" in columns else ""
    before = ", ".join(_comparable(f"r.{name}", columns[name]) for name in wanted)
    after = ", ".join(_comparable(f"w.{name}", columns[name]) for name in wanted)
    own = [name for name in _GIVEN if name in columns]
    added = ["id", *own] if columns["id"] not in _NUMBERS else own
    values = ", ".join(_inserted(name, columns[name]) for name in added)
    key = "r.id = w.id" + ("" if columns["id"] in _NUMBERS else " AND r.created_at = w.created_at")
    keys = "r.id" + ("" if columns["id"] in _NUMBERS else ", r.created_at")
    new = ", ".join(f"({value})::{columns[name]} AS {name}" for name, value in wanted.items())
    return Messages(
        apply=f"""
WITH {given}, found AS MATERIALIZED ({found}), wanted AS MATERIALIZED (
  SELECT f.place, {keys}, {new}
  FROM found AS f JOIN given AS n ON n.place = f.place JOIN {table} AS r ON {_same(columns)}
), changed AS (
  UPDATE {table} AS r SET ({changed}) = ROW({", ".join(f"w.{name}" for name in wanted)}){now} FROM wanted AS w
  WHERE {key} AND ({before}) IS DISTINCT FROM ({after}) RETURNING 1
), added AS (
  INSERT INTO {table} ({", ".join(added)})
  SELECT {values} FROM given AS n WHERE NOT EXISTS (SELECT FROM wanted AS w WHERE w.place = n.place) RETURNING 1
)
SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM added)
""",  # noqa: S608 - names of columns
        compare=f"""
WITH {given}, found AS MATERIALIZED ({found}), there AS MATERIALIZED (
  SELECT f.place, {_content(columns)} AS content, r.status, {_document("r.metadata", columns["metadata"])} AS metadata,
    {"r.deleted_at IS NOT NULL" if "deleted_at" in columns else "r.status = 'deleted'"} AS deleted
  FROM found AS f JOIN {table} AS r ON {_same(columns)}
)
SELECT * FROM (
  SELECT n.place, count(t.place) = 0 AS missing,
    coalesce(bool_or(n.is_new AND t.content <> n.text), false) AS differing,
    coalesce(bool_or(n.deleted_at IS NOT NULL AND NOT t.deleted), false) AS undeleted,
    coalesce(bool_or(n.processed AND (t.status = 'received' OR (t.metadata ->> 'processed_by') IS NULL)), false)
      AS unprocessed
  FROM given AS n LEFT JOIN there AS t ON t.place = n.place GROUP BY n.place
) AS c WHERE missing OR differing OR undeleted OR unprocessed
""",  # noqa: S608 - as above
        channels=f"SELECT channel_id::text FROM {table} GROUP BY channel_id ORDER BY count(*)",  # noqa: S608 - as above
    )


def signals(table: str, columns: Mapping[str, str]) -> Signals:
    """For `table`, quoted as SQL wants it, with `columns`. Raises ShapeError."""
    lacking = [name for name in _SIGNAL_KEY if name not in columns]
    if lacking:
        raise ShapeError(f"{table} lacks {', '.join(lacking)}: it is no table of signals that can be fed")
    values = {
        "ts": _time("n.message_date", columns["ts"]),
        **{name: f"n.{name}::{columns[name]}" for name in _SIGNAL_GIVEN if name in columns and name != "ingested_at"},
        **{
            name: _time("n.ingested_at", columns[name])
            for name in ("ingested_at", "created_at", "updated_at")
            if name in columns
        },
    }
    same = f"r.channel::text = ANY (n.forms) AND r.asset::text = n.asset AND r.ts = {values['ts']}"
    if "raw_message" in columns:
        same += " AND (NOT n.is_twin OR r.raw_message = n.raw_message)"
    facts = [name for name in ("signal_type", *_SIGNAL_PRICES, "raw_message") if name in columns]
    now = f", updated_at = {_time('now()', columns['updated_at'])}" if "updated_at" in columns else ""
    before, after = ", ".join(f"r.{name}" for name in facts), ", ".join(values[name] for name in facts)
    given = _recordset(_SIGNAL_GIVEN)
    return Signals(
        apply=f"""
WITH {given}, changed AS (
  UPDATE {table} AS r SET ({", ".join(facts)}) = ROW({after}){now} FROM given AS n
  WHERE {same} AND ({before}) IS DISTINCT FROM ({after}) RETURNING 1
), added AS (
  INSERT INTO {table} ({", ".join(values)})
  SELECT {", ".join(values.values())} FROM given AS n
  WHERE NOT EXISTS (SELECT FROM {table} AS r WHERE {same}) RETURNING 1
)
SELECT (SELECT count(*) FROM changed), (SELECT count(*) FROM added)
""",  # noqa: S608 - as above
        compare=f"""
WITH {given} SELECT n.place FROM given AS n WHERE NOT EXISTS (SELECT FROM {table} AS r WHERE {same})
""",  # noqa: S608 - as above
    )


def _recordset(columns: Mapping[str, str]) -> str:
    kinds = ", ".join(f"{name} {kind}" for name, kind in columns.items())
    query = f"SELECT * FROM jsonb_to_recordset(%(documents)s::jsonb) AS n ({kinds})"  # noqa: S608 - names of columns
    return f"given AS MATERIALIZED ({query})"


def _found(table: str, columns: Mapping[str, str]) -> str:
    """The keys of each message's rows: those that were taken over, and those that the feed has added.

    A plain table has no index by channel and message; but rows of the feed come behind all that were taken over.
    """
    taken_over = "FROM given AS n CROSS JOIN jsonb_to_recordset(n.legacy_rows) AS l (id text, created_at timestamptz)"
    if columns["id"] in _NUMBERS:
        known = f"SELECT n.place, l.id::bigint AS id {taken_over} WHERE l.id ~ '^[0-9]{{1,18}}$'"
        own = (
            f"SELECT n.place, r.id FROM {table} AS r JOIN given AS n ON r.message_id::text = n.message_id"  # noqa: S608
            " AND r.channel_id::text = ANY (n.forms) WHERE r.id > %(last_row_id)s"
        )
    else:
        kind = columns["created_at"]
        one = " WHERE l.id ~ '^[0-9a-fA-F-]{36}$'" if columns["id"] == "uuid" else ""
        known = f"SELECT n.place, l.id, l.created_at::{kind} AS created_at {taken_over}{one}"
        own = f"SELECT n.place, n.id, n.created_at::{kind} FROM given AS n"  # noqa: S608
    return f"{known} UNION {own}"


def _same(columns: Mapping[str, str]) -> str:
    """A row `r` is that of the key `f`; the bounds let a hypertable leave out most of its chunks."""
    if columns["id"] in _NUMBERS:
        return "r.id = f.id"
    kind = columns["created_at"]
    return (
        f"r.id = f.id::{columns['id']} AND r.created_at = f.created_at"
        f" AND r.created_at BETWEEN %(earliest)s::timestamptz::{kind} AND %(latest)s::timestamptz::{kind}"
    )


def _wanted(columns: Mapping[str, str]) -> dict[str, str]:
    """What the columns of a known row `r` shall be, by its message `n`. What is not known here stays."""
    content = _content(columns)
    rewritten = f"n.is_new AND {content} <> n.text"
    old = _document("r.metadata", columns["metadata"])
    refs = _document("r.media_refs", columns.get("media_refs", ""))
    without = "".join(f" - '{key}'" for key in CONSUMER_KEYS)
    wanted = {
        "text": f"CASE WHEN {rewritten} THEN n.text ELSE r.text END",
        "caption": f"CASE WHEN {rewritten} THEN n.caption ELSE r.caption END",
        "media_type": "CASE WHEN n.is_new THEN coalesce(n.media_type, r.media_type) ELSE r.media_type END",
        # A row that came without references keeps to that, unless it is another message now.
        "media_refs": f"CASE WHEN n.is_new AND n.media_type IS NOT NULL AND ({rewritten} OR {refs} <> '[]')"
        f" THEN n.media_refs ELSE {refs} END",
        "status": "coalesce(n.status, r.status)",
        "metadata": f"CASE WHEN jsonb_typeof({old}) <> 'object' OR {old} IS NULL THEN n.metadata"
        f" WHEN n.handled THEN {old}{without} || n.metadata ELSE {old} || n.metadata END",
        "deleted_at": "coalesce(r.deleted_at::timestamptz, n.deleted_at)",
    } | {name: f"coalesce(n.{name}, r.{name}::timestamptz)" for name in _STATE_TIMES}
    return {name: value for name, value in wanted.items() if name in columns}


def _content(columns: Mapping[str, str]) -> str:
    return "coalesce(nullif(r.text, ''), r.caption, '')" if "caption" in columns else "coalesce(r.text, '')"


def _inserted(name: str, kind: str) -> str:
    return f"coalesce(n.status, 'received')::{kind}" if name == "status" else f"n.{name}::{kind}"


def _document(value: str, kind: str) -> str:
    """A column as jsonb: type json knows no equality."""
    return value if kind == "jsonb" else f"to_jsonb({value})"


def _comparable(value: str, kind: str) -> str:
    return f"to_jsonb({value})" if kind == "json" else value


def _time(value: str, kind: str) -> str:
    """A time as the column has it: some count milliseconds."""
    return f"(extract(epoch FROM {value}) * 1000)::bigint" if kind in _NUMBERS else f"{value}::{kind}"
