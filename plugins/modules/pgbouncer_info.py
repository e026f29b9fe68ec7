#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what PgBouncer's console tells."""

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_info
short_description: Tells what PgBouncer holds and does
version_added: 0.1.0
description:
  - Asks PgBouncer's console for its version, databases, pools, statistics, connections and configuration.
  - A user of C(stats_users) is enough.
  - The columns are those of PgBouncer's own C(SHOW) commands; newer versions have more of them.
extends_documentation_fragment:
  - tradingsystem.telegram_stack.pgbouncer
attributes:
  check_mode:
    description: Can run in check mode and return the same result.
    support: full
  diff_mode:
    description: Returns what has changed.
    support: none
    details: The module only reads.
  idempotent:
    description: Changes nothing.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Ask PgBouncer how busy it is
  tradingsystem.telegram_stack.pgbouncer_info:
    login_host: 127.0.0.1
    login_user: pgbouncer_stats
    login_password: "{{ telegram_secrets.pgbouncer_stats }}"
  register: pgbouncer

- name: Wait until nobody waits for a server connection
  tradingsystem.telegram_stack.pgbouncer_info:
    login_host: 127.0.0.1
    login_user: pgbouncer_stats
    login_password: "{{ telegram_secrets.pgbouncer_stats }}"
  register: pgbouncer
  until: pgbouncer is succeeded and pgbouncer.waiting == 0
  retries: 10
  delay: 1
"""

RETURN = r"""
version:
  description: PgBouncer's version.
  returned: success
  type: str
  sample: 1.24.1
databases:
  description: C(SHOW DATABASES) without the console itself; C(paused) and C(disabled) are booleans.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: telegram_gateway, host: 127.0.0.1, port: 5434, database: telegram_gateway, force_user: null, pool_size: 20,
       reserve_pool: 0, pool_mode: null, max_connections: 80, current_connections: 3, paused: false, disabled: false}
pools:
  description: C(SHOW POOLS), one for each database and user, without the console.
  returned: success
  type: list
  elements: dict
  sample:
    - {database: telegram_gateway, user: telegram_api, cl_active: 4, cl_waiting: 0, sv_active: 1, sv_idle: 2,
       maxwait: 0, maxwait_us: 0, pool_mode: transaction}
stats:
  description: C(SHOW STATS) without the console, times in microseconds.
  returned: success
  type: list
  elements: dict
  sample:
    - {database: telegram_gateway, total_xact_count: 8312, total_query_count: 9120, total_wait_time: 18230,
       avg_xact_time: 420, avg_query_time: 300, avg_wait_time: 2}
clients:
  description: How many clients are connected, by database, user and state.
  returned: success
  type: list
  elements: dict
  sample:
    - {database: telegram_gateway, user: telegram_api, state: active, count: 4}
servers:
  description: How many server connections there are, by database, user and state.
  returned: success
  type: list
  elements: dict
  sample:
    - {database: telegram_gateway, user: telegram_api, state: idle, count: 2}
waiting:
  description: Clients of all pools that wait for a server connection.
  returned: success
  type: int
  sample: 0
longest_wait:
  description: Seconds that the oldest of them has waited.
  returned: success
  type: float
  sample: 0.0
config:
  description: C(SHOW CONFIG), names to values as PgBouncer writes them.
  returned: success
  type: dict
  sample: {pool_mode: transaction, default_pool_size: "20", max_client_conn: "100"}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.pgbouncer import (
    Console,
    PgbouncerError,
    connection_argument_spec,
    counted,
    databases,
    of_pools,
    version,
)
from ..module_utils.postgresql import Unreachable


def gather(console: Console) -> dict[str, Any]:
    """Everything that the module returns."""
    pools = of_pools(console.show("POOLS"))
    return {
        "version": version(console.show("VERSION")),
        "databases": databases(console.show("DATABASES")),
        "pools": pools,
        "stats": of_pools(console.show("STATS")),
        "clients": counted(console.show("CLIENTS")),
        "servers": counted(console.show("SERVERS")),
        "waiting": sum(row["cl_waiting"] for row in pools),
        "longest_wait": max((row["maxwait"] + row["maxwait_us"] / 1e6 for row in pools), default=0.0),
        "config": {row["key"]: row["value"] for row in console.show("CONFIG")},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=connection_argument_spec(), supports_check_mode=True)
    try:
        console = Console(module)
        result = gather(console)
        console.close()
    except (PgbouncerError, Unreachable) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
