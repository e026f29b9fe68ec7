"""Runs on the host that is measured, with its own Python alone: python3 probe.py SECONDS WORKER_PORT DATABASE

Watches while a load runs and says `measured`. Once the sinks have everything it prints, as JSON, the histograms from
receipt to each stage, the cores that each unit used, the gateway's largest memory and the clients' statements.
It asks for little meanwhile: an answer holds the asked service up, and one message of a hundred is what is looked for.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

STAGES = {"spooled": "spool", "stored": "database", "published": "queue", "cached": "cache"}
GATEWAY = "http://127.0.0.1:4006"
LINE = r'^{}_bucket\{{le="([^"]+)"{}\}} (\S+)$'
RECEIVED = re.compile(r"^telegram_events_received_total\{.*\} (\S+)$", re.MULTILINE)
UNIT = re.compile(r"/([^/\n]+)\.service$", re.MULTILINE)
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
LOOK_SECONDS = 5.0
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure for as long as the first argument says, the sinks' rest included."""
    seconds, worker, database = float(sys.argv[1]), f"http://127.0.0.1:{sys.argv[2]}", sys.argv[3]
    begun, units, before, calls = time.time(), cpu(), histograms(worker), statements(database)
    came = received()
    behind = 0
    while time.time() < begun + seconds:
        time.sleep(min(LOOK_SECONDS, max(0.0, begun + seconds - time.time())))
        behind = max(behind, *lags().values())
    elapsed = time.time() - begun
    used = {name: (value - units.get(name, 0.0)) / elapsed for name, value in cpu().items()}
    told = {"elapsed": elapsed, "cpu": {name: round(value, 4) for name, value in used.items() if value >= 0.001}}
    told |= {"left": lags(), "behind": behind, "megabytes": megabytes(), "received": received() - came}
    print("measured", flush=True)  # the load ends now
    settled = settle(begun + seconds + 120)
    told |= {"settled_seconds": settled - begun - seconds, "statements": statements(database) - calls}
    told["stages"] = {
        name: [[bound, count - earlier] for (bound, count), (_, earlier) in zip(after, before[name], strict=True)]
        for name, after in histograms(worker).items()
    }
    print(json.dumps(told))


def ask(url: str) -> bytes:
    """The body of an answer, also of a gateway that says it is not well: under such a load it may not be.

    It may also drop a connection; one that does so three times is down.
    """
    for attempt in range(3):
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - loopback
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return error.read()
        except OSError as error:
            print(f"{url}: {error}", file=sys.stderr)
            time.sleep(2**attempt)
    sys.exit(f"{url} does not answer")


def lags() -> dict[str, int]:
    """Events that each sink has not got yet."""
    return {name: sink["lag"] for name, sink in json.loads(ask(f"{GATEWAY}/health"))["sinks"].items()}


def settle(deadline: float) -> float:
    """When every sink had everything."""
    while any(lags().values()):
        if time.time() > deadline:
            sys.exit(f"the sinks did not catch up: {lags()} events are left")
        time.sleep(0.1)
    return time.time()


def received() -> int:
    """Live updates that the gateway has taken since it began."""
    return sum(int(float(count)) for count in RECEIVED.findall(ask(f"{GATEWAY}/metrics").decode()))


def histograms(worker: str) -> dict[str, list[tuple[float, float]]]:
    """The latencies to each stage: upper bound in milliseconds, cumulated count."""
    gateway = ask(f"{GATEWAY}/metrics").decode()
    found = {name: buckets(gateway, "telegram_stage_seconds", f',stage="{stage}"') for name, stage in STAGES.items()}
    return found | {"effect": buckets(ask(f"{worker}/metrics").decode(), "telegram_worker_latency_seconds")}


def buckets(text: str, name: str, labels: str = "") -> list[tuple[float, float]]:
    """A histogram among the metrics of `text`."""
    lines = re.findall(LINE.format(name, labels), text, re.MULTILINE)
    return [(float(bound) * 1000, float(count)) for bound, count in lines]


def processes() -> Iterator[tuple[str, Path]]:
    """The unit and the folder in /proc of each process of a service."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if found := UNIT.search((folder / "cgroup").read_text()):
                yield found[1], folder


def cpu() -> dict[str, float]:
    """CPU seconds of the processes of each service that run now."""
    used: dict[str, float] = {}
    for unit, folder in processes():
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            used[unit] = used.get(unit, 0.0) + (int(fields[11]) + int(fields[12])) / TICKS
    return used


def megabytes() -> float:
    """The most memory that the gateway's process had since its start, in MB."""
    for unit, folder in processes():
        if unit == "telegram-gateway" and (found := PEAK.search((folder / "status").read_text())):
            return round(int(found[1]) * 1024 / 1e6, 1)
    sys.exit("telegram-gateway.service has no process: does it run?")


def statements(database: str) -> int:
    """Statements that clients sent to `database` through PgBouncer."""
    console = ["runuser", "-u", "pgbouncer", "--", "psql", "-h", "/run/pgbouncer", "-p", "6434", "-AF,", "pgbouncer"]
    said = subprocess.run([*console, "-c", "SHOW STATS"], capture_output=True, text=True, check=True, cwd="/").stdout
    names, *rows = [line.split(",") for line in said.splitlines()]
    return sum(int(row[names.index("total_query_count")]) for row in rows if row[0] == database)


if __name__ == "__main__":
    main()
