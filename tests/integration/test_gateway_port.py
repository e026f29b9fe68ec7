"""What the gateway's port is asked for, by commands too: the program before a simulated Telegram, without brokers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from cryptography.fernet import Fernet
from tests.integration import gateway_programs as programs
from tests.integration.gateway_programs import Gateway as Program
from tests.integration.gateway_programs import Telegram, supervisor, wait
from tests.integration.servers import Postgres, free_port

from telegram_stack.events import decode

pytestmark = programs.pytestmark
telegram = programs.telegram
database = programs.database
KEY = "a made-up key"
TOKEN = "a-token"


@dataclass
class Gateway(Program):
    """Asks with the token."""

    database: int = 0

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", headers=self.headers, timeout=10)

    def post(self, path: str, body: object) -> httpx.Response:
        return httpx.post(f"http://127.0.0.1:{self.port}{path}", json=body, headers=self.headers, timeout=10)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def connected(self) -> None:
        wait(lambda: self.get("/health").json()["telegram"] == "connected", "it is connected")
        wait(lambda: self.get("/health").json()["recovering"] == 0, "everything is recovered")


@pytest.fixture
def gateway(tmp_path: Path, database: Postgres) -> Iterator[Gateway]:
    """The gateway as a program, without brokers: they are no part of this. The database says what there is already."""
    folder = tmp_path / "gateway"
    (folder / "credentials").mkdir(parents=True)
    (folder / "state").mkdir(mode=0o700)
    secrets = {"session-key": Fernet.generate_key().decode(), "push-key": KEY, "token": TOKEN}
    secrets |= {"api-hash": "0" * 32, "postgres-password": database.password, "redis-password": "0" * 32}
    for name, value in secrets.items():
        (folder / "credentials" / name).write_text(value)
    with database.connect() as connection:
        connection.execute("TRUNCATE telegram.messages, telegram.message_keys, telegram.tombstones")
    found = Gateway(folder, free_port(), database=database.port)
    with supervisor(found):
        try:
            yield found
        finally:
            if found.process is not None:
                found.stop(signal.SIGKILL)


def configure(gateway: Gateway, *addresses: str) -> None:
    (gateway.folder / "gateway.toml").write_text(f"""
