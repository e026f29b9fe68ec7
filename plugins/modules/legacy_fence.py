#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: whether anybody but the feed may write to the legacy tables."""

from __future__ import annotations

DOCUMENTATION = r"""
module: legacy_fence
short_description: Lets nobody but the feed write to the legacy tables
version_added: 0.1.0
description:
  - Puts triggers on the legacy tables that refuse every insert, update, delete and truncate, whoever asks. Revoking
    rights would not bind the legacy role, which is often a superuser; these triggers fire for it, and in a session of
    a replica too, but for a hypertable, whose triggers cannot be set so.
  - Fenced are the table of O(source_table), C(channels) and C(forwarding_rules) of its schema where they exist, and
    O(signals_table).
  - The feed is let through by the word that its sessions carry in the setting C(telegram_stack.feed). The database
    keeps only the word's hash. It keeps accidents out, not a superuser who means to write.
  - Both directions wait for transactions that have written the tables, V(absent) also for those that have read them.
    After O(wait_seconds) nothing is changed and the error names who is in the way.
  - Rows written directly to a partition or chunk are not seen; none of the legacy programs does that.
options:
  state:
    description:
      - V(present) fences the tables, V(absent) removes every trace of it, V(read) only tells how it is.
    type: str
    choices: [present, absent, read]
    default: present
  source_table:
    description:
      - The legacy table of messages, with its schema.
    type: str
    default: telegram_gateway.messages
  signals_table:
    description:
      - The legacy consumer's table of signals, with its schema, where that is in the same database.
    type: str
  word:
    description:
      - What the feed's sessions carry. Needed for O(state=present).
    type: str
  wait_seconds:
    description:
      - How long to wait for the tables.
    type: float
    default: 5
  connect_timeout:
    description:
      - Seconds to wait for the server.
    type: int
    default: 10
requirements:
  - psycopg >= 3.1 on the managed host (Debian package C(python3-psycopg))
extends_documentation_fragment:
  - tradingsystem.telegram_stack.legacy_source.connection
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Shows which tables are fenced, before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
notes:
  - Connect to the server itself, not through PgBouncer.
  - O(source_user) has to own the tables and may create a schema, or be a superuser; V(read) only needs to see them.
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Fence the legacy tables
  tradingsystem.telegram_stack.legacy_fence:
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
    word: "{{ telegram_secrets.legacy_feed_word }}"

- name: See who is still connected to the legacy database
  tradingsystem.telegram_stack.legacy_fence:
    state: read
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
  register: legacy_fence
"""

RETURN = r"""
tables:
  description: The legacy tables that exist, and whether each is fenced (in check mode as it would be).
  returned: always
  type: dict
  sample: {telegram_gateway.messages: true, telegram_gateway.channels: true}
fenced:
  description: Whether all of them are.
  returned: always
  type: bool
  sample: true
sessions:
  description:
    - Who else is connected to the legacy database. What a client has asked is not told. Times are UTC.
  returned: always
  type: list
  elements: dict
  sample:
    - pid: 812
      user: timescale
      application_name: telegram-gateway
      address: 192.0.2.10
      state: idle
      last_query_start: "2026-05-04T12:00:00.000000Z"
sessions_complete:
  description:
    - Whether O(source_user) may see all of each session. Otherwise address, state and time of others are empty.
  returned: always
  type: bool
  sample: true
"""

