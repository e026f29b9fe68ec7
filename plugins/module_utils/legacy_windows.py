# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows of the legacy table, window by window, into a temporary table of the stack's database."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_source import Shape, shape

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

_TYPES = (
    "SELECT a.attname, format_type(a.atttypid, NULL) FROM pg_attribute AS a"
    " WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"
)


class LegacyError(Exception):
    """The legacy rows cannot be had or taken; the message is meant for the operator."""


class Window(NamedTuple):
    """A part of the table that is read at once. `checksum` is that of its rows when the windows were looked up."""

    start: str
    rows: int
    checksum: str


class LegacyTable:
    """The table `source_table` of a module, read over `source`, and the stack's database `target`; both autocommit."""

    def __init__(self, module: AnsibleModule, source: psycopg.Connection[Any], target: psycopg.Connection[Any]) -> None:
        """Raises LegacyError, ShapeError and psycopg.Error."""
        table = module.params["source_table"]
        self._source = source
        self._target = target
        self.name = f"{source.info.dbname}.{table}"
        source.execute("SET timezone = 'UTC'")
        source.execute("SET default_transaction_read_only = on")
        target.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(module.params["owner"])))
        columns = dict(source.execute(_TYPES, [table]).fetchall())
        if not columns:
            raise LegacyError(
                f"There is no table {table} in database {source.info.dbname} that {source.info.user} may see. "
                "Name it in source_table, with its schema."
            )
        self.shape: Shape = shape(table, columns)

    def windows(self) -> list[Window]:
        """All windows in their order."""
        return [Window(*found) for found in self._source.execute(self.shape.windows.encode())]

    def prepare(self) -> None:
        """Make the temporary table `legacy_rows`, which is empty at the begin of each transaction."""
        self._target.execute("CREATE TEMP TABLE legacy_rows OF telegram.legacy_row ON COMMIT DELETE ROWS")

    def bring(self, window: Window) -> None:
        """Put the window's rows into `legacy_rows`; call it in a transaction of the target. Raises psycopg.Error."""
        query = self.shape.rows(sql.Literal(window.start).as_string(self._source))
        with (
            self._source.cursor().copy(f"COPY ({query}) TO STDOUT".encode()) as given,
            self._target.cursor().copy(b"COPY legacy_rows FROM STDIN") as taken,
        ):
            for data in given:
                taken.write(data)


def words(error: psycopg.Error) -> str:
    """What the server said, without a full stop."""
    return (error.diag.message_primary or str(error).strip()).rstrip(".")
