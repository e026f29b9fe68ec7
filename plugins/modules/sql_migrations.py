#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: bring a database schema up to date from ordered SQL files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sql_migrations
short_description: Bring a PostgreSQL schema up to date from ordered SQL files
version_added: 0.1.0
description:
  - Runs the SQL files that a database has not seen yet, in the order of their numbers, and keeps a ledger of them
    (table C(schema_migrations)) with a checksum each.
  - Refuses to run anything when an applied file was changed or is missing, or when a new file has a number
    below one that is applied already, and names the checksums.
  - Two runs at once wait for each other by an advisory lock.
  - "A file runs in one transaction, together with its line in the ledger. With the header comment C(-- transaction: no)
    its statements run one by one, as C(CREATE INDEX CONCURRENTLY) needs; write such a file so that it can run again."
  - The ledger notes the begin of a file without a transaction. When it failed or its run was killed, the next run
    says so, and runs the file, mended or not, from its first statement.
    An index that such a file left invalid stops the run with its name.
  - "A file runs as O(owner). With the header comment C(-- run-as: login) it runs as the role that logged in,
    for the few things only a superuser may do."
  - Connect to the server itself, not through PgBouncer in transaction mode.
options:
  migrations:
    description:
      - The files. All of them at every run, not only the new ones.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description:
          - C(NNNN_words.sql), or C(engine/ENGINE/NNNN_words.sql) for a file that only O(engine) runs.
        type: str
        required: true
      content:
        description:
          - The SQL text.
        type: str
        required: true
  engine:
    description:
      - Which of the C(engine/) files to run.
      - None of them by default.
    type: str
  schema:
    description:
      - Schema that holds the ledger. Made, with O(owner) as its owner, when it does not exist.
    type: str
    default: telegram
  owner:
    description:
      - Role that runs the files and owns what they make. The role that logs in by default.
    type: str
  lock_timeout:
    description:
      - Seconds to wait for another run, or for a lock on a table, before giving up.
    type: int
    default: 60
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
attributes:
  check_mode:
    description: Changes nothing. Where no server or database exists yet, everything counts as pending.
    support: full
  diff_mode:
    description: Shows the list of applied files before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Bring the schema up to date
  tradingsystem.telegram_stack.sql_migrations:
    login_db: telegram_gateway
    owner: telegram_owner
    engine: native
    migrations:
      - name: 0001_channels.sql
        content: "{{ lookup('ansible.builtin.file', 'sql/0001_channels.sql', rstrip=false) }}"
      - name: engine/native/0002_messages.sql
        content: "{{ lookup('ansible.builtin.file', 'sql/engine/native/0002_messages.sql', rstrip=false) }}"
"""

RETURN = r"""
applied:
  description: Files that this run applied; in check mode none.
  returned: always
  type: list
  elements: str
  sample: [0001_channels.sql]
pending:
  description: Files that were not applied when the run began, in the order in which they run.
  returned: always
  type: list
  elements: str
  sample: [0001_channels.sql]
interrupted:
  description:
    - Files without a transaction, among the RV(pending), that an earlier run began and did not finish.
    - They run again from their first statement.
  returned: always
  type: list
  elements: str
  sample: []
current:
  description: Highest number in the ledger after the run; in check mode the one it would have. 0 for an empty ledger.
  returned: always
  type: int
  sample: 1
"""

import contextlib
import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.postgresql import (
    Unreachable,
    connect,
    connection_argument_spec,
    server_words,
)
from ..module_utils.postgresql_migrations import (
    Migration,
    MigrationError,
    Statement,
    interrupted,
    parse,
    pending,
    select,
    split,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection

_LOCK = 0x74656C65  # "tele": every run of this module on one database takes it


class Ledger:
    """Table `schema_migrations` of one schema, seen through one connection."""

    def __init__(self, connection: Connection[Any], schema: str, owner: str | None) -> None:
        self._connection = connection
        self._owner = owner
        self._schema = sql.Identifier(schema)
        self._table = sql.Identifier(schema, "schema_migrations")

    def read(self) -> tuple[dict[str, str], dict[str, str]]:
        """Applied names with their checksums, and those begun and not finished; empty when there is no ledger yet."""
        found = self._connection.execute("SELECT to_regclass(%s)", [self._table.as_string(self._connection)]).fetchone()
        if found is None or found[0] is None:
            return {}, {}
        query = sql.SQL("SELECT name, checksum, duration_ms IS NOT NULL FROM {}").format(self._table)
        rows = self._connection.execute(query).fetchall()
        applied = {name: checksum for name, checksum, finished in rows if finished}
        return applied, {name: checksum for name, checksum, finished in rows if not finished}

    def create(self) -> None:
        """Make schema and table where they are missing."""
        with self._connection.transaction():
            self.become_owner()
            self._connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(self._schema))
            self._connection.execute(
                sql.SQL(
                    "CREATE TABLE IF NOT EXISTS {} (name text PRIMARY KEY, checksum text NOT NULL,"
                    " applied_at timestamptz NOT NULL DEFAULT now(), duration_ms integer)"
                ).format(self._table)
            )
            # The first ledgers had it; a file that has begun has no duration yet.
            self._connection.execute(
                sql.SQL("ALTER TABLE {} ALTER COLUMN duration_ms DROP NOT NULL").format(self._table)
            )

    def apply(self, file: Migration) -> None:
        """Run one file and remember it. Raises MigrationError with the line and the server's words."""
        begun = time.monotonic()
        if file.transaction:
            with self._connection.transaction():
                self._run_all(file)
                self._record(file, begun)
        else:
            self._record(file, None)
            self._run_all(file)
            self._connection.execute("RESET ROLE")
            self._refuse_invalid_indexes(file)
            self._record(file, begun)

    def become_owner(self, local: bool = True) -> None:
        """Take the owner's role, until the end of the transaction when `local`."""
        if self._owner is not None:
            scope = sql.SQL("LOCAL ") if local else sql.SQL("")
            self._connection.execute(sql.SQL("SET {}ROLE {}").format(scope, sql.Identifier(self._owner)))

    def _run_all(self, file: Migration) -> None:
        if not file.run_as_login:
            self.become_owner(local=file.transaction)
        for statement in split(file.content):
            try:
                self._connection.execute(statement.text.encode(), prepare=False)
            except psycopg.Error as error:
                raise MigrationError(_explain(file, statement, error)) from error

    def _record(self, file: Migration, begun: float | None) -> None:
        """Note that `file` is applied; with `begun` None that it has begun."""
        duration = None if begun is None else round((time.monotonic() - begun) * 1000)
        self._connection.execute(
            sql.SQL(
                "INSERT INTO {} (name, checksum, duration_ms) VALUES (%s, %s, %s) ON CONFLICT (name) DO UPDATE SET"
                " checksum = excluded.checksum, duration_ms = excluded.duration_ms, applied_at = excluded.applied_at"
            ).format(self._table),
            [file.name, file.checksum, duration],
        )

    def _refuse_invalid_indexes(self, file: Migration) -> None:
        """A CREATE INDEX CONCURRENTLY that died leaves an index that IF NOT EXISTS takes for a good one."""
        rows = self._connection.execute(
            "SELECT i.indexrelid::regclass::text FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid"
            " WHERE NOT i.indisvalid AND c.relkind = 'i' AND c.relnamespace = to_regnamespace(%s) ORDER BY 1",
            [self._schema.as_string(self._connection)],
        )
        names = [row[0] for row in rows]
        if names:
            raise MigrationError(
                f"{file.name} ended, but these indexes are invalid: {', '.join(names)}. Nobody uses them, every write "
                f"pays for them. Drop them (DROP INDEX CONCURRENTLY {names[0]}) and run again, which makes them anew."
            )


