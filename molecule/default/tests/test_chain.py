"""Messages go through the whole chain once and only once, also while services restart."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from probe import run_python, sql, telegram, unit_of, wait_until
from testinfra.host import Host

MESSAGES = 1000
SERVICES = [
    "telegram-gateway",
    "telegram-signal-worker",
    "telegram-gateway-api",
    "pgbouncer",
    "postgresql",
    "rabbitmq-server",
    "telegram-redis-primary",
    "telegram-redis-replica",
    "telegram-redis-sentinel",
    "prometheus",
]

# A queue of the test's own that keeps a copy of everything published; its user lives as long as the test.
WATCH = """
import base64, hashlib, json, os, secrets, subprocess, tempfile, pika
password = secrets.token_urlsafe(24)
salt = os.urandom(4)
hashed = base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
def ctl(*arguments):
    subprocess.run(["rabbitmqctl", "-q", *arguments], stdin=subprocess.DEVNULL, check=True, capture_output=True)
user = {"name": "probe", "password_hash": hashed, "hashing_algorithm": "rabbit_password_hashing_sha256", "tags": []}
rights = {"user": "probe", "vhost": "telegram", "configure": "probe.*", "write": "probe.*", "read": ".*"}
with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
    json.dump({"users": [user], "permissions": [rights]}, file)
    file.flush()
    os.chmod(file.name, 0o644)
    ctl("import_definitions", file.name)
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


Keys = set[tuple[int, int]]


def shown() -> Keys:
    """The keys of everything that Telegram shows."""
    messages = telegram().ask("GET", "/messages")["messages"]
    return {(message["channel_id"], message["message_id"]) for message in messages}


def post(rate: int | None = None) -> Keys:
    """Post MESSAGES messages at once, or paced at `rate` a second; their keys."""
    before = shown()
    if rate is None:
        telegram().ask("POST", "/messages", {"count": MESSAGES})
    else:
        telegram().ask("POST", "/load", {"rate": rate, "count": MESSAGES})
        wait_until("the load posted", 60, lambda: not telegram().ask("GET", "/load")["running"])
    return shown() - before


def stored(host: Host, keys: Keys) -> Counter[tuple[int, int]]:
    """How often each of `keys` stands in the database."""
    return count(host, "telegram.messages", keys)


def effects(host: Host, keys: Keys) -> Counter[tuple[int, int]]:
    """How often each of `keys` was processed by the worker with success."""
    return count(host, "telegram.processing", keys)


def count(host: Host, table: str, keys: Keys) -> Counter[tuple[int, int]]:
    """How many rows `table` has for each of `keys`."""
    lowest = min(message for _, message in keys)
    rows = sql(host, f"SELECT channel_id, message_id FROM {table} WHERE message_id >= {lowest}")  # noqa: S608  # our own numbers
    found = Counter((int(channel), int(message)) for channel, message in rows)
    return Counter({key: number for key, number in found.items() if key in keys})


def once(keys: Keys) -> Counter[tuple[int, int]]:
    """Each key exactly once."""
    return Counter(dict.fromkeys(keys, 1))


@pytest.mark.requirement("RD-03")
def test_the_fail_over_outlived_the_deployments_since(host: Host) -> None:
    """The scenario failed over before its second deployment, and deployed once more. Here first: restarts follow."""
    monitored = host.check_output("grep -rhE '^sentinel monitor telegram ' /etc/redis /var/lib/telegram-redis")
    assert [line.split()[4] for line in monitored.splitlines()] == ["6380"]


@pytest.mark.requirement("GW-04", "WK-03")
def test_each_message_is_stored_published_and_takes_effect_once(host: Host) -> None:
    run_python(host, WATCH.replace("STEP", BEGIN.strip()))
    keys = post()
    wait_until("every message stored", 60, lambda: stored(host, keys) == once(keys))
    wait_until("every effect", 60, lambda: effects(host, keys) == once(keys))
    published = Counter(tuple(key) for key in run_python(host, WATCH.replace("STEP", END.strip())))
    assert Counter({key: number for key, number in published.items() if key in keys}) == once(keys)


@pytest.mark.requirement("GW-05", "GW-06", "GW-10", "WK-06")
@pytest.mark.parametrize("service", SERVICES)
def test_restarting_a_service_during_the_push_loses_and_doubles_nothing(host: Host, service: str) -> None:
    keys: Keys = set()
    pushing = threading.Thread(target=lambda: keys.update(post(rate=250)))
    pushing.start()
    host.check_output(f"systemctl restart {unit_of(host, service)}")
    pushing.join(timeout=60)
    assert len(keys) == MESSAGES
    wait_until(f"every message stored after a restart of {service}", 90, lambda: stored(host, keys) == once(keys))
    wait_until(f"every effect after a restart of {service}", 90, lambda: effects(host, keys) == once(keys))
