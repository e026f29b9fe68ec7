#!/usr/bin/python
# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: ask the components of the stack how they are."""

from __future__ import annotations

DOCUMENTATION = r"""
module: stack_health
short_description: Ask the components of the Telegram hybrid stack how they are
version_added: 0.1.0
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
description:
  - Runs a list of checks on the managed host and returns one result for each, in the same order.
  - Only an answer that is understood can be V(ok). No answer, an empty one, one that cannot be parsed
    and an unknown state are V(failed).
  - The module itself succeeds whatever the checks find; look at RV(status).
attributes:
  check_mode:
    description: Reads only, so that it does the same in check mode.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
  idempotent:
    description: Changes nothing.
    support: full
options:
  checks:
    description: What to ask.
    type: list
    elements: dict
    required: true
    suboptions:
      component:
        description: The component as people call it; several checks may share one.
        type: str
        required: true
      name:
        description: The name of the check within its component.
        type: str
        required: true
      kind:
        description:
          - V(unit) asks systemd for state and restarts of O(checks[].unit).
          - V(tcp) connects to O(checks[].host) and O(checks[].port).
          - V(http) fetches O(checks[].path) and judges its status code, or O(checks[].json_field) where that is given.
          - V(metrics) fetches O(checks[].path) in Prometheus' format and compares O(checks[].metric).
          - V(postgresql) runs O(checks[].query), which gives one number.
          - V(maintenance) asks the database for its own jobs, each of which has to end well every O(checks[].warn)
            minutes.
          - V(failures) counts the messages that failed and were not replayed; the component is well all the same.
          - V(record) reads from O(checks[].entry) of the JSON file O(checks[].path) on the host how a job ended,
            which has to be well and within O(checks[].warn) hours.
          - V(pgbouncer) counts waiting clients on PgBouncer's console.
          - V(redis) asks one instance for its role and, of a replica, its link.
          - V(sentinel) asks all O(checks[].sentinels) for the primary and all O(checks[].instances) whether they agree.
          - V(rabbitmq) asks the management interface for nodes and alarms, V(rabbitmq_queues) for queue depths.
          - V(prometheus) asks for the state of all scrape targets.
          - V(off) asks nothing and says O(checks[].reason).
        type: str
        required: true
        choices:
          - unit
          - tcp
          - http
          - metrics
          - postgresql
          - maintenance
          - failures
          - record
          - pgbouncer
          - redis
          - sentinel
          - rabbitmq
          - rabbitmq_queues
          - prometheus
          - "off"
      required:
        description:
          - Whether a unit that is not installed has failed.
          - Otherwise it, and the further checks of its component, are V(off).
        type: bool
        default: true
      hint:
        description: What to do when the check is not V(ok) and knows nothing better itself.
        type: str
      reason:
        description: Why the component is off.
        type: str
      unit:
        description: The component's unit; shown with every result.
        type: str
      restarts:
        description: How often a unit may have restarted by itself within ten minutes before it counts as degraded.
        type: int
        default: 3
      host:
        description: Where the component is reached.
        type: str
        default: 127.0.0.1
      port:
        description: The component's port; shown with every result.
        type: int
      timeout:
        description: Seconds to wait for one answer; a check with several questions ends after three times as long.
        type: float
        default: 5
      path:
        description: Path of the URL, or of the file of V(record).
        type: str
        default: /
      entry:
        description: Name of the job in the file of V(record).
        type: str
      accept:
        description: HTTP status codes that are good.
        type: list
        elements: int
        default: [200]
      json_field:
        description: Field of a JSON answer that holds the state.
        type: str
      json_states:
        description:
          - The component's own words for its states, and V(ok), V(degraded), V(failed) or V(off) for each.
          - Other words are V(failed).
        type: dict
        default: {healthy: ok, ok: ok, degraded: degraded}
      metric:
        description: Name of a metric; each of its samples counts.
        type: str
      minimum:
        description: The least good value of O(checks[].metric).
        type: float
        default: 1
      user:
        description: User name to log in with.
        type: str
      password:
        description: Password of O(checks[].user).
        type: str
      ca_file:
        description:
          - File on the host with the certificate of the authority that the component's own has to come from.
          - With it V(http), V(metrics) and V(prometheus) ask by TLS.
        type: path
      database:
        description: Name of the database.
        type: str
      query:
        description: A statement that returns one number.
        type: str
      measures:
        description: What the number is, in words.
        type: str
        default: value
      warn:
        description: The number above which the component is degraded; of V(maintenance) minutes, of V(record) hours.
        type: float
      fail:
        description: The number above which the component has failed.
        type: float
      sentinels:
        description: Hosts of the sentinels, all on O(checks[].port).
        type: list
        elements: str
      primary:
        description: The name under which the sentinels know the primary.
        type: str
      instances:
        description: The Redis instances that the sentinels watch.
        type: list
        elements: dict
        suboptions:
          host:
            description: Address of the instance.
            type: str
            required: true
          port:
            description: Port of the instance.
            type: int
            required: true
          user:
            description: User name to log in with.
            type: str
          password:
            description: Password of the user.
            type: str
      vhost:
        description: Virtual host of RabbitMQ.
        type: str
      queues:
        description: Queues that must exist, and how full they may be.
        type: list
        elements: dict
        suboptions:
          queue:
            description: Name of a queue, or a shell pattern.
            type: str
            required: true
          messages:
            description: The most messages that are fine.
            type: int
            required: true
          consumers:
            description: The fewest consumers that are fine.
            type: int
            default: 0
      off_jobs:
        description: For V(prometheus), jobs whose targets are off as they should be.
        type: list
        elements: str
        default: []
requirements:
  - systemd
  - psycopg >= 3.1 on the managed host for the kinds V(postgresql), V(maintenance) and V(pgbouncer)
    (Debian package C(python3-psycopg))
"""

