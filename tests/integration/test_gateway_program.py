"""The whole program: simulated Telegram in front, real database, queue and cache behind."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.integration import modules
from tests.integration.brokers import Broker, Cache, rabbitmq, rabbitmq_installed, redis_installed, redis_with_sentinel
from tests.integration.servers import Postgres, free_port, postgres, postgres_programs

from telegram_stack import cache_keys, events
from telegram_stack.topology import UNROUTABLE

pytestmark = pytest.mark.skipif(
    postgres_programs() is None or not rabbitmq_installed() or not redis_installed(),
    reason="PostgreSQL, RabbitMQ or Redis is not installed",
)

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "services" / "src"), "PYTHONUNBUFFERED": "1"}


def wait(condition: Callable[[], Any], what: str, within: float = 30) -> Any:
    deadline = time.monotonic() + within
    while True:
        try:
            found = condition()
        except httpx.TransportError:
            found = None
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Telegram:
    """The simulator as a program."""

    control: str

    def post(self, count: int) -> set[tuple[int, int]]:
        answer = httpx.post(f"{self.control}/messages", json={"count": count}, timeout=10).json()
        return {(message["channel_id"], message["message_id"]) for message in answer["messages"]}

    def session(self, phone: str | None = None) -> str:
        body = {} if phone is None else {"phone": phone}
        session: str = httpx.post(f"{self.control}/sessions", json=body).json()["session"]
        return session


@dataclass
class Gateway:
    """The gateway as a program, with its configuration."""

    folder: Path
    port: int
    notifications: list[str] = field(default_factory=list)
    process: subprocess.Popen[str] | None = None

    def command(self, *arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._line(*arguments), env=self._environment(), input=text, capture_output=True, text=True, check=False
        )

    def start(self) -> None:
        with (self.folder / "gateway.log").open("a") as log:
            self.process = subprocess.Popen(self._line(), env=self._environment(), stdout=log, stderr=log, text=True)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        process, self.process = self.process, None
        process.send_signal(number)
        return process.wait(timeout=35)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=5)

    def healthy(self) -> None:
        wait(lambda: self.get("/health").status_code == 200, "the gateway serves")
        wait(lambda: self.get("/health").json()["recovering"] == 0, "everything is recovered")

    def _line(self, *arguments: str) -> list[str]:
        main = "import sys; from telegram_stack.gateway.main import main; sys.exit(main())"
        return [sys.executable, "-c", main, "--config", str(self.folder / "gateway.toml"), *arguments]

    def _environment(self) -> dict[str, str]:
        return {
            **ENVIRONMENT,
            "CREDENTIALS_DIRECTORY": str(self.folder / "credentials"),
            "NOTIFY_SOCKET": str(self.folder / "notify"),
            "WATCHDOG_USEC": "400000",
        }


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    with rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as running:
        yield running


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    with redis_with_sentinel(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def telegram(tmp_path: Path) -> Iterator[Telegram]:
    port, control = free_port(), free_port()
    main = "import sys; from telegram_stack.simulator.main import main; sys.exit(main())"
    arguments = ["--state", str(tmp_path / "telegram"), "--port", str(port), "--control-port", str(control)]
    with (tmp_path / "telegram.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", main, *arguments, "--channels", "5"], env=ENVIRONMENT, stdout=log, stderr=log
        )
    try:
        running = Telegram(f"http://127.0.0.1:{control}")
        wait(lambda: httpx.get(f"{running.control}/health").status_code == 200, "the simulator serves")
        yield running
    finally:
        process.terminate()
        process.wait(timeout=15)


@contextmanager
def supervisor(gateway: Gateway) -> Iterator[None]:
    """Listens as systemd does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(gateway.folder / "notify"))

        def listen() -> None:
            while (message := listener.recv(1000).decode()) != "END":
                gateway.notifications.append(message)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.sendto(b"END", str(gateway.folder / "notify"))
            thread.join()


@pytest.fixture
def gateway(tmp_path: Path, database: Postgres, broker: Broker, cache: Cache) -> Iterator[Gateway]:
    folder = tmp_path / "gateway"
    (folder / "credentials").mkdir(parents=True)
    (folder / "state").mkdir(mode=0o700)
    secrets = {
        "session-key": Fernet.generate_key().decode(),
        "api-hash": "0" * 32,
        "postgres-password": database.password,
        "rabbitmq-password": broker.password,
        "redis-password": cache.password,
    }
    for name, value in secrets.items():
        (folder / "credentials" / name).write_text(value)
    running = Gateway(folder, free_port())
    (folder / "gateway.toml").write_text(f"""
port = {running.port}
stop_seconds = 10
[telegram]
api_id = 1
session_file = "{folder}/state/session"
[spool]
path = "{folder}/state/spool.db"
[database]
user = "telegram_ingest"
port = {database.port}
password_file = "postgres-password"
timeout = 1
[queue]
port = {broker.port}
[cache]
sentinels = ["127.0.0.1:{cache.sentinel_port}"]
""")
    with supervisor(running):
        try:
            yield running
        finally:
            if running.process is not None:
                running.stop(signal.SIGKILL)
            with database.connect() as connection:
                connection.execute(
                    "TRUNCATE telegram.messages, telegram.message_keys, telegram.channels, telegram.tombstones"
                )
            published(broker)


