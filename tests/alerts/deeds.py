"""What is done to the host by each fault. It is undone when the context ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from tests.alerts.host import NAME, SPOOL, STATE, Host
from tests.integration.servers import wait_until

Make = Callable[[Host], AbstractContextManager[None]]

QUEUE = "telegram.consumer.signals"
_TARGETS = "/etc/prometheus/telegram-targets"
_REPOSITORY = "/var/backups/telegram-stack/database"


def stopped(*units: str) -> Make:
    """`systemctl stop`, and start again."""

    @contextmanager
    def make(host: Host) -> Iterator[None]:
        host.run(f"systemctl stop {' '.join(units)}")
        yield
        host.run(f"systemctl start {' '.join(reversed(units))}")

    return make


@contextmanager
def telegram_away(host: Host) -> Iterator[None]:
    """Connections are cut, and new ones refused."""
    host.telegram.ask("POST", "/disconnect", {"seconds": 3600})
    yield
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})


@contextmanager
def session_used_twice(host: Host) -> Iterator[None]:
    """A second process connects with the gateway's session from elsewhere: Telegram voids its key."""
    asyncio.run(_use((STATE / f"session-{NAME}").read_text()))
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})
    yield
    session = host.telegram.ask("POST", "/sessions", {})["session"]
    (STATE / f"session-{NAME}").write_text(session)
    take = "/opt/telegram-stack/current/bin/telegram-gateway import-session --replace"
    host.run(f"{take} --config /etc/telegram-stack/gateway.toml", session)


async def _use(session: str) -> None:
    from telethon import TelegramClient, errors  # noqa: PLC0415  # only here
    from telethon.sessions import StringSession  # noqa: PLC0415

    client = TelegramClient(StringSession(session), 1, "0" * 32, receive_updates=False)
    try:
        with suppress(errors.RPCError):
            await client.connect()
    finally:
        await client.disconnect()


@contextmanager
def channel_private(host: Host) -> Iterator[None]:
    """The account loses a channel in which something has been missed."""
    channel = host.telegram.ask("GET", "/channels")["channels"][0]["id"]
    host.telegram.ask("POST", "/faults", {"skip": 20, "private": [channel]})
    host.telegram.ask("POST", "/messages", {"channel_id": channel, "count": 20})
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})
    yield
    host.telegram.ask("POST", "/faults", {"skip": 0, "private": []})
    host.run("systemctl restart telegram-gateway")  # it tries such a channel each 5 minutes


@contextmanager
def flood_wait(host: Host) -> Iterator[None]:
    """Telegram asks for a pause of ten minutes when the list of chats is asked for."""
    host.telegram.ask("POST", "/faults", {"floods": {"getDialogs": 600}})
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})
    yield
    host.telegram.ask("POST", "/faults", {"floods": {"getDialogs": 0}})
    host.run("systemctl restart telegram-gateway")  # it would keep to the pause


@contextmanager
def clock_drifts(host: Host) -> Iterator[None]:
    """Telegram's clock goes 10 s ahead; whoever connects anew sees it."""
    host.telegram.ask("POST", "/faults", {"drift": 10.0})
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})
    yield
    host.telegram.ask("POST", "/faults", {"drift": 0.0})
    host.telegram.ask("POST", "/disconnect", {"seconds": 0})


@contextmanager
def spool_disk_full(host: Host) -> Iterator[None]:
    """Somebody's file grows into whatever room there is, and what comes does not fit into what the spool has."""
    grow = f"while sleep 0.2; do dd if=/dev/zero of={SPOOL}/filler bs=64k oflag=append conv=notrunc 2>/dev/null; done"
    host.run(f"systemd-run -q --unit=filler bash -c '{grow}'")
    wait_until(lambda: int(host.run(f"stat -f -c %a {SPOOL}")) < 512, 60)  # of 1 KiB
    host.post(6000)
    yield
    host.run(f"systemctl stop filler; rm {SPOOL}/filler")


