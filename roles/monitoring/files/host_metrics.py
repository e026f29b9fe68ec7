"""Writes for the node exporter what the systemd units of a host use, and how PgBouncer's pools are.

usage: telegram-host-metrics FILE SECONDS [PGBOUNCER_HOST PGBOUNCER_PORT]

Debian has no exporter for cgroups, and its exporter for PgBouncer cannot read the answers of PgBouncer 1.8 and newer.
The password of pgbouncer_stats is the systemd credential `pgbouncer_stats`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

CGROUPS = Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60
"""From here on version 1 means that there is none."""


class Metric(NamedTuple):
    """A metric's kind and what it means."""

    kind: str
    text: str


class Sample(NamedTuple):
    """One value of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


METRICS = {
    "telegram_unit_memory_bytes": Metric("gauge", "Memory of a unit that it could not give back: without page cache"),
    "telegram_unit_memory_limit_bytes": Metric("gauge", "Memory that a unit may use; none where it has no limit"),
    "telegram_unit_cpu_seconds_total": Metric("counter", "CPU time of a unit"),
    "telegram_unit_cpu_throttled_seconds_total": Metric(
        "counter", "Time in which a unit was held back by its CPU limit"
    ),
    "pgbouncer_up": Metric("gauge", "1 when PgBouncer's console has answered"),
    "pgbouncer_pools_client_active_connections": Metric("gauge", "Clients that have a connection to the database"),
    "pgbouncer_pools_client_waiting_connections": Metric("gauge", "Clients that wait for a connection to the database"),
    "pgbouncer_pools_client_maxwait_seconds": Metric("gauge", "How long the first of them has waited"),
    "pgbouncer_pools_server_active_connections": Metric("gauge", "Connections to the database that a client has"),
    "pgbouncer_pools_server_idle_connections": Metric("gauge", "Connections to the database that nobody has"),
}

_POOL_COLUMNS = {
    "pgbouncer_pools_client_active_connections": "cl_active",
    "pgbouncer_pools_client_waiting_connections": "cl_waiting",
    "pgbouncer_pools_client_maxwait_seconds": "maxwait",
    "pgbouncer_pools_server_active_connections": "sv_active",
    "pgbouncer_pools_server_idle_connections": "sv_idle",
}


class Layout(NamedTuple):
    """Where a kernel keeps what services use: `used`, `limit` and `caches` of memory, seconds of processor time."""

    memory: str
    used: str
    limit: str
    caches: tuple[str, ...]
    cpu: str
    seconds: Mapping[str, tuple[str, float]]


UNIFIED = Layout(
    memory="system.slice",
    used="memory.current",
    limit="memory.max",
    caches=("inactive_file", "active_file", "slab_reclaimable"),
    cpu="system.slice",
    seconds={
        "telegram_unit_cpu_seconds_total": ("usage_usec", 1e-6),
        "telegram_unit_cpu_throttled_seconds_total": ("throttled_usec", 1e-6),
    },
)
# Version 1, in containers on older machines. systemd has no unit's processor time counted there.
BY_CONTROLLER = Layout(
    memory="memory/system.slice",
    used="memory.usage_in_bytes",
    limit="memory.limit_in_bytes",
    caches=("total_inactive_file", "total_active_file"),
    cpu="cpu/system.slice",
    seconds={"telegram_unit_cpu_throttled_seconds_total": ("throttled_time", 1e-9)},
)


def units(root: Path) -> Iterable[Sample]:
    """What each service below the control groups at `root` uses. What its kernel does not count is left out."""
    layout = UNIFIED if (root / "cgroup.controllers").exists() else BY_CONTROLLER
    for folder in sorted((root / layout.memory).rglob("*.service")):
        with contextlib.suppress(OSError):  # the unit has just ended, or its memory is not counted
            yield from _memory(folder, layout)
    for folder in sorted((root / layout.cpu).rglob("*.service")):
        with contextlib.suppress(OSError):
            cpu = _counts(folder / "cpu.stat")
            for name, (counted, scale) in layout.seconds.items():
                yield Sample(name, {"unit": folder.name}, cpu.get(counted, 0) * scale)


def _memory(folder: Path, layout: Layout) -> Iterable[Sample]:
    labels = {"unit": folder.name}
    memory = _counts(folder / "memory.stat")
    used = int((folder / layout.used).read_text()) - sum(memory.get(name, 0) for name in layout.caches)
    yield Sample("telegram_unit_memory_bytes", labels, max(0, used))
    limit = (folder / layout.limit).read_text().strip()
    if limit != "max" and int(limit) < _NO_LIMIT:
        yield Sample("telegram_unit_memory_limit_bytes", labels, int(limit))


def _counts(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


def pools(rows: Iterable[Mapping[str, Any]]) -> Iterable[Sample]:
    """The rows of SHOW POOLS, without that of the console itself."""
    yield Sample("pgbouncer_up", {}, 1)
    for row in rows:
        if row["database"] != "pgbouncer":
            labels = {"database": row["database"], "user": row["user"]}
            yield from (Sample(name, labels, float(row[column])) for name, column in _POOL_COLUMNS.items())


def ask_pgbouncer(host: str, port: int, password: str) -> list[dict[str, Any]]:
    """The rows of SHOW POOLS. Raises psycopg.Error."""
    import psycopg  # noqa: PLC0415  # on database hosts only
    from psycopg.rows import dict_row  # noqa: PLC0415

    with psycopg.connect(
        host=host,
        port=port,
        user="pgbouncer_stats",
        password=password,
        dbname="pgbouncer",
        autocommit=True,
        connect_timeout=3,
        cursor_factory=psycopg.ClientCursor,  # the console knows the simple protocol only
        tcp_user_timeout=3000,
    ) as console:
        return console.cursor(row_factory=dict_row).execute("SHOW POOLS").fetchall()


def pgbouncer(host: str, port: int, password: str) -> Iterable[Sample]:
    """PgBouncer's samples; the one that says it is away when it does not answer."""
    import psycopg  # noqa: PLC0415

    try:
        return list(pools(ask_pgbouncer(host, port, password)))
    except psycopg.Error:
        return [Sample("pgbouncer_up", {}, 0)]


def text(samples: Iterable[Sample]) -> str:
    """`samples` in Prometheus' format, those of a metric together."""
    lines: dict[str, list[str]] = {}
    for name, labels, value in samples:
        shown = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
        lines.setdefault(name, []).append(f"{name}{{{shown}}} {value:.10g}" if shown else f"{name} {value:.10g}")
    blocks = []
    for name, samples_of_it in lines.items():
        kind, meaning = METRICS[name]
        blocks += [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples_of_it]
    return "\n".join(blocks) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def write(path: Path, content: str) -> None:
    """Replace the file at once: the node exporter never reads half of it."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(content, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)


def main() -> None:
    """Write the file until stopped."""
    path, seconds = Path(sys.argv[1]), float(sys.argv[2])
    address = sys.argv[3:]
    password = ""
    if address:
        password = (Path(os.environ["CREDENTIALS_DIRECTORY"]) / "pgbouncer_stats").read_text(encoding="utf-8").strip()
    while True:
        samples = list(units(CGROUPS))
        if address:
            samples += pgbouncer(address[0], int(address[1]), password)
        write(path, text(samples))
        time.sleep(seconds)


if __name__ == "__main__":
    main()
