#!/usr/bin/python
# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Module `sentinel_info`: the primary as all sentinels name it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sentinel_info
short_description: Finds the Redis primary that all sentinels agree on
version_added: 0.1.0
description:
  - Asks every sentinel for the primary and returns the one they agree on, with its replicas.
  - Fails when a sentinel cannot be reached, does not watch O(name), or names another primary than the rest.
extends_documentation_fragment:
  - tradingsystem.telegram_stack.sentinel
attributes:
  check_mode:
    description: Can run in check mode and return the same result.
    support: full
  diff_mode:
    description: Returns what has changed.
    support: none
    details: The module only reads.
options:
  hosts:
    description:
      - The sentinels, each as V(host), V(host:port) or V([IPv6 address]:port).
      - O(port) counts for those without a port.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Find the primary
  tradingsystem.telegram_stack.sentinel_info:
    name: telegram
    hosts: [10.0.0.5, 10.0.0.6, "10.0.0.7:26380"]
    login_user: telegram_sentinel_client
    login_password: "{{ telegram_secrets.redis_sentinel_client }}"
  register: sentinel

- name: Wait until a fail-over could happen
  tradingsystem.telegram_stack.sentinel_info:
    name: telegram
    hosts: [127.0.0.1]
    login_user: telegram_sentinel_client
    login_password: "{{ telegram_secrets.redis_sentinel_client }}"
  register: sentinel
  until: sentinel is succeeded and sentinel.replicas | selectattr('link_up') | length > 0
  retries: 15
  delay: 1
"""

RETURN = r"""
primary:
  description: The primary that all sentinels name.
  returned: success
  type: dict
  contains:
    address:
      description: Its address.
      type: str
      sample: 127.0.0.1
    port:
      description: Its port.
      type: int
      sample: 6379
    reachable:
      description: Whether every sentinel reaches it.
      type: bool
      sample: true
replicas:
  description: The replicas, as the first sentinel knows them (it asks them every 10 seconds).
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Its address.
      type: str
      sample: 127.0.0.1
    port:
      description: Its port.
      type: int
      sample: 6380
    reachable:
      description: Whether the sentinel reaches it.
      type: bool
      sample: true
    link_up:
      description: Whether it replicates from its primary.
      type: bool
      sample: true
    priority:
      description: Its priority in a fail-over; 0 means never.
      type: int
      sample: 100
    offset:
      description: Bytes of the replication stream that it has.
      type: int
      sample: 20351
sentinels:
  description: The sentinels that were asked.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Its address.
      type: str
      sample: 127.0.0.1
    port:
      description: Its port.
      type: int
      sample: 26379
    quorum:
      description: Whether it sees enough other sentinels to carry out a fail-over.
      type: bool
      sample: true
"""

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.sentinel import (
    Sentinel,
    SentinelError,
    address_of,
    agreed_primary,
    argument_spec,
    ask_all,
    describe_replica,
    is_up,
    parse_address,
    require_library,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(hosts={"type": "list", "elements": "str", "required": True}),
        supports_check_mode=True,
    )
    require_library(module)
    name, params = module.params["name"], module.params
    try:
        if not params["hosts"]:
            raise SentinelError("hosts is empty: name one sentinel at least.")
        sentinels = [Sentinel.of_module(parse_address(host, params["port"]), params) for host in params["hosts"]]
        known = ask_all(name, sentinels)
        primary = agreed_primary(name, {sentinel: address_of(fields) for sentinel, fields in known.items()})
        result = {
            "primary": {
                "address": primary.host,
                "port": primary.port,
                "reachable": all(is_up(fields) for fields in known.values()),
            },
            "replicas": [describe_replica(fields) for fields in sentinels[0].replicas(name)],
            "sentinels": [
                {"address": each.address.host, "port": each.address.port, "quorum": each.has_quorum(name)}
                for each in sentinels
            ],
        }
    except SentinelError as error:
        module.fail_json(msg=str(error))
    for sentinel in sentinels:
        sentinel.close()
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
