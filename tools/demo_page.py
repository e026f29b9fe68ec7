"""What the demo shows at its end: what runs, what opens, how to get the passwords, how one message went."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

STAGES = ("received", "spooled", "stored", "published", "cached", "consumed")


def addresses(host: str, secrets: str) -> str:
    """The pages on the host with that address, and the commands that read their passwords from the file `secrets`."""
    api, token = f"http://{host}:4010", f"""awk '/api_token_read:/{{print "X-API-Key: " $2}}' {secrets}"""
    return f"""\
Opens from this machine:
  Console     {api}/
              sign in with the token: awk '/api_token_admin:/{{print $2}}' {secrets}
  Prometheus  https://{host}:9090/ (alerts: /alerts), with a certificate of the stack's own
              user telegram_monitor, password: awk '/monitoring_web:/{{print $2}}' {secrets}
  RabbitMQ    http://{host}:15672/
              user telegram_admin, password: awk '/rabbitmq_admin:/{{print $2}}' {secrets}
  API         {api}/docs
              messages as they come, with the token in a header:
              {token} | curl -sSN -H @- '{api}/api/messages/stream'"""


def path(message: Mapping[str, Any]) -> str:
    """The times of one message, stage by stage (`STAGES`, seconds since 1970), and how long after its receipt."""
    lines = [f"The path of message {message['message']} of channel {message['channel']}:"]
    for stage in STAGES:
        at = message[stage]
        moment = time.strftime("%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1000):03d}"
        lines.append(f"  {stage:<10} {moment} UTC   +{(at - message['received']) * 1000:8.1f} ms")
    return "\n".join(lines)


def last_words() -> str:
    """How to go on."""
    return """\
It goes on until: make demo-stop
Look again: make demo, or .venv/bin/ansible-playbook playbooks/health.yml"""
