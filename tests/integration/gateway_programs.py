"""Gateway and simulated Telegram as programs, and the servers behind them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.integration.brokers import Broker, Cache, rabbitmq, rabbitmq_installed, redis_installed, redis_with_sentinel
from tests.integration.servers import Postgres, free_port, postgres, postgres_programs

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
