"""Runs on the host that is measured, with its own Python alone: python3 probe.py SECONDS RATE WORKER_PORT DATABASE

Collects the gateway's trace while a load runs and says `measured`. Once the sinks have everything it prints, as JSON,
the milliseconds from receipt to each stage, the worker's histogram, the cores that each unit used, the gateway's
largest memory and the clients' statements.
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
from typing import Any

STAGES = {"spooled": "spool", "stored": "database", "published": "queue", "cached": "cache"}
GATEWAY = "http://127.0.0.1:4006"
BUCKET = re.compile(r'^telegram_worker_latency_seconds_bucket\{le="([^"]+)"\} (\S+)$', re.MULTILINE)
UNIT = re.compile(r"/([^/\n]+)\.service$", re.MULTILINE)
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
REMEMBERED = 5000
"""Events in the gateway's trace. They are read twice before they are forgotten: an answer holds the gateway up."""
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure for as long as the first argument says, the sinks' rest included."""
    seconds, rate = float(sys.argv[1]), float(sys.argv[2])
    worker, database = f"http://127.0.0.1:{sys.argv[3]}", sys.argv[4]
    paths: dict[tuple[int, int, int], dict[str, Any]] = {}
    begun, units, effects, calls = time.time(), cpu(), histogram(worker), statements(database)
    behind = 0
    while time.time() < begun + seconds:
        time.sleep(min(2.0, REMEMBERED / rate / 2))
        collect(paths, begun)
        behind = max(behind, *lags().values())
    elapsed = time.time() - begun
    used = {name: (value - units.get(name, 0.0)) / elapsed for name, value in cpu().items()}
    left = lags()
    told = {"elapsed": elapsed, "cpu": {name: round(value, 4) for name, value in used.items() if value >= 0.001}}
    told |= {"left": left, "behind": behind, "megabytes": megabytes(), "received": len(paths)}
    print("measured", flush=True)  # the load ends now
    settled = settle(begun + seconds + 120)
    collect(paths, begun)
    told |= {"settled_seconds": settled - begun - seconds, "statements": statements(database) - calls}
    told["stages"] = {name: percentiles(paths, key) for key, name in STAGES.items()}
    earlier = dict(effects)
    told["effects"] = [[bound, count - earlier.get(bound, 0)] for bound, count in histogram(worker)]
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


def collect(paths: dict[tuple[int, int, int], dict[str, Any]], begun: float) -> None:
    """Add what the gateway remembers of messages that came since `begun`."""
    for path in json.loads(ask(f"{GATEWAY}/trace")):
        if path["received"] >= begun:
            paths[path["channel_id"], path["message_id"], path["version"]] = path


def percentiles(paths: dict[tuple[int, int, int], dict[str, Any]], key: str) -> dict[str, float]:
    """p50, p95 and p99 of the milliseconds from receipt to stage `key`."""
    values = sorted((path[key] - path["received"]) * 1000 for path in paths.values() if path[key] is not None)
    return {f"p{p}": round(values[min(len(values) - 1, len(values) * p // 100)], 2) for p in (50, 95, 99)}


def histogram(worker: str) -> list[tuple[float, float]]:
    """The worker's latency: upper bound in milliseconds, cumulated count."""
    text = ask(f"{worker}/metrics").decode()
    return [(float(bound) * 1000, float(count)) for bound, count in BUCKET.findall(text)]


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