def stored(database: Postgres) -> Counter[tuple[int, int]]:
    with database.connect() as connection:
        return Counter(connection.execute("SELECT channel_id, message_id FROM telegram.messages").fetchall())


def published(broker: Broker) -> Counter[tuple[int, int]]:
    channel = broker.channel()
    found: Counter[tuple[int, int]] = Counter()
    while True:
        method, _, body = channel.basic_get(UNROUTABLE, auto_ack=True)
        if method is None:
            break
        found[events.decode(body).key] += 1
    channel.connection.close()
    return found


@pytest.mark.requirement("GW-04")
@pytest.mark.requirement("GW-09")
@pytest.mark.requirement("GW-10")
def test_a_thousand_messages_through_a_restart_and_a_kill(
    telegram: Telegram, gateway: Gateway, database: Postgres, broker: Broker, cache: Cache
) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    gateway.start()
    gateway.healthy()
    assert "READY=1" in gateway.notifications
    sent: set[tuple[int, int]] = set()
    for number in range(100):
        sent |= telegram.post(10)
        if number == 30:
            assert gateway.stop() == 0
            assert "STOPPING=1" in gateway.notifications
            gateway.start()
        if number == 60:
            gateway.stop(signal.SIGKILL)
            gateway.start()
        time.sleep(0.03)
    gateway.healthy()
    wait(lambda: len(stored(database)) >= 1000, "everything is stored")
    wait(lambda: gateway.get("/health").json()["sinks"]["queue"]["lag"] == 0, "everything is published")
    wait(lambda: gateway.get("/health").json()["sinks"]["cache"]["lag"] == 0, "everything is cached")
    assert stored(database) == Counter(sent)
    found = published(broker)
    assert set(found) == sent
    assert sum(found.values()) <= 1000 + 256, "a kill repeats one batch at most"
    with cache.client() as client:
        assert all(client.exists(cache_keys.message(*key)) for key in sent)
    assert "WATCHDOG=1" in gateway.notifications

    path = gateway.get("/trace/{}/{}".format(*max(sent))).json()
    assert path["received"] <= path["spooled"] <= min(path["stored"], path["published"], path["cached"])

    metrics = gateway.get("/metrics").text
    assert "telegram_connection_status 1.0" in metrics
    assert 'telegram_sink_lag_events{sink="database"} 0.0' in metrics
    assert "telegram_messages_received_total{channel_id=" in metrics
    assert gateway.stop() == 0


TO_DO = {"consumer: nobody"}


def drained(
    gateway: Gateway, database: Postgres, *, sinks: Sequence[str] = (), consumer: str | None = "nobody"
) -> dict[str, Any]:
    """What `queue_drain_info` says; the consumer has not begun."""
    login = {"login_host": "127.0.0.1", "login_port": database.port, "login_password": database.password}
    asked = {"gateway": {"port": gateway.port, "sinks": list(sinks)}, "consumer": consumer}
    return modules.success(modules.run("queue_drain_info", {**login, **asked}))


@pytest.mark.requirement("GW-05")
def test_a_stopped_cache_degrades_and_blocks_nobody(
    telegram: Telegram, gateway: Gateway, database: Postgres, broker: Broker, cache: Cache
) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    gateway.start()
    gateway.healthy()
    cache.stop()
    try:
        sent = telegram.post(50)
        wait(lambda: set(stored(database)) == sent, "everything is stored")
        wait(lambda: gateway.get("/health").json()["sinks"]["queue"]["lag"] == 0, "everything is published")
        health = wait(lambda: (h := gateway.get("/health").json())["status"] == "degraded" and h, "the cache is missed")
        assert gateway.get("/health").status_code == 200
        assert any(cause.startswith("cache is unavailable") for cause in health["causes"])
        found = drained(gateway, database)
        assert {stage["stage"] for stage in found["stages"] if not stage["drained"]} == {"gateway: cache"} | TO_DO
        assert (found["drained"], found["waiting"]) == (False, 100)
        assert drained(gateway, database, sinks=["database"], consumer=None)["drained"]
    finally:
        cache.start()
    wait(lambda: gateway.get("/health").json()["status"] == "healthy", "the cache is back", 60)
    wait(lambda: drained(gateway, database, consumer=None)["drained"], "everything is through")
    with cache.client() as client:
        assert all(client.exists(cache_keys.message(*key)) for key in sent)


