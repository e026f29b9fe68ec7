"""Real RabbitMQ and Redis with Sentinel for the tests of the services, where the programs are installed."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pika
import redis
from tests.integration.servers import free_port

_RABBITMQ = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER = "telegram_gateway"
VHOST = "telegram"


def rabbitmq_installed() -> bool:
    """Whether a broker can be started here."""
    return _RABBITMQ.exists() and shutil.which("epmd") is not None


def redis_installed() -> bool:
    """Whether Redis and Sentinel can be started here."""
    return shutil.which("redis-server") is not None and shutil.which("redis-sentinel") is not None


@dataclass
class Broker:
    """A RabbitMQ with the virtual host and the user of the stack."""

    port: int
    password: str
    start: Callable[[], None]
    stop: Callable[[], None]
    metrics_port: int = 0
    management_port: int = 0
    running: list[subprocess.Popen[bytes]] = field(default_factory=list, repr=False)
    """The broker's process, if it runs."""

    def channel(self) -> Any:
        """A blocking channel; closing its connection is the caller's."""
        parameters = pika.ConnectionParameters(
            "127.0.0.1", self.port, VHOST, pika.PlainCredentials(USER, self.password), socket_timeout=5
        )
        return pika.BlockingConnection(parameters).channel()


@contextlib.contextmanager
def rabbitmq(folder: Path, *, metrics: bool = False, management: bool = False) -> Iterator[Broker]:
    """A broker in `folder`, with a port mapper of its own; to serve `metrics` or `management` takes it longer."""
    password, port, mapper, distribution = secrets.token_hex(8), free_port(), free_port(), free_port()
    metrics_port, management_port = free_port(), free_port()
    right = {"user": USER, "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"}
    definitions = {
        "users": [{"name": USER, "password": password, "tags": "monitoring" if management else ""}],
        "vhosts": [{"name": VHOST}],
        "permissions": [right],
    }
    (folder / "definitions.json").write_text(json.dumps(definitions))
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\nload_definitions = {folder / 'definitions.json'}\n"
        "log.console = true\nlog.file = false\n"
        + (f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {metrics_port}\n" if metrics else "")
        + (
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {management_port}\n"
            "collect_statistics_interval = 500\n"
            if management
            else ""
        )
    )
    plugins = ["rabbitmq_prometheus"] * metrics + ["rabbitmq_management"] * management
    (folder / "enabled_plugins").write_text(f"[{','.join(plugins)}].")
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_NODENAME": f"test{port}@localhost",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "log"),
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
    }
    running: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        with (folder / "console.log").open("ab") as log:
            running.append(subprocess.Popen([_RABBITMQ], env=environment, stdout=log, stderr=log, cwd=folder))
        _wait(connect, (pika.exceptions.AMQPError, OSError), running[-1], 60)

    def connect() -> None:
        broker.channel().connection.close()

    def stop() -> None:
        process = running.pop()
        process.terminate()
        process.wait(timeout=60)

    broker = Broker(port, password, start, stop, metrics_port, management_port, running)
    port_mapper = subprocess.Popen(["epmd", "-port", str(mapper), "-address", "127.0.0.1"], env=environment)
    try:
        start()
        yield broker
    finally:
        while running:
            stop()
        port_mapper.terminate()
        port_mapper.wait(timeout=10)


@dataclass
class Cache:
    """A Redis primary that one sentinel watches."""

    port: int
    sentinel_port: int
    password: str
    start: Callable[[], None]
    stop: Callable[[], None]

    def client(self) -> redis.Redis:
        """A client of the primary that gives text."""
        return redis.Redis(port=self.port, username=USER, password=self.password, decode_responses=True)


@contextlib.contextmanager
def redis_with_sentinel(folder: Path) -> Iterator[Cache]:
    """A primary and its sentinel in `folder`."""
    password, port, sentinel_port = secrets.token_hex(8), free_port(), free_port()
    (folder / "redis.conf").write_text(
        f'bind 127.0.0.1\nport {port}\ndir {folder}\nsave ""\n'
        f"user default off\nuser {USER} on >{password} ~telegram:* ~api:* resetchannels +@all\n"
        f"user sentinel on >{password} allchannels +@all\n"
    )
    (folder / "sentinel.conf").write_text(
        f"bind 127.0.0.1\nport {sentinel_port}\ndir {folder}\n"
        f"sentinel monitor telegram 127.0.0.1 {port} 1\n"
        f"sentinel auth-user telegram sentinel\nsentinel auth-pass telegram {password}\n"
    )
    running: list[subprocess.Popen[bytes]] = []
    log = (folder / "redis.log").open("ab")

    def start() -> None:
        running.append(subprocess.Popen(["redis-server", folder / "redis.conf"], stdout=log, stderr=log))
        _wait(lambda: cache.client().ping(), (redis.RedisError, OSError), running[-1], 10)

    def stop() -> None:
        process = running.pop()
        process.terminate()
        process.wait(timeout=10)

    cache = Cache(port, sentinel_port, password, start, stop)
    try:
        start()
        asked = redis.Redis(port=sentinel_port)
        sentinel = subprocess.Popen(["redis-sentinel", folder / "sentinel.conf"], stdout=log, stderr=log)
        try:
            _wait(asked.ping, (redis.RedisError, OSError), sentinel, 10)
            yield cache
        finally:
            asked.close()
            sentinel.terminate()
            sentinel.wait(timeout=10)
    finally:
        while running:
            stop()
        log.close()


def _wait(
    attempt: Callable[[], object],
    expected: tuple[type[Exception], ...],
    process: subprocess.Popen[bytes],
    seconds: float,
) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            attempt()
        except expected:
            assert process.poll() is None, f"{process.args!r} did not start"
            assert time.monotonic() < deadline, f"{process.args!r} does not serve"
            time.sleep(0.2)
        else:
            return
