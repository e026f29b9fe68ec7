"""How fast a running stack is: from its own histograms, over a while, on the host of the gateway with its Python alone.

It asks for little meanwhile: an answer holds the asked service up, and one message of a hundred is what is looked for.
Prints one JSON object: the milliseconds from receipt to each stage that messages have passed, messages received,
largest backlog, the cores that each unit of this host used, the gateway's largest memory (and that before) and, where
the database is on this host, the services' statements (BEGIN and COMMIT are none). With ``--until-settled`` it says
`measured` before, and waits until nothing more comes and the sinks have everything: for a load that ends there.
"""

from __future__ import annotations

import argparse
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
PERCENTILES = (50, 95, 99)
LINE = r'^{}_bucket\{{le="([^"]+)"{}\}} (\S+)$'
RECEIVED = re.compile(r"^telegram_events_received_total\{.*\} (\S+)$", re.MULTILINE)
UNIT = re.compile(r"/([^/\n]+)\.service$", re.MULTILINE)
PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
CALLS = """
SELECT coalesce(sum(s.calls), 0) FROM pg_stat_statements AS s JOIN pg_roles AS r ON r.oid = s.userid
JOIN pg_database AS d ON d.oid = s.dbid
WHERE d.datname = current_database() AND NOT r.rolsuper AND r.rolname <> 'telegram_exporter'
"""
LOOK_SECONDS = 5.0
QUIET_SECONDS = 2.0
SETTLE_SECONDS = 600.0
TICKS = os.sysconf("SC_CLK_TCK")
Buckets = list[tuple[float, float]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--gateway", default="http://127.0.0.1:4006")
    parser.add_argument("--worker", default="http://127.0.0.1:4011")
    parser.add_argument("--database", default="telegram_gateway")
    parser.add_argument("--database-port", type=int, default=5434)
    parser.add_argument("--until-settled", action="store_true")
    print(json.dumps(measure(parser.parse_args())))


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Watch for as long as was asked."""
    begun, units, calls = time.time(), cpu(), statements(asked.database, asked.database_port)
    stages = metrics(asked.gateway)
    before, came = histograms(stages, metrics(asked.worker)), received(stages)
    behind, megabytes_before = 0, megabytes()
    while time.time() < begun + asked.seconds:
        time.sleep(min(LOOK_SECONDS, max(0.0, begun + asked.seconds - time.time())))
        behind = max(behind, *lags(asked.gateway).values())
    elapsed = time.time() - begun
    used = {name: (value - units.get(name, 0.0)) / elapsed for name, value in cpu().items()}
    told: dict[str, Any] = {"elapsed": elapsed, "behind": behind}
    told |= {"megabytes": megabytes(), "megabytes_before": megabytes_before}
    stages = metrics(asked.gateway)
    told |= {"left": lags(asked.gateway), "received": received(stages) - came}
    told["cpu"] = {name: round(value, 4) for name, value in sorted(used.items()) if value >= 0.001}
    if asked.until_settled:
        print("measured", flush=True)
        told["settled_seconds"] = settle(asked.gateway, time.time() + SETTLE_SECONDS) - begun - asked.seconds
        stages = metrics(asked.gateway)
    if calls is not None:
        told["statements"] = (statements(asked.database, asked.database_port) or 0) - calls
    after = histograms(stages, metrics(asked.worker))
    passed = {name: difference(after[name], before[name]) for name in after}
    told["stages"] = {name: percentiles(buckets) for name, buckets in passed.items() if buckets and buckets[-1][1]}
    return told


def difference(after: Buckets, before: Buckets) -> Buckets:
    """What came between two looks at a histogram."""
    earlier = dict(before)
    return [(bound, count - earlier.get(bound, 0.0)) for bound, count in after]


def percentiles(buckets: Buckets) -> dict[str, float]:
    """Percentiles of a histogram (upper bound in milliseconds, cumulated count), linear within a bucket."""
    found = {}
    for percentile in PERCENTILES:
        wanted = buckets[-1][1] * percentile / 100
        low, below = 0.0, 0.0
        for bound, count in buckets:
            if count >= wanted:
                share = (wanted - below) / max(1.0, count - below)
                # what is beyond the last bound is told as that bound
                found[f"p{percentile}"] = low if bound == float("inf") else round(low + (bound - low) * share, 2)
                break
            low, below = bound, count
    return found


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


def metrics(service: str) -> str:
    """What a service says of itself, in Prometheus' format."""
    return ask(f"{service}/metrics").decode()


def lags(gateway: str) -> dict[str, int]:
    """Events that each sink has not got yet."""
    return {name: sink["lag"] for name, sink in json.loads(ask(f"{gateway}/health"))["sinks"].items()}


def settle(gateway: str, deadline: float) -> float:
    """When every sink had everything, and nothing more came: Telegram keeps what a slow gateway has not read yet."""
    came, quiet_since = -1, 0.0
    while True:
        now, latest, left = time.time(), received(metrics(gateway)), lags(gateway)
        if latest != came or any(left.values()):
            came, quiet_since = latest, now
        elif now >= quiet_since + QUIET_SECONDS:
            return quiet_since
        if now > deadline:
            sys.exit(f"the chain did not become quiet: {latest} events came, {left} are left")
        time.sleep(0.2)


def received(gateway: str) -> int:
    """Live updates that the gateway has taken since it began, by its metrics."""
    return sum(int(float(count)) for count in RECEIVED.findall(gateway))


def histograms(gateway: str, worker: str) -> dict[str, Buckets]:
    """The latencies to each stage by the metrics of both: upper bound in milliseconds, cumulated count."""
    found = {name: buckets_of(gateway, "telegram_stage_seconds", f',stage="{stage}"') for name, stage in STAGES.items()}
    return found | {"effect": buckets_of(worker, "telegram_worker_latency_seconds")}


def buckets_of(text: str, name: str, labels: str = "") -> Buckets:
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


def statements(database: str, port: int) -> int | None:
    """Statements that the services had `database` run, by its own count; None where it is not on this host."""
    if not Path(f"/run/postgresql/.s.PGSQL.{port}").exists():
        return None
    login = ["runuser", "-u", "postgres", "--", "psql", "-XAtp", str(port), "-d", database]
    said = subprocess.run([*login, "-c", CALLS], capture_output=True, text=True, check=True, cwd="/").stdout
    return int(said)


if __name__ == "__main__":
    main()