EXAMPLES = r"""
- name: Ask the node exporter
  tradingsystem.telegram_stack.stack_health:
    checks:
      - component: Node exporter
        name: unit
        kind: unit
        unit: prometheus-node-exporter.service
      - component: Node exporter
        name: metrics
        kind: metrics
        unit: prometheus-node-exporter.service
        port: 9100
        path: /metrics
        metric: node_exporter_build_info
  register: health

- name: Stop when something has failed
  ansible.builtin.assert:
    that: health.status == 'ok'
    fail_msg: "{{ health.results | rejectattr('status', 'in', ['ok', 'off']) | map(attribute='hint') | list }}"
"""

RETURN = r"""
results:
  description: One result for each check, in the order of O(checks).
  returned: always
  type: list
  elements: dict
  contains:
    component:
      description: As given.
      type: str
    name:
      description: As given.
      type: str
    status:
      description: V(ok), V(degraded), V(failed) or V(off).
      type: str
    value:
      description: What was found, or what was wrong with the answer.
      type: str
    threshold:
      description: What would have been good.
      type: str
    hint:
      description: What to do next; empty when the check is V(ok).
      type: str
    note:
      description: What to know although all is well, or nothing.
      type: str
    version:
      description: The version that the component named, if it did.
      type: str
    port:
      description: As given.
      type: int
    unit:
      description: As given.
      type: str
  sample:
    - component: Redis exporter
      name: metrics
      status: failed
      value: redis_up 0
      threshold: redis_up at least 1
      hint: journalctl -u prometheus-redis-exporter.service -n 50
      note: ""
      version: 1.69.0
      port: 9121
      unit: prometheus-redis-exporter.service
status:
  description: The worst status; V(off) counts as V(ok). V(failed) when there was nothing to check.
  returned: always
  type: str
  sample: failed
counts:
  description: How many results have each status.
  returned: always
  type: dict
  sample: {ok: 11, "off": 1, degraded: 0, failed: 1}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.health import counts, run_checks, worst
from ..module_utils.health_drivers import DRIVERS

_NETWORK = ["host", "port"]
NEEDED = {
    "unit": ["unit"],
    "tcp": _NETWORK,
    "http": [*_NETWORK, "path"],
    "metrics": [*_NETWORK, "path", "metric"],
    "postgresql": [*_NETWORK, "user", "password", "database", "query"],
    "maintenance": [*_NETWORK, "user", "password", "database", "warn"],
    "failures": [*_NETWORK, "user", "password", "database"],
    "record": ["path", "entry", "warn"],
    "pgbouncer": [*_NETWORK, "user", "password", "database"],
    "redis": _NETWORK,
    "sentinel": ["port", "sentinels", "primary", "instances"],
    "rabbitmq": [*_NETWORK, "user", "password"],
    "rabbitmq_queues": [*_NETWORK, "user", "password", "vhost", "queues"],
    "prometheus": _NETWORK,
    "off": [],
}
"""The options that each kind of check cannot do without."""


def argument_spec() -> dict[str, Any]:
    """The module's options, as documented above."""
    login = {"user": {"type": "str"}, "password": {"type": "str", "no_log": True}}
    check = {
        "component": {"type": "str", "required": True},
        "name": {"type": "str", "required": True},
        "kind": {"type": "str", "required": True, "choices": list(NEEDED)},
        "required": {"type": "bool", "default": True},
        "hint": {"type": "str"},
        "reason": {"type": "str"},
        "unit": {"type": "str"},
        "restarts": {"type": "int", "default": 3},
        "host": {"type": "str", "default": "127.0.0.1"},
        "port": {"type": "int"},
        "timeout": {"type": "float", "default": 5},
        "path": {"type": "str", "default": "/"},
        "entry": {"type": "str"},
        "accept": {"type": "list", "elements": "int", "default": [200]},
        "json_field": {"type": "str"},
        "json_states": {"type": "dict", "default": {"healthy": "ok", "ok": "ok", "degraded": "degraded"}},
        "metric": {"type": "str"},
        "minimum": {"type": "float", "default": 1},
        **login,
        "ca_file": {"type": "path"},
        "database": {"type": "str"},
        "query": {"type": "str"},
        "measures": {"type": "str", "default": "value"},
        "warn": {"type": "float"},
        "fail": {"type": "float"},
        "sentinels": {"type": "list", "elements": "str"},
        "primary": {"type": "str"},
        "instances": {
            "type": "list",
            "elements": "dict",
            "options": {"host": {"type": "str", "required": True}, "port": {"type": "int", "required": True}, **login},
        },
        "vhost": {"type": "str"},
        "queues": {
            "type": "list",
            "elements": "dict",
            "options": {
                "queue": {"type": "str", "required": True},
                "messages": {"type": "int", "required": True},
                "consumers": {"type": "int", "default": 0},
            },
        },
        "off_jobs": {"type": "list", "elements": "str", "default": []},
    }
    return {
        "checks": {
            "type": "list",
            "elements": "dict",
            "required": True,
            "options": check,
            "required_if": [("kind", kind, names) for kind, names in NEEDED.items() if names],
        }
    }


def main() -> None:
    """Run the checks and hand back what they found."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    results = run_checks(module.params["checks"], DRIVERS)
    statuses = [result["status"] for result in results]
    module.exit_json(changed=False, results=results, status=worst(statuses), counts=counts(statuses))


if __name__ == "__main__":
    main()
