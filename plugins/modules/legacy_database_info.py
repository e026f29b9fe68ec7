#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what the legacy database is, and what stands in the way of a migration."""

from __future__ import annotations

DOCUMENTATION = r"""
module: legacy_database_info
short_description: Looks at the legacy database before a migration
version_added: 0.1.0
description:
  - Reads version, size, shape and clients of the legacy database in read-only transactions, and lists everything
    that stands in the way of a migration at once.
options:
  transaction_seconds:
    description: A transaction that is open for longer stands in the way, because the fence would wait for it.
    type: int
    default: 600
  source_table:
    description: The legacy table of messages, with its schema.
    type: str
    default: telegram_gateway.messages
  connect_timeout:
    description: Seconds to wait for the server.
    type: int
    default: 10
  clock_seconds:
    description: How far the clocks of the two servers may be apart.
    type: int
    default: 5
extends_documentation_fragment:
  - tradingsystem.telegram_stack.legacy_source.connection
attributes:
  check_mode:
    description: Changes nothing in any mode.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Look at the legacy database
  tradingsystem.telegram_stack.legacy_database_info:
    source_host: 192.0.2.10
    source_port: 5433
    source_user: timescale
    source_password: "{{ legacy_database_password }}"
    source_db: tradingsystem
  register: legacy
"""

RETURN = r"""
version:
  description: The server's version.
  returned: success
  type: str
  sample: "16.4"
bytes:
  description: Size of the database.
  returned: success
  type: int
  sample: 734003200
rows:
  description: How many rows the table of messages has.
  returned: success
  type: int
  sample: 300000
shape:
  description: How the table is read, by days or by numbers, and which of its columns are not.
  returned: success
  type: dict
  sample: {read_by: created_at, unread_columns: []}
tables:
  description: Tables of the same schema.
  returned: success
  type: list
  elements: str
  sample: [channels, forwarding_rules, messages]
active_channels:
  description:
    - How many channels of the legacy registry are active; the old gateway takes those only. With 0, or without a
      registry, it takes all.
  returned: success
  type: int
  sample: 12
clients:
  description: Who is connected to the database, without this module.
  returned: success
  type: list
  elements: dict
  sample: [{pid: 812, user: timescale, application: "", address: 192.0.2.10, state: idle}]
findings:
  description: What stands in the way, each with what to do about it.
  returned: success
  type: list
  elements: str
  sample: []
"""

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.legacy_source import (
    source_connection_argument_spec,
)
from ..module_utils.legacy_windows import (
    LegacyTable,
    read_legacy,
)

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg.rows import dict_row

VERSIONS = range(15, 18)

_SERVER = """
SELECT
  current_setting('server_version') AS version,
  current_setting('server_version_num')::int / 10000 AS major,
  pg_database_size(current_database()) AS bytes,
  extract(epoch FROM clock_timestamp())::float8 AS clock,
  pg_has_role(c.relowner, 'MEMBER') AS owner,
  ARRAY(
    SELECT relname::text FROM pg_class
    WHERE relnamespace = c.relnamespace AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY 1
  ) AS tables,
  to_regclass(format('%%I.channels', c.relnamespace::regnamespace))::text AS registry
FROM pg_class AS c WHERE c.oid = to_regclass(%s)
"""
_ACTIVE = "SELECT count(*) AS channels FROM {} AS c WHERE coalesce(to_jsonb(c) ->> 'is_active', 'true') = 'true'"
_CLIENTS = """
SELECT
  pid, usename::text AS user, application_name AS application, host(client_addr) AS address, state,
  extract(epoch FROM clock_timestamp() - xact_start)::float8 AS transaction_seconds
FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
ORDER BY pid
"""


def inspect(module: AnsibleModule, table: LegacyTable, source: psycopg.Connection[Any]) -> dict[str, Any]:
    """Everything at once. Raises psycopg.Error."""
    with source.cursor(row_factory=dict_row) as cursor:
        server = cursor.execute(_SERVER, [module.params["source_table"]]).fetchone() or {}
        here = time.time()  # now: what follows takes seconds
        clients = cursor.execute(_CLIENTS).fetchall()
        active = cursor.execute(_ACTIVE.format(server["registry"])).fetchone() if server["registry"] else None
    windows = table.windows()
    return {
        **{name: server[name] for name in ("version", "bytes", "tables")},
        "active_channels": active["channels"] if active else 0,
        "rows": sum(window.rows for window in windows),
        "shape": {"read_by": table.shape.divider, "unread_columns": list(table.shape.unread)},
        "clients": [{name: client[name] for name in client if name != "transaction_seconds"} for client in clients],
        "findings": findings(server, clients, here, module.params),
    }


def findings(server: dict[str, Any], clients: list[dict[str, Any]], clock: float, params: dict[str, Any]) -> list[str]:
    """What stands in the way; `clock` is the time of this host in seconds."""
    found = []
    apart = server["clock"] - clock
    if abs(apart) > params["clock_seconds"]:
        found.append(
            f"The clock of the legacy server is {apart:+.0f} s from that of this host. Let both follow the time "
            "(timedatectl set-ntp true), then run again."
        )
    if server["major"] not in VERSIONS:
        found.append(
            f"The legacy server is PostgreSQL {server['version']}; {VERSIONS[0]} to {VERSIONS[-1]} are known to work. "
            "Upgrade it, or copy its database to a server of such a version and migrate from there."
        )
    if not server["owner"]:
        found.append(
            f"{params['source_user']} does not own the legacy table and could not fence it. Give the owner's name and "
            "password in migration_source_user and migration_source_password."
        )
    for client in clients:
        seconds = client["transaction_seconds"] or 0
        if seconds > params["transaction_seconds"]:
            found.append(
                f"{client['user']} ({client['application'] or 'no name'}, process {client['pid']}) has had a "
                f"transaction open in the legacy database for {seconds:.0f} s, which the fence would wait for. End it: "
                f"SELECT pg_terminate_backend({client['pid']})"
            )
    return found


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **source_connection_argument_spec(),
            "source_table": {"type": "str", "default": "telegram_gateway.messages"},
            "connect_timeout": {"type": "int", "default": 10},
            "transaction_seconds": {"type": "int", "default": 600},
            "clock_seconds": {"type": "int", "default": 5},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **read_legacy(module, "The look at the legacy database", inspect))


if __name__ == "__main__":
    main()
