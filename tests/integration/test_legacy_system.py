"""The stand-in for the legacy system: its data, and its programs between a simulated Telegram and their database."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from tests.integration import modules, npm, servers
from tests.integration.modules import success
from tests.integration.servers import ROOT, Postgres, free_port, wait_until
from tests.legacy import consumer, data, ledger, tables, telegram
from tests.legacy.control import Control
from tests.legacy.ledger import Account
from tests.legacy.session import HIGHEST_PORT
from tests.legacy.tables import Shape
from tools.simulator import Simulator

from telegram_stack.telegram.string_session import to_telethon

MESSAGES = 2_400
TOKEN = "legacy-token"

pytestmark = [
    pytest.mark.skipif(servers.postgres_programs() is None, reason="PostgreSQL is not installed"),
    pytest.mark.skipif(bool(npm.missing()), reason=f"{npm.missing()} missing: GramJS cannot write its session"),
]

PROGRAMS = pytest.mark.parametrize("shape", ["B"], indirect=True)
"""One shape will do for the programs: they name no type, and B has both ids in the other."""


@dataclass
class Legacy:
    """What the programs have around them."""

    folder: Path
    server: Postgres
    simulator: Simulator
    counts: dict[str, int]
    gateway_port: int
    api_port: int

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{self.server.password}@127.0.0.1:{self.server.port}/legacy"

    @property
    def options(self) -> dict[str, Any]:
        """Of the modules that copy from here to the stack's database."""
        there = {"login_host": "127.0.0.1", "login_port": self.server.port, "login_password": self.server.password}
        source = {name.replace("login", "source"): value for name, value in there.items()}
        return {**there, **source, "source_user": "postgres", "source_db": "legacy"}

    def connect(self) -> psycopg.Connection[Any]:
        return self.server.connect(database="legacy")

    def one(self, query: str) -> Any:
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchone()

    @contextmanager
    def program(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """One of the three as a process."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", f"tests.legacy.{name}"],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'services' / 'src'}:{ROOT}"},
                stdout=log,
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            assert process.wait(timeout=30) in {0, -signal.SIGTERM}, (self.folder / f"{name}.log").read_text()

    @contextmanager
    def gateway(self) -> Iterator[None]:
        with self.program("gateway"):
            wait_until(lambda: (self.folder / "gateway.log").read_text().count("sync (startup)") > self._syncs)
            yield
        self._syncs += 1

    _syncs = 0

    def health(self) -> int | None:
        try:
            return httpx.get(f"http://127.0.0.1:{self.gateway_port}/health").status_code
        except httpx.TransportError:
            return None

    def sync(self, **headers: str) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.gateway_port}/sync-messages", headers=headers, timeout=30)

    def messages(self, **parameters: Any) -> httpx.Response:
        headers = {"X-API-Key": parameters.pop("token", TOKEN)}
        return httpx.get(f"http://127.0.0.1:{self.api_port}/api/messages", headers=headers, params=parameters)

    def publish(self, count: int) -> None:
        load = {"rate": 200, "count": count, "edit_every": 7, "delete_every": 11}
        self.simulator.ask("POST", "/load", load)
        wait_until(lambda: not self.simulator.ask("GET", "/load")["running"])

    def compare(self, since: float) -> Account:
        control = Control(self.simulator.control)
        return ledger.compare(control, since, legacy=self.url, ours=None, signals=None)


@pytest.fixture(scope="module", params=["A", "B", "C"])
def shape(request: pytest.FixtureRequest) -> Shape:
    shape: Shape = request.param
    return shape


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Simulator, Path]]:
    """A Telegram with a past, and what the legacy system has of it."""
    folder = tmp_path_factory.mktemp("telegram")
    simulator = Simulator(folder / "simulator", "127.0.0.1", low_port())
    options = ["--port", str(simulator.port), "--control-port", str(simulator.port + 1), "--history-rate", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "telegram_stack.simulator.main", "--state", simulator.folder, *options],
        env={**os.environ, "PYTHONPATH": str(ROOT / "services" / "src")},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(simulator))
        command = [sys.executable, "-m", "tests.legacy.telegram", "--control", simulator.control]
        subprocess.run([*command, "--messages", str(MESSAGES), folder], check=True, timeout=120, cwd=ROOT)
        yield simulator, folder
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def legacy(shape: Shape, seeded: tuple[Simulator, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Legacy]:
    simulator, files = seeded
    folder = tmp_path_factory.mktemp(f"legacy-{shape}")
    with servers.postgres(fsync="off") as server:
        with server.connect(database="postgres") as connection:
            connection.execute("CREATE DATABASE legacy")
        system = Legacy(folder, server, simulator, {}, free_port(), free_port())
        with system.connect() as connection:
            system.counts |= data.fill(connection, shape, files / "recent.csv")
            (folder / "data").mkdir()
            data.write_queue(connection, folder / "data" / "failure-queue.jsonl")
        (folder / ".session").mkdir()
        (folder / ".session" / "telegram-gateway.session").write_text((files / "session").read_text())
        (folder / ".env").write_text(
            f"TELEGRAM_API_ID=1\nTELEGRAM_API_HASH=x\nTELEGRAM_GATEWAY_API_TOKEN={TOKEN}\n"
            f"TELEGRAM_GATEWAY_DB_URL={system.url}\nTP_CAPITAL_POLL_SECONDS=0.2\n"
            f"GATEWAY_PORT={system.gateway_port}\nTELEGRAM_GATEWAY_API_PORT={system.api_port}\n"
        )
        yield system


def test_the_session_is_of_gramjs_and_is_no_telethon_session(seeded: tuple[Simulator, Path]) -> None:
    session = (seeded[1] / "session").read_text()
    assert to_telethon(session) != session


def test_the_data_have_every_defect_and_the_migration_copes(legacy: Legacy, seeded: tuple[Simulator, Path]) -> None:
    counts = legacy.counts
    assert counts["messages"] == MESSAGES
    defects = "only_in_failure_queue duplicates deleted resurrected undated older_than_retention contaminated junk"
    assert all(counts[name] > 0 for name in defects.split()), counts
    assert counts["rows"] == counts["stored"] + counts["duplicates"] + counts["junk"]
    said = success(modules.run("message_copy", legacy.options))
    assert {name: said["counts"][name] for name in ("given", "duplicates", "quarantined", "deleted")} == {
        "given": counts["rows"],
        "duplicates": counts["duplicates"],
        "quarantined": counts["junk"],
        "deleted": counts["deleted"],
    }
    assert success(modules.run("message_verify", legacy.options))["differences"] == []
    with (seeded[1] / "recent.csv").open(newline="") as file:
        published = {
            (int(row["channel_id"]), int(row["message_id"])): ledger.Published(row["text"], row["deleted"] == "1")
            for row in csv.DictReader(file)
        }
    with legacy.server.connect() as connection:
        rows = ledger.our_rows(connection, 0.0)
    found = ledger.account(published, rows, Counter())
    assert found.published > MESSAGES / 2
    assert (found.lost, found.different, found.undeleted, found.doubled) == ([], [], [], [])


@PROGRAMS
def test_the_consumer_can_go_on_with_the_new_database(legacy: Legacy) -> None:
    success(modules.run("message_copy", legacy.options))
    with legacy.server.connect() as ours, legacy.connect() as signals:
        waiting = {
            key for key, rows in ledger.our_rows(ours, 0.0).items() if not (rows[0].deleted or rows[0].processed)
        }
        before = ledger.our_rows(ours, 0.0)
        assert sum(iter(lambda: consumer.poll(ours, signals), 0)) == len(waiting) >= 3 * telegram.CHANNELS - 10
        after = ledger.our_rows(ours, 0.0)
    assert {key for key, rows in after.items() if rows != before[key]} == waiting
    assert all(after[key][0].processed for key in waiting)


@PROGRAMS
def test_a_message_goes_from_telegram_to_its_signal_and_to_clients(legacy: Legacy) -> None:
    with legacy.connect() as connection:
        untouched = tables.fingerprints(connection)
    before, since = legacy.one("SELECT count(*) FROM telegram_gateway.messages"), now(legacy)
    with legacy.gateway(), legacy.program("consumer"), legacy.program("api"):
        assert legacy.one("SELECT count(*) FROM telegram_gateway.messages") == before  # Telegram's past is known
        wait_until(lambda: legacy.health() == 200)
        legacy.publish(120)
        wait_until(lambda: legacy.compare(since).clean())
        found = legacy.compare(since)
        assert (found.published, found.processed > 90) == (120, True)
        queue = [json.loads(line) for line in (legacy.folder / "data" / "failure-queue.jsonl").read_text().splitlines()]
        live = ledger.published_since(Control(legacy.simulator.control), since)
        assert live.keys() <= {(int(entry["channelId"]), entry["messageId"]) for entry in queue}
        channel, number = max(key for key, message in live.items() if not message.deleted)
        wait_until(lambda: legacy.messages(limit=1).status_code == 200)
        [shown] = legacy.messages(channelId=channel, limit=1).json()["data"]
        assert (shown["messageId"], shown["status"]) == (str(number), "published")
        assert legacy.messages(token="wrong").status_code == 401
    assert legacy.health() is None
    with legacy.connect() as connection:
        assert tables.fingerprints(connection) == untouched


@PROGRAMS
def test_what_was_missed_is_read_at_the_start_or_when_asked(legacy: Legacy) -> None:
    since = now(legacy)
    legacy.publish(40)
    with legacy.gateway(), legacy.program("consumer"):
        wait_until(lambda: legacy.compare(since).clean())
        with legacy.connect() as connection:
            gone = connection.execute(
                "DELETE FROM telegram_gateway.messages WHERE ctid IN (SELECT ctid FROM telegram_gateway.messages"
                " WHERE metadata -> 'sync' ->> 'reason' = 'startup' AND deleted_at IS NULL LIMIT 1) AND"
                " metadata -> 'sync' ->> 'reason' = 'startup'"
            ).rowcount
        assert legacy.sync().status_code == 401
        assert legacy.sync(**{"X-API-Key": TOKEN}).json()["data"]["inserted"] == gone > 0
        wait_until(lambda: legacy.compare(since).clean())
        legacy.simulator.ask("POST", "/disconnect", {"seconds": 1})
        wait_until(lambda: legacy.health() == 503)
        wait_until(lambda: legacy.health() == 200)


def answers(simulator: Simulator) -> bool:
    try:
        return bool(simulator.ask("GET", "/health"))
    except OSError:
        return False


def low_port() -> int:
    """A free port, and one above it, that GramJS can write."""
    for port in range(21_000, HIGHEST_PORT, 2):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port
    raise AssertionError("no port is free")


def now(legacy: Legacy) -> float:
    """The moment after the last message."""
    messages = Control(legacy.simulator.control).messages()
    return max(float(message["sent_at"]) for message in messages) + 1e-4
