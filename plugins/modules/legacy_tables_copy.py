#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: the legacy tables beside the messages into the stack's database."""

from __future__ import annotations

DOCUMENTATION = r"""
module: legacy_tables_copy
short_description: Copies channels, forwarding rules and signals of the legacy system
version_added: 0.1.0
description:
  - Reads the smaller legacy tables, whatever their columns, and takes the rows of each over in one transaction.
  - A further run takes what has changed at the source. What was changed here since stays as it is; where both sides
    have changed, RV(tables[].kept) says so.
  - A channel or rule that the source has no more becomes inactive here. Nothing is deleted.
  - The source is read in a read-only session, and nothing in it is changed or locked.
options:
  tables:
    description:
      - The tables, in the order in which they are taken over.
    type: list
    elements: dict
    required: true
    suboptions:
      kind:
        description:
          - What the table holds.
          - V(channels) go to the channel registry. Where none is active, the legacy gateway takes all; then all become
            active.
          - V(forwarding_rules) are kept as they are in C(telegram.forwarding_rules).
          - V(signals) are kept whole in C(telegram.legacy_signals); the views C(tp_capital.tp_capital_signals) and
            C(signals.tp_capital_signals) show them together with the stack's own.
        type: str
        required: true
        choices: [channels, forwarding_rules, signals]
      name:
        description:
          - The table, with its schema. By default C(telegram_gateway.channels), C(telegram_gateway.forwarding_rules) or
            C(tp_capital.tp_capital_signals).
        type: str
      optional:
        description:
          - Whether the source may lack the table.
        type: bool
        default: false
  owner:
    description:
      - Role that owns the schema and is worked as.
    type: str
    default: telegram_owner
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
  - tradingsystem.telegram_stack.legacy_source.connection
attributes:
  check_mode:
    description: Does everything in a transaction that it takes back, so that the counts are right.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
  idempotent:
    description: A further run changes nothing while the source stays as it is.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Take the channel registry over, and forwarding rules where there are any
  tradingsystem.telegram_stack.legacy_tables_copy:
    tables:
      - kind: channels
      - kind: forwarding_rules
        optional: true
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
  register: copied
"""

