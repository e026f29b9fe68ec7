#!/usr/bin/python
# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module `sentinel_monitor`: lets one sentinel watch a primary, with the given settings."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sentinel_monitor
short_description: Lets a sentinel watch a Redis primary
version_added: 0.1.0
description:
  - Lets one running sentinel watch a primary, and mends settings that differ, at run time.
    A sentinel rewrites its own file, so the file is no place for a play to change them.
  - A fail-over is never undone. O(primary_address) and O(primary_port) count only when the sentinel
    does not watch O(name) yet; afterwards the sentinels decide which server is the primary.
extends_documentation_fragment:
  - tradingsystem.telegram_stack.sentinel
attributes:
  check_mode:
    description: Can run in check mode and tell what would change.
    support: full
  diff_mode:
    description: Returns the settings before and after, without secrets.
    support: full
  idempotent:
    description: A second run changes nothing.
    support: partial
    details: Sentinel tells nobody the log-in it uses at Redis, so with O(update_auth=true) it is set on every run.
options:
  host:
    description: The sentinel.
    type: str
    default: 127.0.0.1
  state:
    description: Whether the sentinel watches O(name).
    type: str
    choices: [present, absent]
    default: present
  primary_address:
    description: Where the primary is when the sentinel begins to watch it. Needed for O(state=present).
    type: str
  primary_port:
    description: Its port.
    type: int
    default: 6379
  quorum:
    description: Sentinels that have to agree that the primary is down. Needed for O(state=present).
    type: int
  down_after_ms:
    description:
      - Milliseconds without an answer after which a sentinel holds a server for down.
      - Left alone when not given.
    type: int
  failover_timeout_ms:
    description: Milliseconds that a fail-over may take before it is tried again. Left alone when not given.
    type: int
  parallel_syncs:
    description: Replicas that may synchronise at once after a fail-over. Left alone when not given.
    type: int
  auth_user:
    description: ACL user with which the sentinel logs in at Redis.
    type: str
  auth_password:
    description: Password of O(auth_user).
    type: str
  update_auth:
    description: Whether to set O(auth_user) and O(auth_password) again when the sentinel watches O(name) already.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Let the sentinel watch the primary
  tradingsystem.telegram_stack.sentinel_monitor:
    name: telegram
    login_user: telegram_sentinel
    login_password: "{{ telegram_secrets.redis_sentinel }}"
    primary_address: 127.0.0.1
    quorum: 1
    down_after_ms: 5000
    failover_timeout_ms: 10000
    auth_user: telegram_sentinel
    auth_password: "{{ telegram_secrets.redis_sentinel }}"

- name: Let it watch another primary no more
  tradingsystem.telegram_stack.sentinel_monitor:
    name: former
    state: absent
    login_user: telegram_sentinel
    login_password: "{{ telegram_secrets.redis_sentinel }}"
"""

RETURN = r"""
primary:
  description: The primary that the sentinel watches under this name; not there after O(state=absent).
  returned: success
  type: dict
  sample: {address: 127.0.0.1, port: 6380}
settings:
  description: Names of the settings that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [down-after-milliseconds]
"""

from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.sentinel import (
    Address,
    Sentinel,
    SentinelError,
    address_of,
    argument_spec,
    differing,
    parse_address,
    require_library,
)


def _wanted(params: Mapping[str, Any]) -> dict[str, int | None]:
    return {
        "quorum": params["quorum"],
        "down-after-milliseconds": params["down_after_ms"],
        "failover-timeout": params["failover_timeout_ms"],
        "parallel-syncs": params["parallel_syncs"],
    }


def _login(params: Mapping[str, Any]) -> dict[str, str]:
    login = {"auth-user": params["auth_user"], "auth-pass": params["auth_password"]}
    return {key: value for key, value in login.items() if value is not None}


def _present(sentinel: Sentinel, params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    name = params["name"]
    current = sentinel.primary(name)
    primary = Address(params["primary_address"], params["primary_port"]) if current is None else address_of(current)
    settings: dict[str, int | str] = dict(differing(current or {}, _wanted(params)))
    if current is None or params["update_auth"]:
        settings |= _login(params)
    if not check:
        if current is None:
            sentinel.monitor(name, primary, params["quorum"])
        if settings:
            sentinel.set(name, settings)
    shown = {key: "set" if key == "auth-pass" else value for key, value in settings.items()}
    before = {key: value for key, value in (current or {}).items() if key in settings}
    after = {"primary": str(primary), **shown}
    return {
        "changed": current is None or bool(settings),
        "primary": {"address": primary.host, "port": primary.port},
        "settings": sorted(settings),
        "diff": {"before": {} if current is None else {"primary": str(primary), **before}, "after": after},
    }


def _absent(sentinel: Sentinel, params: Mapping[str, Any], check: bool) -> dict[str, Any]:
    current = sentinel.primary(params["name"])
    if current is not None and not check:
        sentinel.remove(params["name"])
    before = {} if current is None else {"primary": str(address_of(current))}
    return {"changed": current is not None, "settings": [], "diff": {"before": before, "after": {}}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(
            host={"type": "str", "default": "127.0.0.1"},
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            primary_address={"type": "str"},
            primary_port={"type": "int", "default": 6379},
            quorum={"type": "int"},
            down_after_ms={"type": "int"},
            failover_timeout_ms={"type": "int"},
            parallel_syncs={"type": "int"},
            auth_user={"type": "str"},
            auth_password={"type": "str", "no_log": True},
            update_auth={"type": "bool", "default": False},
        ),
        required_if=[("state", "present", ("primary_address", "quorum"))],
        supports_check_mode=True,
    )
    require_library(module)
    params = module.params
    try:
        sentinel = Sentinel.of_module(parse_address(params["host"], params["port"]), params)
        act = _present if params["state"] == "present" else _absent
        result = act(sentinel, params, module.check_mode)
        sentinel.close()
    except SentinelError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