def constraint(check: str) -> Make:
    """A constraint that somebody adds to the messages refuses the new ones."""

    @contextmanager
    def make(host: Host) -> Iterator[None]:
        host.sql(f"ALTER TABLE telegram.messages ADD CONSTRAINT mistake CHECK ({check}) NOT VALID")
        for _ in range(3):
            host.telegram.ask("POST", "/messages", {"text": "refused by mistake"})
        yield
        host.sql("ALTER TABLE telegram.messages DROP CONSTRAINT mistake")

    return make


@contextmanager
def tables_locked(host: Host) -> Iterator[None]:
    """A client locks messages and marks and does not commit."""
    lock = "BEGIN; LOCK TABLE telegram.messages, telegram.processing; SELECT pg_sleep(3600)"
    host.run("cat >/tmp/lock.sql; chmod a+r /tmp/lock.sql", lock)
    psql = "psql -X -p 5434 -d telegram_gateway -f /tmp/lock.sql"
    host.run(f"systemd-run -q --unit=locker -p User=postgres env PGAPPNAME=locker {psql}")
    yield
    host.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'locker'")
    # It ends by itself with its connection, and is failed then or gone.
    host.run("systemctl stop locker 2>/dev/null || true; systemctl reset-failed locker 2>/dev/null || true")


@contextmanager
def slow_writes(host: Host) -> Iterator[None]:
    """A trigger that somebody adds to the messages takes its time."""
    host.sql("""
        CREATE FUNCTION telegram.dawdle() RETURNS trigger LANGUAGE plpgsql AS
        'BEGIN PERFORM pg_sleep(0.4); RETURN NULL; END';
        CREATE TRIGGER dawdle AFTER INSERT ON telegram.messages FOR EACH STATEMENT EXECUTE FUNCTION telegram.dawdle()
    """)
    yield
    host.sql("DROP FUNCTION telegram.dawdle CASCADE")


@contextmanager
def worker_locked_out(host: Host) -> Iterator[None]:
    """The worker's user may not log in any more, and its connections are ended."""
    host.sql("ALTER ROLE telegram_worker NOLOGIN")
    host.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'telegram_worker'")
    yield
    host.sql("ALTER ROLE telegram_worker LOGIN")


def connections(count: int, pooled: bool) -> Make:
    """So many clients connect and keep a transaction open: past PgBouncer, or through it."""
    if pooled:  # as the exporter's user, whose password is read where it lies
        words = '"host=127.0.0.1 port=6434 dbname=telegram_gateway user=telegram_exporter password=" + secret'
    else:
        words = '"host=/run/postgresql port=5434 dbname=telegram_gateway"'
    program = f"""
import psycopg, sys, threading, time
secret = sys.stdin.readline().strip()
kept = []
def begin():
    one = psycopg.connect({words})
    kept.append(one)
    one.execute("SELECT 1")
for _ in range({count}):
    threading.Thread(target=begin, daemon=True).start()
    time.sleep(0.02)
time.sleep(3600)
"""

    @contextmanager
    def make(host: Host) -> Iterator[None]:
        host.run("cat >/root/clients.py; install -m 644 /root/clients.py /tmp/clients.py", program)
        user = "root" if pooled else "postgres"
        secret = "/etc/telegram-stack/credentials/monitoring/postgres_exporter"
        given = f"-p StandardInput=file:{secret}" if pooled else ""
        host.run(f"systemd-run -q --unit=clients -p User={user} {given} python3 /tmp/clients.py")
        yield
        host.run("systemctl stop clients")

    return make


@contextmanager
def repository_away(host: Host) -> Iterator[None]:
    """The repository of the database is gone: its log cannot be archived, and the next backup fails."""
    host.run(f"mv {_REPOSITORY} {_REPOSITORY}.away; touch {_REPOSITORY}")
    host.sql("SELECT pg_switch_wal()")
    host.run("systemctl start --no-block telegram-backup")
    yield
    host.run(f"rm {_REPOSITORY}; mv {_REPOSITORY}.away {_REPOSITORY}")
    host.run("systemctl start telegram-backup")


@contextmanager
def memory_eaten(host: Host) -> Iterator[None]:
    """A unit that may have 100 MiB takes most of it."""
    host.run("cat >/root/hog.py", "import time; taken = bytearray(82 << 20); time.sleep(3600)")
    host.run("systemd-run -q --unit=hog -p MemoryMax=100M python3 /root/hog.py")
    yield
    host.run("systemctl stop hog")


