#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: a background policy of TimescaleDB."""

from __future__ import annotations

DOCUMENTATION = r"""
module: timescale_policy
short_description: Gives a hypertable or continuous aggregate a background policy
version_added: 0.1.0
description:
  - Makes, alters or removes the policy by which TimescaleDB compresses or drops old chunks, refreshes
    a continuous aggregate, or reorders chunks by an index.
  - An existing policy keeps its job and that job's history; only what differs is altered.
    What is not given is left as it is.
  - Policies exist in TimescaleDB's community edition only. On the other engines the module does nothing, whatever
    O(state) is, and answers RV(skipped) with the engine's name, so that one play serves all engines.
    There the collection's procedure C(telegram.run_maintenance()) does the work.
options:
  relation:
    description:
      - The hypertable or continuous aggregate, with its schema.
    type: str
    required: true
  policy:
    description:
      - V(compression) compresses chunks older than O(after).
      - V(retention) drops chunks older than O(after).
      - V(refresh) refreshes a continuous aggregate between O(start_offset) and O(end_offset).
      - V(reorder) rewrites chunks that are no longer written to in the order of O(index).
    type: str
    choices: [compression, retention, refresh, reorder]
    required: true
  state:
    description:
      - Whether the policy exists. Without it compressed chunks stay compressed.
    type: str
    choices: [present, absent]
    default: present
  after:
    description:
      - Age of a chunk, as an interval (V(14 days)). Needed for a new V(compression) or V(retention) policy.
    type: str
  start_offset:
    description:
      - How far back a refresh begins, as an interval. From the very first row by default.
    type: str
  end_offset:
    description:
      - How long before now a refresh ends, as an interval. Up to the very last row by default.
    type: str
  index:
    description:
      - Name of the index to reorder by. Needed for a new V(reorder) policy.
    type: str
  segment_by:
    description:
      - Columns that divide a compressed chunk. Turns compression on where it is off, as O(order_by) does.
      - Changed values count for chunks that are compressed later.
    type: list
    elements: str
  order_by:
    description:
      - Columns by which rows of a segment are ordered, each C(COLUMN [ASC|DESC] [NULLS FIRST|LAST]).
    type: list
    elements: str
  every:
    description:
      - How often the policy's job runs, as an interval. Needed for a new V(refresh) policy.
    type: str
  enabled:
    description:
      - Whether the job runs at all.
    type: bool
  max_runtime:
    description:
      - How long one run of the job may take, as an interval; V(0) for ever.
    type: str
  max_retries:
    description:
      - How often a failed run is tried again; V(-1) for ever.
    type: int
  retry_period:
    description:
      - How long the job waits before it tries again, as an interval.
    type: str
  owner:
    description:
      - Role that owns the relation and shall own the job. The role that logs in by default.
    type: str
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
attributes:
  check_mode:
    description: Changes nothing. Where no server or database exists yet, the policy counts as missing.
    support: full
  diff_mode:
    description: Shows the policy before and after.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: full
notes:
  - Tables whose time column is a number are not supported.
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
"""

EXAMPLES = r"""
- name: Compress messages behind the edit window
  tradingsystem.telegram_stack.timescale_policy:
    relation: telegram.messages
    policy: compression
    after: 14 days
    segment_by: [channel_id]
    order_by: [message_date DESC, message_id DESC]
    owner: telegram_owner

- name: Keep messages for 90 days
  tradingsystem.telegram_stack.timescale_policy:
    relation: telegram.messages
    policy: retention
    after: 90 days
    every: 6 hours
    owner: telegram_owner

- name: Keep everything during a migration
  tradingsystem.telegram_stack.timescale_policy:
    relation: telegram.messages
    policy: retention
    state: absent
    owner: telegram_owner
"""

RETURN = r"""
engine:
  description: V(timescale), V(timescale_apache) or V(native); V(unknown) where no server answers in check mode.
  returned: success
  type: str
  sample: timescale
skipped:
  description: Whether nothing was done because the engine has no policies.
  returned: on the engines V(timescale_apache) and V(native)
  type: bool
  sample: true
job_id:
  description: Number of the policy's job; not there without one.
  returned: when there is a policy
  type: int
  sample: 1000
settings:
  description: The policy after the run, by the names of the options; in check mode what it would be.
  returned: when there is, or would be, a policy
  type: dict
  sample: {after: 14 days, every: 12:00:00, enabled: true}
"""