@pytest.mark.requirement("GW-02")
def test_a_missing_session_is_a_state_and_an_import_ends_it(telegram: Telegram, gateway: Gateway) -> None:
    gateway.start()
    health = wait(lambda: gateway.get("/health"), "the gateway answers")
    assert health.status_code == 503
    assert health.json()["status"] == "unauthenticated"
    assert "import-session" in health.json()["causes"][0]

    refused = gateway.command("import-session", text="no session at all")
    assert refused.returncode == 1
    assert refused.stderr == "this is no string session of Telethon or GramJS: export one with client.session.save()\n"
    session = telegram.session()
    assert gateway.command("import-session", text=session).returncode == 0
    file = gateway.folder / "state" / "session"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert session.encode() not in file.read_bytes()
    again = gateway.command("import-session", text=session)
    assert again.returncode == 1
    assert "--replace" in again.stderr
    gateway.healthy()

    assert session not in (gateway.folder / "gateway.log").read_text()


@pytest.mark.requirement("GW-03")
@pytest.mark.requirement("GW-16")
def test_a_log_in_through_the_port(telegram: Telegram, gateway: Gateway) -> None:
    address = httpx.get(f"{telegram.control}/health").json()["address"].split(":")
    key = httpx.get(f"{telegram.control}/public-key").text
    file = gateway.folder / "gateway.toml"
    file.write_text(
        'token_file = "token"\n'
        + file.read_text().replace(
            "api_id = 1",
            f'api_id = 1\nserver_address = "{address[0]}"\nserver_port = {address[1]}\nserver_dc_id = 2\n'
            f'server_public_key = """{key}"""',
        )
    )
    (gateway.folder / "credentials" / "token").write_text("a-token")
    gateway.start()
    wait(lambda: gateway.get("/health"), "the gateway answers")
    assert gateway.get("/login").status_code == 401
    with httpx.Client(
        base_url=f"http://127.0.0.1:{gateway.port}", headers={"Authorization": "Bearer a-token"}, timeout=5
    ) as client:
        assert client.get("/login").json()["status"] == "idle"
        assert client.post("/login/input", json={"value": "1"}).status_code == 409
        assert client.post("/login", content=b'{"phone": 55119').status_code == 422
        assert client.post("/login", json={"phone": "+55", "botToken": "1:a"}).status_code == 422
        assert client.post("/login", json={"phone": "+5511999990077"}).status_code == 202
        wait(lambda: client.get("/login").json()["status"] == "waiting_code", "a code was sent")
        code = httpx.get(f"{telegram.control}/codes/5511999990077").json()["code"]
        assert client.post("/login/input", json={"value": code}).json()["status"] == "processing_code"
        wait(lambda: client.get("/login").json()["status"] == "completed", "it is logged in")
    gateway.healthy()
    told = (gateway.folder / "gateway.log").read_text()
    assert code not in told
    assert "5511999990077" not in told


@pytest.mark.requirement("GW-02")
def test_wrong_permissions_are_refused_with_the_command_that_mends_them(telegram: Telegram, gateway: Gateway) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    file = gateway.folder / "state" / "session"
    file.chmod(0o644)
    gateway.start()
    cause = wait(lambda: gateway.get("/health").json()["causes"], "the gateway answers")[0]
    assert f"chmod 0600 {file}" in cause
    file.chmod(0o600)
    gateway.healthy()


def test_a_second_gateway_does_not_touch_the_session(telegram: Telegram, gateway: Gateway) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    gateway.start()
    gateway.healthy()
    assert gateway.process is not None
    second = gateway.command()
    assert second.returncode == 1
    assert f"another gateway (pid {gateway.process.pid}) uses the session" in second.stdout
    assert gateway.get("/health").status_code == 200


@pytest.mark.requirement("GW-01")
def test_every_line_of_the_log_is_json(telegram: Telegram, gateway: Gateway) -> None:
    assert gateway.command("import-session", text=telegram.session()).returncode == 0
    gateway.start()
    gateway.healthy()
    assert gateway.stop() == 0
    lines = [json.loads(line) for line in (gateway.folder / "gateway.log").read_text().splitlines()]
    assert {"ready", "stopped"} <= {line["message"] for line in lines}
    assert {line["service"] for line in lines} == {"telegram-gateway"}
    assert not [line for line in lines if line["level"] in ("warning", "error")]


def test_a_config_is_checked_with_every_problem_at_once(gateway: Gateway) -> None:
    assert gateway.command("--check").returncode == 0
    file = gateway.folder / "gateway.toml"
    file.write_text(file.read_text().replace("api_id = 1", 'api_id = 0\nserver_address = "10.0.0.1"\nchannel = 3'))
    bad = gateway.command("--check")
    assert bad.returncode == 2
    assert "unknown key telegram.channel;" in bad.stderr
    assert "bad value of telegram.api_id" in bad.stderr