import contextlib
import hashlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.legacy_source import (
    source_connection_argument_spec,
)
from ..module_utils.postgresql import (
    Unreachable,
    connect,
    server_words,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

SCHEMA = "telegram_stack_fence"
SETTING = "telegram_stack.feed"
_TRIGGER = "telegram_stack_fence"

_BODY = """
BEGIN
  IF encode(sha256(convert_to(coalesce(current_setting('{setting}', true), ''), 'UTF8')), 'hex') <> '{hash}' THEN
    RAISE EXCEPTION 'table %.% is closed: its messages have moved to the Telegram stack', TG_TABLE_SCHEMA, TG_TABLE_NAME
      USING ERRCODE = 'read_only_sql_transaction', HINT = 'A migration has fenced it. rollback.yml opens it again.';
  END IF;
  RETURN NULL;
END
"""
_EXISTING = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
FROM unnest(%s::text[]) WITH ORDINALITY AS given (name, place)
JOIN pg_class AS c ON c.oid = to_regclass(given.name) AND c.relkind IN ('r', 'p')
JOIN pg_namespace AS n ON n.oid = c.relnamespace
ORDER BY given.place
"""
# 62: before each statement that inserts, updates, deletes or truncates (pg_trigger.h: 2 + 4 + 8 + 16 + 32, no row bit).
_FENCED = """
SELECT count(*) > 0 FROM pg_trigger AS t
JOIN pg_proc AS p ON p.oid = t.tgfoid JOIN pg_namespace AS n ON n.oid = p.pronamespace
WHERE t.tgrelid = %s::regclass AND t.tgname = %s AND t.tgenabled IN ('A', 'O') AND t.tgtype = 62
  AND n.nspname = %s AND (%s::text IS NULL OR p.prosrc = %s)
"""
# Whose type or state is hidden counts as well: what cannot be seen is not absent.
_SESSIONS = """
SELECT pid, usename, application_name, coalesce(host(client_addr), CASE WHEN client_port = -1 THEN 'local' END),
  state, to_char(query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
  AND coalesce(backend_type, 'client backend') = 'client backend'
ORDER BY pid
"""
_SESSION = ("pid", "user", "application_name", "address", "state", "last_query_start")
_COMPLETE = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')"
_IN_THE_WAY = """
SELECT DISTINCT coalesce(l.pid::text, 'none: a prepared transaction'), coalesce(a.usename, 'unknown'),
  coalesce(nullif(a.application_name, ''), 'unnamed'),
  coalesce(to_char(a.query_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC', 'unknown')
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted AND l.locktype = 'relation' AND l.relation = ANY (%s::regclass[]) AND l.mode = ANY (%s)
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND l.pid IS DISTINCT FROM pg_backend_pid()
"""
_WRITING = ["RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock",
            "AccessExclusiveLock"]  # fmt: skip
_READING = ["AccessShareLock", "RowShareLock"]


class FenceError(Exception):
    """The tables cannot be fenced or opened; the message is meant for the operator."""


class Fence:
    """The fence of the legacy database behind `connection`, which commits each statement."""

    def __init__(self, module: AnsibleModule, connection: psycopg.Connection[Any]) -> None:
        """Raises FenceError and psycopg.Error."""
        self._params = module.params
        self._connection = connection
        self._body = None
        if module.params["word"]:
            digest = hashlib.sha256(module.params["word"].encode()).hexdigest()
            self._body = _BODY.format(setting=SETTING, hash=digest)
        self.tables = self._existing()

    def _existing(self) -> list[str]:
        source, signals = self._params["source_table"], self._params["signals_table"]
        schema = f"{source.rpartition('.')[0]}." if "." in source else ""
        names = [source, *([signals] if signals else []), f"{schema}channels", f"{schema}forwarding_rules"]
        found = [name for (name,) in self._connection.execute(_EXISTING, [names])]
        for option, name in (("source_table", source), ("signals_table", signals)):
            if name and not self._connection.execute(_EXISTING, [[name]]).fetchone():
                raise FenceError(
                    f"There is no table {name} in database {self._connection.info.dbname} that "
                    f"{self._connection.info.user} may see. Name it in {option}, with its schema."
                )
        return list(dict.fromkeys(found))

    def fenced(self) -> dict[str, bool]:
        """Which tables refuse to be written, with this word where one is given."""
        told = {}
        for table in self.tables:
            given = [table, _TRIGGER, SCHEMA, self._body, self._body]
            told[table] = bool((self._connection.execute(_FENCED, given).fetchone() or [False])[0])
        return told

    def traces(self) -> bool:
        """Whether anything of a fence is there."""
        query = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)"
        return bool((self._connection.execute(query, [SCHEMA]).fetchone() or [False])[0])

    def close(self) -> None:
        """Fence all tables, or none. Raises FenceError and psycopg.Error."""
        body = sql.Literal(self._body).as_string(self._connection)
        function = f"{SCHEMA}.refuse()"
        with self._locked("SHARE ROW EXCLUSIVE", _WRITING):
            self._run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
            self._run(
                f"CREATE OR REPLACE FUNCTION {function} RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog"
                f" AS {body}"
            )
            for table in self.tables:
                if not self._has_trigger(table):
                    self._run(
                        f"CREATE TRIGGER {_TRIGGER} BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                        f" FOR EACH STATEMENT EXECUTE FUNCTION {function}"
                    )
                with contextlib.suppress(psycopg.errors.FeatureNotSupported), self._connection.transaction():
                    self._run(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {_TRIGGER}")  # no hypertable can

    def open(self) -> None:
        """Remove the fence from all tables. Raises FenceError and psycopg.Error."""
        with self._locked("ACCESS EXCLUSIVE", _WRITING + _READING):
            self._run(f"DROP SCHEMA {SCHEMA} CASCADE")

    def sessions(self) -> list[dict[str, Any]]:
        """Who else is connected."""
        return [dict(zip(_SESSION, found, strict=True)) for found in self._connection.execute(_SESSIONS)]

    def sees_all(self) -> bool:
        """Whether the role may see all of them."""
        return bool((self._connection.execute(_COMPLETE).fetchone() or [False])[0])

    def _has_trigger(self, table: str) -> bool:
        query = "SELECT FROM pg_trigger WHERE tgrelid = %s::regclass AND tgname = %s"
        return self._connection.execute(query, [table, _TRIGGER]).fetchone() is not None

    @contextlib.contextmanager
    def _locked(self, mode: str, in_the_way: list[str]) -> Any:
        """A transaction that holds the tables."""
        seconds = self._params["wait_seconds"]
        try:
            with self._connection.transaction():
                self._run(f"SET LOCAL lock_timeout = '{max(1, round(seconds * 1000))}ms'")
                self._run(f"LOCK TABLE {', '.join(self.tables)} IN {mode} MODE")
                yield
        except psycopg.errors.LockNotAvailable as error:
            holders = self._connection.execute(_IN_THE_WAY, [self.tables, in_the_way]).fetchall()
            named = "; ".join(
                f"process {pid} ({user}, {name}), whose last query began {start}" for pid, user, name, start in holders
            )
            raise FenceError(
                f"{', '.join(self.tables)} could not be had within {seconds:g} s, and nothing was changed. In the way: "
                f"{named or 'nobody any more'}. Stop that program, or end its session in the legacy database "
                "(SELECT pg_terminate_backend(PROCESS)), then run again."
            ) from error

    def _run(self, statement: str) -> None:
        """Run a statement of constants and of names as the server has quoted them."""
        self._connection.execute(statement.encode())


def act(module: AnsibleModule, fence: Fence) -> dict[str, Any]:
    """Do what `state` says and tell how it is. Raises FenceError and psycopg.Error."""
    state = module.params["state"]
    before = fence.fenced()
    changed = {"present": not all(before.values()), "absent": fence.traces(), "read": False}[state]
    if changed and not module.check_mode:
        if state == "present":
            fence.close()
        else:
            fence.open()
    if not changed:
        after = before
    elif module.check_mode:
        after = dict.fromkeys(before, state == "present")
    else:
        after = fence.fenced()
    return {
        "changed": changed,
        "tables": after,
        "fenced": all(after.values()),
        "sessions": fence.sessions(),
        "sessions_complete": fence.sees_all(),
        "diff": {"before": {"fenced": before}, "after": {"fenced": after}},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent", "read"], "default": "present"},
            **source_connection_argument_spec(),
            "source_table": {"type": "str", "default": "telegram_gateway.messages"},
            "signals_table": {"type": "str"},
            "word": {"type": "str", "no_log": True},
            "wait_seconds": {"type": "float", "default": 5},
            "connect_timeout": {"type": "int", "default": 10},
        },
        required_if=[("state", "present", ["word"])],
        supports_check_mode=True,
    )
    if module.params["state"] == "present" and not module.params["word"]:
        module.fail_json(msg="word is empty: everybody would have it. Give telegram_secrets.legacy_feed_word.")
    try:
        with connect(module, prefix="source") as connection:
            try:
                module.exit_json(**act(module, Fence(module, connection)))
            except psycopg.Error as error:
                said = server_words(error).rstrip(".")
                raise FenceError(
                    f"The fence of {module.params['source_db']} failed: {said} ({error.sqlstate})."
                ) from error
    except (FenceError, Unreachable) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