@contextmanager
def replica_refused(host: Host) -> Iterator[None]:
    """The replica has another password than its primary, and its connection is cut."""
    login = "/etc/redis/telegram-replica-login.conf"
    host.run(f"cp -p {login} /root/login; sed -i 's/^masterauth .*/masterauth wrong/' {login}")
    host.run("systemctl restart telegram-redis-replica")
    yield
    host.run(f"cp -p /root/login {login}; systemctl restart telegram-redis-replica")


@contextmanager
def cache_flooded(host: Host) -> Iterator[None]:
    """Somebody writes far more into Redis than it may keep."""
    program = """
import json, os, redis, time
secret = open("/etc/telegram-stack/credentials/telegram-gateway/redis-password").read().strip()
client = redis.Redis(port=6379, username="telegram_gateway", password=secret)
while True:
    pipe = client.pipeline(transaction=False)
    for _ in range(200):
        pipe.set("telegram:msg:0:" + os.urandom(6).hex(), b"x" * 10000, ex=600)
    pipe.execute(raise_on_error=False)
    time.sleep(0.1)
"""
    host.run("cat >/root/flood.py", program)
    host.run("systemd-run -q --unit=flood /opt/telegram-stack/current/bin/python /root/flood.py")
    yield
    host.run("systemctl stop flood")


def worker_stopped(count: int) -> Make:
    """The worker is stopped and so many messages are posted at once; they are old before it comes back."""

    @contextmanager
    def make(host: Host) -> Iterator[None]:
        host.run("systemctl stop telegram-signal-worker")
        since = host.sql("SELECT clock_timestamp()")
        host.post(count)
        yield
        old = f"received_at BETWEEN '{since}' AND now() - interval '40 s'"
        # Numbers and the server's own time.
        late = f"SELECT count(*) > {count / 2:.0f} FROM telegram.messages WHERE {old}"  # noqa: S608
        wait_until(lambda: host.sql(late) == "t", 120)
        host.run("systemctl start telegram-signal-worker")

    return make


@contextmanager
def queue_deleted(host: Host) -> Iterator[None]:
    """Somebody deletes the queue of the consumer, which is stopped."""
    host.run(f"systemctl stop telegram-signal-worker; rabbitmqctl -q -p telegram delete_queue {QUEUE}")
    yield
    host.run("systemctl start telegram-signal-worker")
    wait_until(lambda: QUEUE in host.run("rabbitmqctl -q -p telegram list_queues name"), 60)
    host.run("rabbitmqctl -q -p telegram purge_queue telegram.unroutable")


@contextmanager
def poison(host: Host) -> Iterator[None]:
    """150 messages that are none come into the queue."""
    program = """
import pika
user, password = "telegram_gateway", open("/etc/telegram-stack/credentials/telegram-gateway/rabbitmq-password").read()
where = pika.ConnectionParameters("127.0.0.1", 5672, "telegram", pika.PlainCredentials(user, password.strip()))
channel = pika.BlockingConnection(where).channel()
for _ in range(150):
    channel.basic_publish("telegram.messages", "telegram.channel.-1001", b"no event")
"""
    host.run("/opt/telegram-stack/current/bin/python -", program)
    yield
    host.run("rabbitmqctl -q -p telegram purge_queue telegram.messages.dlq")


def targets_file(job: str, content: str) -> Make:
    """The file with the targets of a job says something else."""

    @contextmanager
    def make(host: Host) -> Iterator[None]:
        host.run(f"cp -p {_TARGETS}/{job}.yml /root/{job}.yml; cat >{_TARGETS}/{job}.yml", content)
        yield
        host.run(f"cp -p /root/{job}.yml {_TARGETS}/{job}.yml")

    return make


@contextmanager
def alertmanager_away(host: Host) -> Iterator[None]:
    """Alertmanager is stopped until Prometheus says that its alerts are dropped; only then can anybody be told."""
    host.run("systemctl stop prometheus-alertmanager")
    fires = 'ALERTS{alertname="AlertsNotDelivered", alertstate="firing"}'
    wait_until(lambda: host.query(fires), 300)
    host.run("systemctl start prometheus-alertmanager")
    yield
