"""Real servers for the tests of the services.

PostgreSQL is a cluster of its own in a temporary folder, with the schema of ``sql/``; `brokers` has the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[2]
ROLES = (
    "telegram_owner",
    "telegram_ingest",
    "telegram_api",
    "telegram_worker",
    "telegram_exporter",
    "telegram_feed",
    "pgbouncer_lookup",
)
DATABASE = "telegram_gateway"


def _ports() -> Iterator[int]:
    """Those of this process of pytest-xdist, in turn, from one on that another run begins with by chance only."""
    process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first, count = 12_000 + 5_000 * process, 5_000
    begin = secrets.randbelow(count)
    return (first + number % count for number in itertools.count(begin))


_PORTS = _ports()


@dataclass(frozen=True)
class Postgres:
    """A running server; every role has the same made-up password."""

    port: int
    password: str
    host: str = "127.0.0.1"
    control: tuple[str, ...] = ()
    """`pg_ctl` for this cluster."""
    process: subprocess.Popen[bytes] | None = None
    """The server as it was started first."""

    def stop(self) -> None:
        """End it as a shutdown of its host would."""
        subprocess.run([*self.control, "-w", "-m", "fast", "stop"], check=True, capture_output=True, cwd="/")

    def start(self) -> None:
        """Start it again, with the arguments it had."""
        arguments = (Path(self.control[-1]) / "postmaster.opts").read_text().split(None, 1)[1].strip()
        start = [*self.control, "-w", "-l", f"{self.control[-1]}.log", "-o", arguments, "start"]
        subprocess.run(start, check=True, capture_output=True, cwd="/")

    def connect(self, role: str = "postgres", database: str = DATABASE) -> psycopg.Connection[Any]:
        """A connection that commits each statement."""
        return psycopg.connect(
            host=self.host,
            port=self.port,
            dbname=database,
            user=role,
            password=self.password,
            autocommit=True,
        )


def postgres_programs() -> Path | None:
    """Where initdb and postgres are; None where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgres(below: Path | None = None, /, **settings: object) -> Iterator[Postgres]:
    """A cluster of its own with the schema, run with `settings`; stopped and removed afterwards.

    Its folder is made in `below`, which the database's user must be able to enter; without it among temporary ones.
    """
    programs = postgres_programs()
    assert programs is not None
    # PostgreSQL refuses root; the folder is outside of pytest's, which other users cannot enter.
    user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    with tempfile.TemporaryDirectory(prefix="telegram-stack-", dir=below) as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, "postgres")
        data = str(folder / "data")
        control = (*user, str(programs / "pg_ctl"), "-D", data)
        running = Postgres(free_port(), secrets.token_hex(8), control=control)
        password_file = folder / "password"
        password_file.write_text(running.password)
        password_file.chmod(0o644)
        initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "--auth=scram-sha-256", "--no-sync"]
        initdb += ["--encoding=UTF8", "--locale=C.UTF-8", f"--pwfile={password_file}"]
        subprocess.run([*user, *initdb], check=True, capture_output=True, cwd="/")
        settings |= {"port": running.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": folder}
        with (folder / "log").open("wb") as log:
            arguments = [f"--{name}={value}" for name, value in settings.items()]
            server = subprocess.Popen(
                [*user, str(programs / "postgres"), "-D", data, *arguments], stdout=log, stderr=log, cwd="/"
            )
        try:
            _until_serving(running, server)
            create_schema(running)
            yield replace(running, process=server)
        finally:
            subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True, cwd="/")
            server.wait(timeout=30)


def _until_serving(server: Postgres, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "PostgreSQL did not start"
        try:
            with psycopg.connect(
                host="127.0.0.1", port=server.port, dbname="postgres", user="postgres", password=server.password
            ):
                return
        except psycopg.OperationalError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.1)
    raise AssertionError("PostgreSQL does not serve")


def create_schema(server: Postgres, engine: str = "native") -> None:
    """What role and module do on a host, in short: roles, database, then the files in the order of their numbers."""
    with server.connect(database="postgres") as connection:
        for role in ROLES:
            connection.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{server.password}'")
        connection.execute(f"CREATE DATABASE {DATABASE} OWNER telegram_owner")
    with server.connect() as connection:
        if engine != "native":
            connection.execute("CREATE EXTENSION timescaledb")
        connection.execute("CREATE SCHEMA telegram AUTHORIZATION telegram_owner")
        connection.execute(
            "CREATE TABLE telegram.schema_migrations (name text PRIMARY KEY, checksum text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT now(), duration_ms integer)"
        )
        connection.execute("ALTER TABLE telegram.schema_migrations OWNER TO telegram_owner")
        for path in schema_files(engine):
            text = path.read_text()
            role = "postgres" if re.search(r"^-- run-as: login", text, re.MULTILINE) else "telegram_owner"
            connection.execute(f"SET ROLE {role}")
            connection.execute(text)
            connection.execute("RESET ROLE")
            connection.execute("INSERT INTO telegram.schema_migrations VALUES (%s, '')", [path.name])


def schema_files(engine: str) -> list[Path]:
    """The files of ``sql/`` that an engine runs, in their order."""
    return sorted([*ROOT.glob("sql/*.sql"), *ROOT.glob(f"sql/engine/{engine}/*.sql")], key=lambda path: path.name)


def free_port() -> int:
    """A port that was free a moment ago, on every address: some of our servers listen beyond loopback.

    It is none of those that the kernel gives to clients, which would take it while its server is stopped, and none of
    another process of these tests.
    """
    while True:
        port = next(_PORTS)
        with socket.socket() as holder, contextlib.suppress(OSError):  # which never listens
            holder.bind(("", port))
            return port


class Cable:
    """A TCP connection to a server that a test can cut and mend."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._connections: set[asyncio.WriteTransport] = set()
        self._server: asyncio.Server | None = None
        self.port = free_port()

    async def mend(self) -> None:
        """Accept connections (again)."""
        self._server = await asyncio.start_server(self._pipe, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Accept no more and abort what runs."""
        if self._server:
            self._server.close()
        for transport in list(self._connections):
            transport.abort()
        self._server = None

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        transports = {writer.transport, far_writer.transport}
        self._connections |= transports
        try:
            await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
        except OSError:
            pass
        finally:
            for transport in transports:
                transport.abort()
            self._connections -= transports


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError


@contextlib.asynccontextmanager
async def cable(host: str, port: int) -> AsyncIterator[Cable]:
    """A `Cable` that is whole at first."""
    link = Cable(host, port)
    await link.mend()
    try:
        yield link
    finally:
        await link.cut()


def wait_until(condition: Callable[[], Any], within: float = 30.0) -> None:
    """Wait until `condition()` holds; fails when it does not `within` so many seconds."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)


async def until(condition: Any, within: float = 30.0) -> None:
    """Wait until `condition()` holds; fails when it does not `within` so many seconds."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.02)


def whole_lines(file: Path) -> list[bytes]:
    """Lines of a file that another process writes, without the one it has only begun."""
    return file.read_bytes().split(b"\n")[:-1]