RETURN = r"""
tables:
  description: What became of each table, in the order in which they were given.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: What it holds.
      type: str
      sample: channels
    present:
      description: Whether the source has the table.
      type: bool
      sample: true
    changed:
      description: Whether anything here was, or would be, changed.
      type: bool
      sample: true
    counts:
      description:
        - How many rows were given, are new here and were changed here. Of signals those that are here as they are there
          are not given again.
        - C(quarantined) rows name no channel of Telegram (V(channels), V(forwarding_rules)); C(checkpoints) are rows in
          which the consumer kept its place (V(signals)).
      returned: when RV(tables[].present)
      type: dict
      sample: {given: 40, quarantined: 1, added: 39, changed: 0}
    kept:
      description: Rows and their fields that were changed both there and here, and stay as they are here.
      returned: for V(channels) and V(forwarding_rules) that are RV(tables[].present)
      type: list
      elements: str
      sample: ["-1001234567890: label"]
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.legacy_source import (
    source_connection_argument_spec,
)
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.postgresql import (
    Unreachable,
    connect,
    connection_argument_spec,
    server_words,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql

FUNCTIONS = {
    "channels": "telegram.adopt_legacy_channels",
    "forwarding_rules": "telegram.adopt_legacy_rules",
    "signals": "telegram.adopt_legacy_signals",
}
TABLES = {
    "channels": "telegram_gateway.channels",
    "forwarding_rules": "telegram_gateway.forwarding_rules",
    "signals": "tp_capital.tp_capital_signals",
}
NEEDED = {"channels": "channel_id", "forwarding_rules": "id", "signals": "raw_message"}
"""A column without which a table is another one."""

_KNOWN = "SELECT coalesce(string_agg(checksum::text, ','), '') FROM telegram.legacy_signals WHERE origin = %s"
_ROWS = """
COPY (
  SELECT to_jsonb(r), c.checksum FROM {table} AS r
  CROSS JOIN LATERAL (SELECT hashtextextended(r::text, 0) AS checksum) AS c
  WHERE NOT EXISTS (SELECT FROM unnest({known}::bigint[]) AS k WHERE k = c.checksum)
) TO STDOUT
"""
_COLUMNS = "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"


class CopyError(Exception):
    """The table cannot be had or taken; the message is meant for the operator."""


def copy(module: AnsibleModule, source: psycopg.Connection[Any], target: psycopg.Connection[Any]) -> dict[str, Any]:
    """Take the tables over. Raises CopyError."""
    source.execute("SET timezone = 'UTC'")
    source.execute("SET default_transaction_read_only = on")
    target.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(module.params["owner"])))
    done: list[dict[str, Any]] = []
    for table in module.params["tables"]:
        try:
            done.append({"kind": table["kind"], **_take(module, source, target, table)})
        except psycopg.Error as error:
            raise CopyError(
                f"The {table['kind']} could not be copied: {server_words(error).rstrip('.')} ({error.sqlstate}). "
                f"Copied before: {', '.join(one['kind'] for one in done) or 'nothing'}."
            ) from error
    return {"changed": any(one["changed"] for one in done), "tables": done}


def _take(
    module: AnsibleModule, source: psycopg.Connection[Any], target: psycopg.Connection[Any], given: dict[str, Any]
) -> dict[str, Any]:
    kind = given["kind"]
    table = given["name"] or TABLES[kind]
    if not _is_there(source, table, given):
        return {"changed": False, "present": False}
    with target.transaction(force_rollback=module.check_mode):
        origin = f"{source.info.dbname}.{table}"
        (known,) = (target.execute(_KNOWN, [origin]).fetchone() if kind == "signals" else None) or ("",)
        target.execute("CREATE TEMP TABLE legacy_given (document jsonb, checksum bigint) ON COMMIT DROP")
        _bring(source, target, table, known)
        cursor = target.execute(f"SELECT * FROM {FUNCTIONS[kind]}(%s)", [origin])  # noqa: S608
        names = [column.name for column in cursor.description or ()]
        found = dict(zip(names, cursor.fetchone() or (), strict=True))
    return _told(found)


def _is_there(source: psycopg.Connection[Any], table: str, given: dict[str, Any]) -> bool:
    columns = [name for (name,) in source.execute(_COLUMNS, [table])]
    if not columns:
        if given["optional"]:
            return False
        raise CopyError(
            f"There is no table {table} in database {source.info.dbname} that {source.info.user} may see. "
            "Name it in tables, with its schema, or say with optional that there may be none."
        )
    if (needed := NEEDED[given["kind"]]) not in columns:
        raise CopyError(
            f"{table} has no column {needed}: it holds no {given['kind'].replace('_', ' ')} of the legacy "
            "system. Name the right one in tables."
        )
    return True


def _bring(source: psycopg.Connection[Any], target: psycopg.Connection[Any], table: str, known: str) -> None:
    """Each row as one document, but for those whose checksum is `known`; the table is named as to_regclass has it."""
    (name,) = source.execute("SELECT to_regclass(%s)::text", [table]).fetchone() or ("",)
    # The name is the server's own words.
    query = sql.SQL(_ROWS).format(table=sql.SQL(name), known=sql.Literal(f"{{{known}}}"))
    with (
        source.cursor().copy(query) as given,
        target.cursor().copy(b"COPY legacy_given FROM STDIN") as taken,
    ):
        for data in given:
            taken.write(data)


def _told(found: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"present": True}
    found.pop("none_active", None)
    if "kept" in found:
        told["kept"] = found.pop("kept") or []
    changed = any(found.get(name) for name in ("added", "changed", "quarantined"))
    return {"changed": changed, "counts": found, **told}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            **source_connection_argument_spec(),
            "owner": {"type": "str", "default": "telegram_owner"},
            "tables": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "kind": {"type": "str", "required": True, "choices": list(FUNCTIONS)},
                    "name": {"type": "str"},
                    "optional": {"type": "bool", "default": False},
                },
            },
        },
        supports_check_mode=True,
    )
    try:
        with connect(module, prefix="source", client_encoding="UTF8") as source, connect(module) as target:
            result = copy(module, source, target)
    except (CopyError, Unreachable) as error:
        module.fail_json(msg=str(error))
    except psycopg.Error as error:
        module.fail_json(msg=f"Nothing was copied: {server_words(error).rstrip('.')} ({error.sqlstate}).")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
