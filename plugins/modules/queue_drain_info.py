#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: whether everything that was taken in is through."""

from __future__ import annotations

DOCUMENTATION = r"""
module: queue_drain_info
short_description: Tells how much waits in each stage of the stack
version_added: 0.1.0
description:
  - Asks gateway, RabbitMQ, the database and a reverse feed how much of what was taken in is not through yet.
  - A stage that does not answer, or tells no count, fails the module. It is never taken for an empty one.
options:
  gateway:
    description:
      - The gateway, whose spool and sinks are asked for.
    type: dict
    suboptions:
      host:
        description:
          - Where it is reached.
        type: str
        default: 127.0.0.1
      port:
        description:
          - Its port.
        type: int
        default: 4006
      sinks:
        description:
          - The sinks that count, for example V(database); all without any.
        type: list
        elements: str
        default: []
  rabbitmq:
    description:
      - RabbitMQ's management interface.
    type: dict
    suboptions:
      host:
        description:
          - Where it is reached.
        type: str
        default: 127.0.0.1
      port:
        description:
          - Its port.
        type: int
        default: 15672
      user:
        description:
          - A user that may look, with the tag C(monitoring).
        type: str
        required: true
      password:
        description:
          - Its password.
        type: str
        required: true
      vhost:
        description:
          - The virtual host.
        type: str
        default: telegram
      queues:
        description:
          - Queues, or shell patterns of them. Each has to match one at least.
        type: list
        elements: str
        required: true
  consumer:
    description:
      - A consumer by the name of its states in the database, which is asked what it has still to do.
    type: str
  feed_url:
    description:
      - Where a feed tells C(backlog) and C(age) in a JSON document.
    type: str
  timeout:
    description:
      - Seconds to wait for one answer.
    type: float
    default: 5
extends_documentation_fragment:
  - tradingsystem.telegram_stack.postgresql
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
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
notes:
  - RabbitMQ's counts may be 5 seconds old. O(consumer) is exact, so ask for both.
  - The database is connected to for O(consumer) only.
"""

EXAMPLES = r"""
- name: Wait until everything is through
  tradingsystem.telegram_stack.queue_drain_info:
    gateway:
      port: 4006
    rabbitmq:
      user: monitoring
      password: "{{ rabbitmq_monitoring_password }}"
      queues: [telegram.consumer.signals*]
    consumer: signals
  register: drain
  until: drain is succeeded and drain.drained
  retries: 30
  delay: 2
"""

RETURN = r"""
drained:
  description: Whether nothing waits anywhere.
  returned: success
  type: bool
  sample: false
waiting:
  description: The sum over all stages. One message may wait in several.
  returned: success
  type: int
  sample: 12
stages:
  description:
    - Each stage with what waits there. The gateway's spool also tells for how many channels it is C(recovering), its
      sinks how much they have C(quarantined) and the C(reason) why they are away; queues their C(ready) and
      C(unacknowledged) messages; the feed the C(age) of its oldest in seconds.
    - A consumer's count ends at 1000.
  returned: success
  type: list
  elements: dict
  sample:
    - {stage: "gateway: spool", waiting: 0, drained: true, recovering: 0}
    - {stage: "gateway: database", waiting: 12, drained: false, quarantined: 0, reason: ""}
"""

import contextlib
import json
from typing import Any
from urllib.parse import quote, urlsplit

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.drain import Stage, of_consumer, of_feed, of_gateway, of_queues
from ..module_utils.health import NoAnswer
from ..module_utils.health_drivers import fetch, fetch_json
from ..module_utils.postgresql import Unreachable, connect, connection_argument_spec, server_words

with contextlib.suppress(ImportError):  # connect() says it
    import psycopg

_UNPROCESSED = (
    "SELECT count(*) FROM telegram.get_unprocessed_messages(%s, 1000, NULL, '{received,retrying,reprocess_pending}')"
)


def gateway(asked: dict[str, Any], timeout: float) -> list[Stage]:
    """Spool and sinks, also of a gateway that is not connected to Telegram. Raises NoAnswer."""
    status, body = fetch({**asked, "timeout": timeout}, "/health")
    if status not in (200, 503):
        raise NoAnswer(f"HTTP {status} from the gateway's /health")
    try:
        return of_gateway(json.loads(body), asked["sinks"])
    except ValueError as error:
        raise NoAnswer("no JSON from the gateway's /health") from error


def queues(asked: dict[str, Any], timeout: float) -> list[Stage]:
    """Raises NoAnswer."""
    listed = fetch_json({**asked, "timeout": timeout}, f"/api/queues/{quote(asked['vhost'], safe='')}")
    return of_queues(listed, asked["queues"])


def feed(url: str, timeout: float) -> Stage:
    """Raises NoAnswer."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise NoAnswer(f"feed_url {url} is none: give http://host:port/path")
    where = {"host": parts.hostname, "port": parts.port or 80, "timeout": timeout}
    return of_feed(fetch_json(where, f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}"))


def consumer(module: AnsibleModule) -> Stage:
    """Raises NoAnswer and Unreachable."""
    name = module.params["consumer"]
    with connect(module) as connection:
        try:
            connection.execute("SET default_transaction_read_only = on")
            row = connection.execute(_UNPROCESSED, [name]).fetchone()
        except psycopg.Error as error:
            raise NoAnswer(f"the database does not tell what {name} has to do: {server_words(error)}") from error
    return of_consumer(name, row[0] if row else None)


def gather(module: AnsibleModule) -> list[Stage]:
    """Every stage that is asked for. Raises NoAnswer and Unreachable."""
    params, found = module.params, []
    if params["gateway"] is not None:
        found += gateway(params["gateway"], params["timeout"])
    if params["rabbitmq"] is not None:
        found += queues(params["rabbitmq"], params["timeout"])
    if params["consumer"] is not None:
        found.append(consumer(module))
    if params["feed_url"] is not None:
        found.append(feed(params["feed_url"], params["timeout"]))
    return found


def argument_spec() -> dict[str, Any]:
    """The module's options, as documented above."""
    host = {"type": "str", "default": "127.0.0.1"}
    names = {"type": "list", "elements": "str"}
    return {
        **connection_argument_spec(),
        "gateway": {
            "type": "dict",
            "options": {
                "host": host,
                "port": {"type": "int", "default": 4006},
                "sinks": {**names, "default": []},
            },
        },
        "rabbitmq": {
            "type": "dict",
            "options": {
                "host": host,
                "port": {"type": "int", "default": 15672},
                "user": {"type": "str", "required": True},
                "password": {"type": "str", "required": True, "no_log": True},
                "vhost": {"type": "str", "default": "telegram"},
                "queues": {**names, "required": True},
            },
        },
        "consumer": {"type": "str"},
        "feed_url": {"type": "str"},
        "timeout": {"type": "float", "default": 5},
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec=argument_spec(),
        required_one_of=[("gateway", "rabbitmq", "consumer", "feed_url")],
        supports_check_mode=True,
    )
    try:
        stages = gather(module)
    except NoAnswer as error:
        hint = error.hint or "it has to run and be reachable from this host before anything can be called drained"
        module.fail_json(msg=f"Whether everything is through cannot be told: {error}. Next: {hint}.")
    except Unreachable as error:
        module.fail_json(msg=f"Whether everything is through cannot be told: {error}")
    else:
        waiting = sum(stage["waiting"] for stage in stages)
        module.exit_json(changed=False, drained=waiting == 0, waiting=waiting, stages=stages)


if __name__ == "__main__":
    main()
