"""Copy and comparison by themselves: the old database under inserts, the new one, and nothing else on the machine."""

from __future__ import annotations

import contextlib
import csv
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration import engines, modules, servers
from tests.integration.servers import Postgres
from tests.legacy import data
from tools import demo_stack

from benchmarks.database.__main__ import role_settings, say
from benchmarks.database.timing import Timings

CALM = 20.0
"""Seconds in which the old database's inserts are measured before anything is copied."""
_CHANNELS, _NEWEST, _RECENT = 40, 7_499, 100
_SECONDS = 60.0
"""That a run of a module lasts, as in the role `migration`."""


def measure() -> list[tuple[str, str, str]]:
    """Rows of the table for 300,000 messages: what, its value, its bar."""
    say("two databases, and nothing else")
    with servers.postgres(shared_buffers="256MB") as old, engines.engine("timescale_apache") as new:
        _configure(new)
        with old.connect(database="postgres") as connection:
            connection.execute("CREATE DATABASE tradingsystem")
        with old.connect(database="tradingsystem") as connection, connection.transaction():
            with tempfile.TemporaryDirectory() as folder:
                data.fill(connection, "A", _recent(Path(folder)))
            connection.execute("CREATE TABLE inserts (at timestamptz DEFAULT now(), text text)")
        with _inserting(old) as inserts:
            time.sleep(CALM)
            calm = len(inserts)
            say("copies and compares")
            copied = _until_complete("message_copy", old, new)
            compared = _until_complete("message_verify", old, new)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    before, busy = (Timings(some).p95_ms for some in (inserts[:calm], inserts[calm:]))
    return [
        ("copy, nothing else on the machine", f"{copied:.1f} s", ""),
        ("comparison, the same", f"{compared:.1f} s", ""),
        ("both, the same", f"{copied + compared:.1f} s", "<= 60 s"),
        ("largest memory of a process of them", f"{memory:.0f} MB", ""),
        ("p95 of the old database's inserts meanwhile", f"{busy:.1f} ms", f"<= {2 * before:.1f} ms"),
    ]


def _configure(new: Postgres) -> None:
    settings = {name: value for name, value in role_settings().items() if name != "shared_preload_libraries"}
    with new.connect() as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
    demo_stack.targets("exec", engines.HOST, "systemctl", "restart", "postgresql@17-main")


def _recent(folder: Path) -> Path:
    """What Telegram has of the newest messages, as `tests.legacy.telegram` tells it."""
    path = folder / "recent.csv"
    now = int(time.time())
    with path.open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["channel_id", "message_id", "sent_at", "text", "photo", "edited", "deleted"])
        for channel in range(_CHANNELS):
            newest = 1009 * channel + _NEWEST
            for number in range(newest - _RECENT + 1, newest + 1):
                sent = now - (newest - number) * 1382 - 100
                text = f"ATIVO: PETR4\nCOMPRA: 2{number % 9},50\nNo {number}"
                rows.writerow([-1_000_000_001_000 - channel, number, sent, text, 0, 0, 0])
    return path


@contextlib.contextmanager
def _inserting(old: Postgres) -> Iterator[list[float]]:
    """Twenty inserts a second, and the seconds that each has taken."""
    took: list[float] = []
    end = threading.Event()

    def work() -> None:
        with old.connect(database="tradingsystem") as connection:
            while not end.wait(0.05):
                begun = time.perf_counter()
                connection.execute("INSERT INTO inserts (text) VALUES (repeat('x', 200))")
                took.append(time.perf_counter() - begun)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield took
    finally:
        end.set()
        thread.join()


def _until_complete(module: str, old: Postgres, new: Postgres) -> float:
    """Run it as the role does, until nothing is left; the seconds."""
    given: dict[str, Any] = {
        "login_host": new.host, "login_port": new.port, "login_password": new.password,
        "source_host": old.host, "source_port": old.port, "source_user": "postgres",
        "source_password": old.password, "source_db": "tradingsystem", "seconds": _SECONDS,
    }  # fmt: skip
    begun = time.perf_counter()
    while not (said := modules.success(modules.run(module, given)))["complete"]:
        if module == "message_verify":
            given["begin"] = said["next_window"]
    return time.perf_counter() - begun
