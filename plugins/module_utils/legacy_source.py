# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the legacy table looks like and how to read it, by its columns: no server needed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROWS_PER_WINDOW = 10_000
"""Of a plain table as many numbers; of a hypertable as many rows at most, where they do not all come in one minute."""

_TIMES = (
    "received_at", "telegram_date", "published_at", "failed_at", "queued_at", "reprocess_requested_at",
    "reprocessed_at", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
_DOCUMENTS = ("media_refs", "metadata")
# In the order of the type telegram.legacy_row.
COLUMNS = (
    "id", "channel_id", "message_id", "thread_id", "source", "message_type", "text", "caption", "media_type",
    "media_refs", "status", "received_at", "telegram_date", "published_at", "failed_at", "queued_at",
    "reprocess_requested_at", "reprocessed_at", "metadata", "created_at", "updated_at", "deleted_at",
)  # fmt: skip
_NEEDED = ("id", "channel_id", "message_id")
_DATES = ("telegram_date", "received_at", "created_at")
_INTEGERS = ("smallint", "integer", "bigint")
_CHECKSUM = "hashtextextended(r::text, 0)"
_ID = "coalesce(r.id::text, '')"


class ShapeError(Exception):
    """The table is none that messages can be read from; the message is meant for the operator."""


@dataclass(frozen=True)
class Shape:
    """How to read `table`, in a session whose time zone is UTC.

    `selected` gives a row as telegram.legacy_row has it, of alias `r`; `unread` are columns that nothing here knows.
    """

    table: str
    selected: str
    divider: str
    unread: tuple[str, ...]

    @property
    def windows(self) -> str:
        """A query of all windows in their order: name, rows, checksum of the rows as text.

        A plain table's window is named by its first number through that of a window, a hypertable's by its length
        and its begin: the longest of day, hour and minute that holds few enough rows.
        """
        if self.divider == "id":
            start = f"floor(r.id / {ROWS_PER_WINDOW}.0)::bigint"
            return (
                f"SELECT {start}::text, count(*), sum({_CHECKSUM})::text"  # noqa: S608 - names of columns
                f" FROM {self.table} AS r GROUP BY {start} ORDER BY {start}"
            )
        return (
            "WITH minutes AS ("  # noqa: S608 - names of columns
            "SELECT date_trunc('minute', r.created_at) AS at, count(*) AS rows,"
            f" sum({_CHECKSUM}) AS sum"
            f" FROM {self.table} AS r GROUP BY 1), lengths AS (SELECT *, CASE"
            f" WHEN sum(rows) OVER (PARTITION BY date_trunc('day', at)) <= {ROWS_PER_WINDOW} THEN 'day'"
            f" WHEN sum(rows) OVER (PARTITION BY date_trunc('hour', at)) <= {ROWS_PER_WINDOW} THEN 'hour'"
            " ELSE 'minute' END AS length FROM minutes)"
            " SELECT length || ' ' || date_trunc(length, at)::text, sum(rows)::bigint, sum(sum)::text FROM lengths"
            " GROUP BY length, date_trunc(length, at) ORDER BY date_trunc(length, at)"
        )

    def rows(self, start: str, only: Collection[str] | None = None) -> str:
        """A query of the rows of the window named `start`, one of `windows`; `only` those with such checksums."""
        where = self._within(start)
        if only is not None:
            where += f" AND {_CHECKSUM} = ANY ('{{{','.join(only)}}}'::bigint[])"
        return f"SELECT {self.selected} FROM {self.table} AS r WHERE {where}"  # noqa: S608 - as above

    def rows_with_checksums(self, start: str) -> str:
        """A query of the rows of a window, each behind its checksum."""
        return f"SELECT {_CHECKSUM}, {self.selected} FROM {self.table} AS r WHERE {self._within(start)}"  # noqa: S608

    def rows_by_id(self, start: str, ids: Collection[str]) -> str:
        """A query of the rows of a window that have these ids, each behind its checksum."""
        quoted = (each.replace("\\", "\\\\").replace('"', '\\"').replace("'", "''") for each in ids)
        array = "'{" + ",".join(f'"{each}"' for each in quoted) + "}'::text[]"
        return f"{self.rows_with_checksums(start)} AND {_ID} = ANY ({array})"

    def checksums(self, start: str) -> str:
        """A query of a window's rows in one text, a line a row: checksum, a blank, id."""
        found = f"coalesce(string_agg({_CHECKSUM} || ' ' || {_ID}, chr(10)), '')"
        return f"SELECT {found} FROM {self.table} AS r WHERE {self._within(start)}"  # noqa: S608 - as above

    def _within(self, start: str) -> str:
        if self.divider == "id":
            low = f"{int(start)} * {ROWS_PER_WINDOW}::bigint"
            return f"r.id >= {low} AND r.id < {low} + {ROWS_PER_WINDOW}"
        # The last condition alone would be right, and read the whole table; infinity has no day behind it.
        length, time = start.split(" ", 1)
        begin = f"'{time}'::{self.divider}"
        return (
            f"r.created_at >= {begin} AND r.created_at <= {begin} + interval '1 {length}'"
            f" AND date_trunc('{length}', r.created_at) = {begin}"
        )


def source_connection_argument_spec() -> dict[str, dict[str, Any]]:
    """Options of the documentation fragment `tradingsystem.telegram_stack.legacy_source.connection`."""
    return {
        "source_host": {"type": "str", "required": True},
        "source_port": {"type": "int", "default": 5432},
        "source_user": {"type": "str", "required": True},
        "source_password": {"type": "str", "no_log": True},
        "source_db": {"type": "str", "required": True},
    }


def source_argument_spec() -> dict[str, dict[str, Any]]:
    """Options of the documentation fragment `tradingsystem.telegram_stack.legacy_source` and its `connection`."""
    return {
        **source_connection_argument_spec(),
        "source_table": {"type": "str", "default": "telegram_gateway.messages"},
        "seconds": {"type": "float", "default": 20},
        "owner": {"type": "str", "default": "telegram_owner"},
    }


def shape(table: str, columns: Mapping[str, str]) -> Shape:
    """How to read `table`, quoted as SQL wants it, which has `columns` (name to type, as format_type says).

    A plain table is read by ranges of its number, a hypertable by days: what storage finds without reading all of it.
    Raises ShapeError.
    """
    lacking = [name for name in _NEEDED if name not in columns]
    if not any(name in columns for name in _DATES):
        lacking.append(" or ".join(_DATES))
    by_number = columns.get("id") in _INTEGERS
    if not by_number and "created_at" not in columns:
        lacking.append("created_at, or a number as id")
    if lacking:
        raise ShapeError(
            f"{table} lacks {'; '.join(lacking)}: it is no table of messages of the legacy gateway. "
            "Name the right one in source_table."
        )
    return Shape(
        table=table,
        selected=", ".join(_expression(name, columns.get(name)) for name in COLUMNS),
        divider="id" if by_number else columns["created_at"],
        unread=tuple(sorted(set(columns) - set(COLUMNS))),
    )


def _expression(name: str, kind: str | None) -> str:
    """A column as the type telegram.legacy_row has it."""
    if kind is None:
        return "NULL"
    if name == "thread_id":
        return f"CASE WHEN r.{name}::text ~ '^-?[0-9]{{1,18}}$' THEN r.{name}::text::bigint END"
    if name in _DOCUMENTS:
        return f"to_jsonb(r.{name})"
    if name in _TIMES:
        return f"r.{name}::timestamptz"
    return f"r.{name}::text"