def _explain(file: Migration, statement: Statement, error: psycopg.Error) -> str:
    position = int(error.diag.statement_position or 1)
    line = statement.line + statement.text.count("\n", 0, position - 1)
    words = [server_words(error)]
    words += [f"Detail: {error.diag.message_detail}"] if error.diag.message_detail else []
    words += [f"Hint: {error.diag.message_hint}"] if error.diag.message_hint else []
    words += [f"Where: {error.diag.context.splitlines()[0]}"] if error.diag.context else []
    after = (
        "Nothing of this file was kept."
        if file.transaction
        else "What its earlier statements did was kept, and they run again."
    )
    return f"{file.name}, line {line}: {' '.join(words)} ({error.sqlstate}). {after} Mend the cause and run again."


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "migrations": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "content": {"type": "str", "required": True},
                },
            },
            "engine": {"type": "str"},
            "schema": {"type": "str", "default": "telegram"},
            "owner": {"type": "str"},
            "lock_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (MigrationError, Unreachable) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


def run(module: AnsibleModule) -> dict[str, Any]:
    """Compare the files with the ledger and apply what is missing, unless in check mode."""
    files = select(
        (parse(item["name"], item["content"]) for item in module.params["migrations"]), module.params["engine"]
    )
    try:
        connection = connect(module)
    except Unreachable as reason:
        if not module.check_mode:
            raise
        module.warn(f"{reason}; every migration counts as pending.")
        return _result(module, {}, pending(files, {}), [])
    with connection:
        ledger = Ledger(connection, module.params["schema"], module.params["owner"])
        applied, todo, again = _compare(files, ledger)
        if todo and not module.check_mode:
            _lock(connection, module.params["lock_timeout"])
            applied, todo, again = _compare(files, ledger)  # another run may have been faster
        for file in again:
            module.warn(
                f"An earlier run began {file.name} and did not finish it: it runs again from its first statement."
            )
        if not module.check_mode:
            if todo:
                ledger.create()
            for file in todo:
                ledger.apply(file)
    return _result(module, applied, todo, again)


def _compare(files: list[Migration], ledger: Ledger) -> tuple[dict[str, str], list[Migration], list[Migration]]:
    applied, begun = ledger.read()
    todo = pending(files, applied)
    return applied, todo, interrupted(todo, begun)


def _lock(connection: Connection[Any], seconds: int) -> None:
    connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{seconds}s"])
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    except psycopg.errors.LockNotAvailable as error:
        raise MigrationError(
            f"Another run has been changing this schema for more than {seconds} s. "
            "Wait until it ends, or raise lock_timeout, then run again."
        ) from error


def _result(
    module: AnsibleModule, before: dict[str, str], todo: list[Migration], again: list[Migration]
) -> dict[str, Any]:
    names = [file.name for file in todo]
    numbers = [parse(name, "").number for name in before] + [file.number for file in todo]
    result: dict[str, Any] = {
        "changed": bool(names),
        "pending": names,
        "interrupted": [file.name for file in again],
        "applied": [] if module.check_mode else names,
        "current": max(numbers, default=0),
    }
    if module._diff:
        order = sorted(before, key=lambda name: parse(name, "").number)
        result["diff"] = {
            "before_header": "applied migrations",
            "after_header": "applied migrations",
            "before": "".join(f"{name}\n" for name in order),
            "after": "".join(f"{name}\n" for name in [*order, *names]),
        }
    return result


if __name__ == "__main__":
    main()
