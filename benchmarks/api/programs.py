"""The two APIs as programs of their own, each over a server that the benchmark has filled."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.integration.brokers import USER, Cache
from tests.integration.poolers import Pooler
from tests.integration.servers import free_port

from benchmarks.api.load import TOKEN

ROOT = Path(__file__).resolve().parents[2]
PERIOD = 100_000
"""Microseconds, as systemd has it for CPUQuota."""


@dataclass(frozen=True)
class Program:
    """A running API."""

    port: int
    pid: int

    @contextlib.contextmanager
    def limited(self, cores: float) -> Iterator[None]:
        """It gets no more than `cores` meanwhile, as a unit with CPUQuota does."""
        controls = Path("/sys/fs/cgroup")
        if (controls / "cgroup.controllers").exists():
            group, limits = controls / "telegram-benchmark", {"cpu.max": f"{int(cores * PERIOD)} {PERIOD}"}
        else:  # control groups of version 1
            controls /= "cpu"
            group = controls / "telegram-benchmark"
            limits = {"cpu.cfs_period_us": f"{PERIOD}", "cpu.cfs_quota_us": f"{int(cores * PERIOD)}"}
        group.mkdir(exist_ok=True)
        try:
            for name, value in limits.items():
                (group / name).write_text(value)
            (group / "cgroup.procs").write_text(str(self.pid))
            yield
        finally:
            (controls / "cgroup.procs").write_text(str(self.pid))
            group.rmdir()


@contextlib.contextmanager
def ours(folder: Path, pooler: Pooler, cache: Cache) -> Iterator[Program]:
    """Ours behind its pooler and beside its cache, with the settings that the role gives it."""
    port = free_port()
    for name, secret in (("postgres", pooler.password), ("redis", cache.password)):
        (folder / name).write_text(secret)
    (folder / "tokens").write_text(f"benchmark:read:{TOKEN}\n")
    (folder / "api.toml").write_text(
        f'port = {port}\ntokens_file = "{folder}/tokens"\nrate_limit_exempt = ["benchmark"]\n'
        f'[database]\nuser = "telegram_api"\nport = {pooler.port}\npassword_file = "{folder}/postgres"\n'
        f'[cache]\nuser = "{USER}"\npassword_file = "{folder}/redis"\nsentinels = ["127.0.0.1:{cache.sentinel_port}"]\n'
    )
    with _program(folder, port, "telegram_stack.api.main", "--config", str(folder / "api.toml")) as pid:
        yield Program(port, pid)


@contextlib.contextmanager
def legacy(folder: Path, database: str) -> Iterator[Program]:
    """The legacy one over `database`, a connection URL."""
    port = free_port()
    (folder / ".env").write_text(
        f"TELEGRAM_API_ID=1\nTELEGRAM_API_HASH=none\nTELEGRAM_GATEWAY_API_PORT={port}\n"
        f"TELEGRAM_GATEWAY_API_TOKEN={TOKEN}\nTELEGRAM_GATEWAY_DB_URL={database}\n"
    )
    with _program(folder, port, "tests.legacy.api") as pid:
        yield Program(port, pid)


@contextlib.contextmanager
def _program(folder: Path, port: int, module: str, *arguments: str) -> Iterator[int]:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], cwd=folder, stdout=output, stderr=output,
            env={"PYTHONPATH": f"{ROOT / 'services/src'}:{ROOT}"},
        )  # fmt: skip
        try:
            _wait(process, port, log)
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=20)


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise SystemExit(f"the API did not start:\n{log.read_text()}")