port = {gateway.port}
stop_seconds = 1
token_file = "token"
[telegram]
api_id = 1
session_file = "{gateway.folder}/state/session"
[spool]
path = "{gateway.folder}/state/spool.db"
reserve_mb = 1
[database]
user = "telegram_ingest"
port = {gateway.database}
password_file = "postgres-password"
timeout = 1
[queue]
enabled = false
[cache]
sentinels = ["127.0.0.1:9"]
[push]
addresses = {list(addresses)}
""")


@contextmanager
def receiver(answers: dict[int, int], received: list[int]) -> Iterator[str]:
    """Answers 422 to a message as often as `answers` says, then takes it; yields its address."""

    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = decode(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                refused = answers.get(event.message_id, 0)
                answers[event.message_id] = refused - 1
            if refused <= 0:
                received.append(event.message_id)
            self.send_response(422 if refused > 0 else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.requirement("GW-13")
def test_what_an_address_refused_is_replayed_by_command(telegram: Telegram, gateway: Gateway) -> None:
    received: list[int] = []
    with receiver({1: 1, 2: 6}, received) as address:
        configure(gateway, address)
        assert gateway.command("import-session", text=telegram.session()).returncode == 0
        gateway.start()
        gateway.connected()
        telegram.post(15)  # three in each channel
        wait(lambda: received.count(3) == 5, "what is not refused is pushed")
        name = address.replace("http://", "push:")
        health = wait(
            lambda: (h := gateway.get("/health").json())["sinks"][name]["quarantined"] == 6 and h, "it is told"
        )
        assert f"{name} has refused 6 events for good: they are in quarantine" in health["causes"]

        unknown = gateway.post("/push/replay", {"address": "push:nobody"})
        assert (unknown.status_code, f"known: {name}" in unknown.text) == (404, True)
        again = gateway.command("replay-push")
        assert (again.returncode, again.stderr) == (1, "")
        assert again.stdout == f"{name}: 5 delivered, 1 still refused: HTTP 422 Unprocessable Entity\n"
        last = gateway.command("replay-push", "--address", name)
        assert (last.returncode, last.stdout) == (0, f"{name}: 1 delivered\n")
        assert gateway.get("/health").json()["sinks"][name]["quarantined"] == 0
        assert sorted(received) == [1] * 5 + [2] * 5 + [3] * 5
        assert KEY not in (gateway.folder / "gateway.log").read_text()
    gateway.stop()
    stopped = gateway.command("replay-push")
    assert stopped.returncode == 1
    assert "the gateway does not answer" in stopped.stderr


@pytest.mark.requirement("GW-07")
def test_a_backfill_is_asked_for_at_the_port_and_goes_on_after_a_kill(telegram: Telegram, gateway: Gateway) -> None:
    received: list[int] = []
    telegram.post(3000)  # 600 in each of five channels
    with receiver({}, received) as address:
        configure(gateway, address)
        file = gateway.folder / "gateway.toml"
        file.write_text(file.read_text().replace("api_id = 1", "api_id = 1\nhistory_depth = 0"))
        assert gateway.command("import-session", text=telegram.session()).returncode == 0
        gateway.start()
        gateway.connected()
        assert gateway.get("/sync-messages").json()["status"] == "idle"
        assert gateway.post("/sync-messages", {"limit": 0}).status_code == 422
        assert gateway.post("/sync-messages", {"channels": ["here"]}).status_code == 422
        httpx.post(f"{telegram.control}/faults", json={"delay": 0.2}).raise_for_status()
        begun = gateway.post("/sync-messages", {"limit": 550, "concurrency": 1})
        assert (begun.status_code, begun.json()["status"], begun.json()["channelsOpen"]) == (202, "running", 5)
        assert gateway.post("/sync-messages", {}).status_code == 409
        wait(lambda: gateway.get("/sync-messages").json()["messages"] >= 300, "it goes on")
        gateway.stop(signal.SIGKILL)
        gateway.start()
        gateway.connected()
        after = gateway.get("/sync-messages").json()
        assert after["status"] == "running"
        assert after["messages"] >= 300
        httpx.post(f"{telegram.control}/faults", json={"delay": 0}).raise_for_status()
        wait(lambda: gateway.get("/health").json()["sync"]["status"] == "done", "it is done", 60)
        done = gateway.get("/sync-messages").json()
        assert (done["messages"], done["channelsDone"], done["unreadable"]) == (2750, 5, {})
        assert "telegram_sync_channels 0.0" in gateway.get("/metrics").text
        wait(lambda: set(received) == set(range(51, 601)), "the newest are pushed", 60)
        assert len(received) <= 2750 + 256 + 100, "a kill repeats one batch and one page at most"


@pytest.mark.requirement("GW-08")
def test_photos_at_the_port(telegram: Telegram, gateway: Gateway) -> None:
    with receiver({}, []) as address:
        configure(gateway, address)
        assert gateway.command("import-session", text=telegram.session()).returncode == 0
        gateway.start()
        gateway.connected()
        posted = httpx.post(f"{telegram.control}/messages", json={"count": 10, "photo": True}).json()["messages"]
        (channel, number), (_, other) = [
            (m["channel_id"], m["message_id"]) for m in posted if m["channel_id"] == posted[0]["channel_id"]
        ]
        photo = gateway.get(f"/photo/{channel}/{number}")
        assert (photo.status_code, photo.headers["content-type"]) == (200, "image/jpeg")
        assert photo.content.startswith(b"\xff\xd8")
        file = gateway.folder / "state" / "photo_cache" / f"{channel}_{number}.jpg"
        assert file.read_bytes() == photo.content
        httpx.post(f"{telegram.control}/faults", json={"floods": {"getFile": 30}}).raise_for_status()
        refused = gateway.get(f"/photo/{channel}/{other}")
        assert refused.status_code == 503
        assert 25 <= int(refused.headers["retry-after"]) <= 30
        assert gateway.get("/health").json()["floodWaits"]["getFile"] > 0
        assert gateway.get(f"/photo/{channel}/{number}").status_code == 200  # from the cache
        assert gateway.get(f"/photo/{channel}/0").status_code == 404
        assert gateway.get(f"/photo/{channel}/one").status_code == 422
        assert 'telegram_photo_requests_total{result="cached"} 1.0' in gateway.get("/metrics").text
        edit = {"channel_id": channel, "message_id": number, "text": "edited"}
        httpx.post(f"{telegram.control}/edits", json=edit).raise_for_status()
        wait(lambda: not file.exists(), "what was edited is not kept")