import contextlib
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.postgresql import (
    Unreachable,
    connect,
    connection_argument_spec,
    server_words,
)
from ..module_utils.timescale import (
    JOB_SETTINGS,
    PROCEDURES,
    SETTINGS,
    PolicyError,
    changes,
    current,
    missing,
    parse_order,
    shown,
    skip_message,
    wanted,
)
from ..module_utils.timescale_server import Server

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg
    from psycopg import sql


def present(module: AnsibleModule, server: Server) -> dict[str, Any]:
    """Let the policy be as the options say."""
    policy = module.params["policy"]
    asked = server.intervals(wanted(policy, {name: module.params[name] for name in SETTINGS}))
    storage = _storage(module.params)
    job = server.job()
    before = server.intervals(current(policy, job)) if job else {}
    stored = server.storage() if policy == "compression" else None
    lacking = [] if job else missing(policy, asked)
    if lacking:
        raise PolicyError(f"{module.params['relation']} has no {policy} policy yet, and a new one needs {lacking[0]}.")
    new_storage = changes(stored or {}, storage)
    compress = policy == "compression" and (stored is None or bool(new_storage))
    new = changes(before, asked)
    number = job["job_id"] if job else None
    if (new or compress or job is None) and not module.check_mode:
        if compress:
            server.set_storage(storage)
        if number is None:
            number = server.add(asked)
            new = {name: value for name, value in asked.items() if name in JOB_SETTINGS}
        server.alter(number, new)
    after = {**before, **asked, **(stored or {}), **storage}
    result = {
        "changed": bool(new) or compress or job is None,
        "settings": shown(after),
        "diff": {"before": shown({**before, **(stored or {})}), "after": shown(after)},
    }
    return result if number is None else {**result, "job_id": number}


def _storage(params: dict[str, Any]) -> dict[str, Any]:
    given: dict[str, Any] = {"segment_by": params["segment_by"]}
    given["order_by"] = None if params["order_by"] is None else [parse_order(text) for text in params["order_by"]]
    found = {name: value for name, value in given.items() if value is not None}
    if found and params["policy"] != "compression":
        raise PolicyError(f"{sorted(found)[0]}: without meaning for policy {params['policy']}. Leave it out.")
    return found


def absent(module: AnsibleModule, server: Server) -> dict[str, Any]:
    """Let there be no policy."""
    job = server.job()
    before = server.intervals(current(module.params["policy"], job)) if job else None
    if job and not module.check_mode:
        server.remove()
    return {"changed": job is not None, "diff": {"before": shown(before or {}), "after": {}}}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Look at the engine, then act in one transaction."""
    params = module.params
    try:
        connection = connect(module)
    except Unreachable as reason:
        if not module.check_mode:
            raise
        module.warn(f"{reason}; the policy counts as missing.")
        return {"changed": params["state"] == "present", "engine": "unknown"}
    with connection:
        server = Server(connection, params["relation"], params["policy"])
        found = server.engine()
        if found != "timescale":
            message = skip_message(found, params["policy"], params["relation"])
            return {"changed": False, "skipped": True, "engine": found, "msg": message}
        try:
            with connection.transaction():
                if params["owner"]:
                    connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(params["owner"])))
                act = present if params["state"] == "present" else absent
                return {"engine": found, **act(module, server)}
        except psycopg.Error as error:
            raise PolicyError(_explain(params, error)) from error


def _explain(params: dict[str, Any], error: psycopg.Error) -> str:
    words = [server_words(error)]
    words += [f"Detail: {error.diag.message_detail}"] if error.diag.message_detail else []
    words += [f"Hint: {error.diag.message_hint}"] if error.diag.message_hint else []
    return (
        f"The {params['policy']} policy of {params['relation']} was left as it was: {' '.join(words)} "
        f"({error.sqlstate}). Mend the cause and run again."
    )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            **connection_argument_spec(),
            "relation": {"type": "str", "required": True},
            "policy": {"type": "str", "required": True, "choices": list(PROCEDURES)},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "after": {"type": "str"},
            "start_offset": {"type": "str"},
            "end_offset": {"type": "str"},
            "index": {"type": "str"},
            "segment_by": {"type": "list", "elements": "str"},
            "order_by": {"type": "list", "elements": "str"},
            "every": {"type": "str"},
            "enabled": {"type": "bool"},
            "max_runtime": {"type": "str"},
            "max_retries": {"type": "int"},
            "retry_period": {"type": "str"},
            "owner": {"type": "str"},
        },
        supports_check_mode=True,
    )
    try:
        result = run(module)
    except (PolicyError, Unreachable) as error:
        module.fail_json(msg=str(error))
    else:
        module.exit_json(**result)


if __name__ == "__main__":
    main()
