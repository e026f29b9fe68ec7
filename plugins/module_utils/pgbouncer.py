# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""PgBouncer's console: how modules ask it, and what its answers mean."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .postgresql import HAS_PSYCOPG, connect, server_words

if HAS_PSYCOPG:
    import psycopg

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

CONSOLE = "pgbouncer"
"""The database that is the console, and the user who may do everything there over the local socket."""

Row = dict[str, Any]


class PgbouncerError(Exception):
    """The console refused, or what was asked for does not exist; the text says what to do."""


def connection_argument_spec() -> dict[str, dict[str, Any]]:
    """Options of the documentation fragment `tradingsystem.telegram_stack.pgbouncer`."""
    return {
        "login_host": {"type": "str", "default": "/run/pgbouncer"},
        "login_port": {"type": "int", "default": 6434},
        "login_user": {"type": "str", "default": CONSOLE},
        "login_password": {"type": "str", "no_log": True},
        "connect_timeout": {"type": "int", "default": 10},
    }


class Console:
    """An open console. It speaks the simple protocol only, which psycopg's ClientCursor does, in autocommit."""

    def __init__(self, module: AnsibleModule) -> None:
        """Raises Unreachable where no PgBouncer is set up yet; other refusals end the module."""
        further: dict[str, Any] = {"cursor_factory": psycopg.ClientCursor} if HAS_PSYCOPG else {}
        self._connection = connect(module, CONSOLE, **further)

    def show(self, what: str) -> list[Row]:
        """The rows of `SHOW what`, whole numbers as int."""
        found = self.run(f"SHOW {what}")
        names = [column.name for column in found.description or []]
        return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in found]

    def run(self, command: str) -> psycopg.Cursor[Any]:
        """Run a console command. Raises PgbouncerError with the console's words."""
        try:
            return self._connection.execute(command.encode())
        except psycopg.Error as error:
            words = server_words(error)
            raise PgbouncerError(f"PgBouncer refused {command}: {words}.{_advice(words)}") from error

    def close(self) -> None:
        """Hang up."""
        self._connection.close()


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, Decimal) else value


def _advice(words: str) -> str:
    if "admin access needed" in words:
        return " Log in as an administrator: with become_user set to PgBouncer's system user, over its socket."
    return ""


def quoted(name: str) -> str:
    """`name` as an identifier of the console's language."""
    return '"' + name.replace('"', '""') + '"'


def version(rows: Sequence[Row]) -> str:
    """`1.24.1` from the answer to SHOW VERSION."""
    return str(rows[0]["version"]).removeprefix("PgBouncer ")


def databases(rows: Iterable[Row]) -> list[Row]:
    """The answer to SHOW DATABASES without the console itself, flags as booleans."""
    return [
        {**row, "paused": bool(row["paused"]), "disabled": bool(row["disabled"])}
        for row in rows
        if row["name"] != CONSOLE
    ]


def of_pools(rows: Iterable[Row]) -> list[Row]:
    """Those of `rows`, each with a database, that are not about the console."""
    return [row for row in rows if row["database"] != CONSOLE]


def counted(rows: Iterable[Row]) -> list[Row]:
    """How many of SHOW CLIENTS or SHOW SERVERS there are by database, user and state."""
    found = Counter((row["database"], row["user"], row["state"]) for row in of_pools(rows))
    return [
        {"database": database, "user": user, "state": state, "count": number}
        for (database, user, state), number in sorted(found.items())
    ]


def find(known: Sequence[Row], name: str) -> Row:
    """The database `name` among those that `databases` gave. Raises PgbouncerError with the names there are."""
    for row in known:
        if row["name"] == name:
            return row
    names = ", ".join(sorted(row["name"] for row in known)) or "none"
    raise PgbouncerError(f"PgBouncer has no database {name}. It has: {names}. Correct the name (database).")


def needed(action: str, database: Mapping[str, Any], clients: Sequence[Row], servers: Sequence[Row]) -> bool:
    """Whether `action` would change anything at `database`, of whose connections SHOW CLIENTS and SHOW SERVERS tell."""
    name = database["name"]
    mine = [row for row in servers if row["database"] == name]
    if action == "pause":
        return not database["paused"]
    if action == "resume":
        return bool(database["paused"])
    if action == "disable":
        return not database["disabled"]
    if action == "enable":
        return bool(database["disabled"])
    if action == "reconnect":
        return any(not row["close_needed"] for row in mine)
    return not database["paused"] or bool(mine) or any(row["database"] == name for row in clients)  # kill


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Row, Row]:
    """What of two flat dictionaries differs, as a pair for a diff."""
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    return (
        {key: before[key] for key in keys if key in before},
        {key: after[key] for key in keys if key in after},
    )
