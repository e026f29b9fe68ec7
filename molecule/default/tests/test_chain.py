"""Messages go through the whole chain once and only once, also while services restart."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest
from probe import run_python, sql, telegram, wait_until
from testinfra.host import Host

MESSAGES = 1000
SERVICES = ["telegram-gateway", "telegram-signal-worker", "telegram-gateway-api", "pgbouncer", "rabbitmq-server"]

# A queue of the test's own that keeps a copy of everything published; its user lives as long as the test.
WATCH = """
import json, subprocess, pika, secrets
password = secrets.token_urlsafe(24)
def ctl(*arguments, text=None):
    subprocess.run(["rabbitmqctl", "-q", *arguments], input=text, text=True, check=True, capture_output=True)
ctl("add_user", "probe", text=password + "\\n")
ctl("set_permissions", "-p", "telegram", "probe", "probe.*", "probe.*", ".*")
try:
    parameters = pika.ConnectionParameters("127.0.0.1", 5672, "telegram", pika.PlainCredentials("probe", password))
    channel = pika.BlockingConnection(parameters).channel()
    STEP
finally:
    ctl("delete_user", "probe")
"""
BEGIN = """
    channel.queue_declare("probe.published", durable=True)
    channel.queue_bind("probe.published", "telegram.messages", "telegram.channel.#")
    print("null")
"""
END = """
    seen = []
    while True:
        method, _, body = channel.basic_get("probe.published", auto_ack=True)
        if method is None:
            break
        event = json.loads(body)
        seen.append([event["channel_id"], event["message_id"]])
    channel.queue_delete("probe.published")
    print(json.dumps(seen))
"""


def post(count: int, rate: int | None = None) -> set[tuple[int, int]]:
    """Post `count` messages at once, or at `rate` a second; their keys."""
    body: dict[str, Any] = {"count": count}
    if rate:
        body["rate"] = rate
    sent = telegram().ask("POST", "/messages", body)["messages"]
    return {(message["channel_id"], message["message_id"]) for message in sent}


def stored(host: Host, keys: set[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """How often each of `keys` stands in the database."""
    return count(host, "telegram.messages", keys)


def effects(host: Host, keys: set[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """How often each of `keys` was processed by the worker with success."""
    return count(host, "telegram.processing", keys)


def count(host: Host, table: str, keys: set[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """How many rows `table` has for each of `keys`."""
    lowest = min(message for _, message in keys)
    rows = sql(host, f"SELECT channel_id, message_id FROM {table} WHERE message_id >= {lowest}")  # noqa: S608  # our own numbers
    found = Counter((int(channel), int(message)) for channel, message in rows)
    return Counter({key: number for key, number in found.items() if key in keys})


def once(keys: set[tuple[int, int]]) -> Counter[tuple[int, int]]:
    """Each key exactly once."""
    return Counter(dict.fromkeys(keys, 1))


@pytest.mark.requirement("GW-04", "WK-03")
def test_each_message_is_stored_published_and_takes_effect_once(host: Host) -> None:
    run_python(host, WATCH.replace("STEP", BEGIN.strip()))
    keys = post(MESSAGES)
    wait_until("every message stored", 60, lambda: stored(host, keys) == once(keys))
    wait_until("every effect", 60, lambda: effects(host, keys) == once(keys))
    published = Counter(tuple(key) for key in run_python(host, WATCH.replace("STEP", END.strip())))
    assert Counter({key: number for key, number in published.items() if key in keys}) == once(keys)


@pytest.mark.requirement("GW-05", "GW-06", "GW-10", "WK-06")
@pytest.mark.parametrize("service", SERVICES)
def test_restarting_a_service_during_the_push_loses_and_doubles_nothing(host: Host, service: str) -> None:
    keys: set[tuple[int, int]] = set()
    pushing = threading.Thread(target=lambda: keys.update(post(MESSAGES, rate=250)))
    pushing.start()
    host.check_output(f"systemctl restart {service}")
    pushing.join(timeout=60)
    assert len(keys) == MESSAGES
    wait_until(f"every message stored after a restart of {service}", 90, lambda: stored(host, keys) == once(keys))
    wait_until(f"every effect after a restart of {service}", 90, lambda: effects(host, keys) == once(keys))
