"""The whole chain on this machine: simulated Telegram, gateway, worker, real database, queue and cache.

Every server is a process of its own on a free port, as the integration tests start them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.integration import brokers, programs
from tests.integration.servers import free_port, postgres

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Chain:
    """Where everything answers, and the processes by name."""

    control: str
    gateway: str
    worker: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def cpu_seconds(self) -> dict[str, float]:
        """What each of our processes has used so far."""
        used = {}
        for name, process in self.processes.items():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            used[name] = (int(fields[11]) + int(fields[12])) / _TICKS
        return used

    def memory(self, name: str) -> float:
        """Resident megabytes of a process."""
        pages = int(Path(f"/proc/{self.processes[name].pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def wait(condition: Callable[[], Any], what: str, within: float = 60) -> Any:
    """What `condition` gives once it is true. Raises TimeoutError."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise TimeoutError(f"not within {within:g} s: {what}")


@contextmanager
def chain(folder: Path, channels: int = 20, gateway_settings: str = "") -> Iterator[Chain]:
    """Start everything, end everything. `gateway_settings` are further lines of the gateway's TOML."""
    with ExitStack() as stack:
        database = stack.enter_context(postgres())
        for name in ("rabbitmq", "redis"):
            (folder / name).mkdir()
        broker = stack.enter_context(brokers.rabbitmq(folder / "rabbitmq"))
        cache = stack.enter_context(brokers.redis_with_sentinel(folder / "redis"))
        telegram, control, port, worker = (free_port() for _ in range(4))
        running = Chain(f"http://127.0.0.1:{control}", f"http://127.0.0.1:{port}", f"http://127.0.0.1:{worker}")
        stack.callback(_stop, running)
        programs.prepare(
            folder,
            {
                "postgres-password": database.password,
                "rabbitmq-password": broker.password,
                "redis-password": cache.password,
            },
        )
        _start(
            running, folder, "simulator", "simulator.main",
            "--state", str(folder / "telegram"), "--port", str(telegram), "--control-port", str(control),
            "--channels", str(channels),
        )  # fmt: skip
        (folder / "worker.toml").write_text(
            f'metrics_port = {worker}\nmode = "hybrid"\n[database]\nuser = "telegram_worker"\nport = {database.port}\n'
            f'[queue]\nport = {broker.port}\nvhost = "{brokers.VHOST}"\nuser = "{brokers.USER}"\n'
            f'[cache]\nuser = "{brokers.USER}"\nsentinels = ["127.0.0.1:{cache.sentinel_port}"]\n'
        )
        (folder / "gateway.toml").write_text(
            f'port = {port}\n{gateway_settings}\n[telegram]\napi_id = 1\nsession_file = "{folder}/state/session"\n'
            f'[spool]\npath = "{folder}/state/spool.db"\n'
            f'[database]\nuser = "telegram_ingest"\nport = {database.port}\npassword_file = "postgres-password"\n'
            f'[queue]\nport = {broker.port}\n[cache]\nsentinels = ["127.0.0.1:{cache.sentinel_port}"]\n'
        )
        wait(lambda: httpx.get(f"{running.control}/health").is_success, "the simulator serves")
        _import_session(running, folder)
        _start(running, folder, "gateway", "gateway.main", "--config", str(folder / "gateway.toml"))
        wait(lambda: httpx.get(f"{running.gateway}/health").json()["recovering"] == 0, "the gateway is complete")
        # The first message declares the exchange, which a role does on a host.
        httpx.post(f"{running.control}/messages").raise_for_status()
        wait(lambda: _published(running), "a message is published")
        _start(running, folder, "worker", "worker.main", "--config", str(folder / "worker.toml"))
        wait(lambda: httpx.get(f"{running.worker}/health").is_success, "the worker serves")
        yield running


def _published(running: Chain) -> bool:
    return "telegram_messages_published_total 1.0" in httpx.get(f"{running.gateway}/metrics").text


def _start(running: Chain, folder: Path, name: str, module: str, *arguments: str) -> None:
    with (folder / f"{name}.log").open("wb") as log:
        running.processes[name] = subprocess.Popen(
            [*programs.line(module), *arguments], env=programs.environment(folder), stdout=log, stderr=log
        )


def _import_session(running: Chain, folder: Path) -> None:
    session = httpx.post(f"{running.control}/sessions").json()["session"]
    subprocess.run(
        [*programs.line("gateway.main"), "import-session", "--config", str(folder / "gateway.toml")],
        env=programs.environment(folder), input=session.encode(), check=True, capture_output=True,
    )  # fmt: skip


def _stop(running: Chain) -> None:
    for process in reversed(running.processes.values()):
        process.terminate()
    for process in running.processes.values():
        try:
            process.wait(timeout=35)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
