"""Writes docs/metrics.md: every metric of ours, from the code that counts it. usage: python -m tools.metrics"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from roles.backup.files.telegram_backup import record
from roles.monitoring.files import host_metrics

from telegram_stack import cache, database
from telegram_stack.api import cached, hub, operation
from telegram_stack.gateway.metrics import Metrics
from telegram_stack.legacy import feed
from telegram_stack.sinks import queue
from telegram_stack.spool import Spool
from telegram_stack.worker import polling, processing, state

PAGE = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
_PLACES = {
    "gateway": [database, queue],
    "API": [operation, cached, hub, database, cache],
    "worker": [state, polling, processing, database, cache],
    "legacy feed": [feed, database],
}
_BACKUP = {
    "telegram_backup_last_success_timestamp_seconds": "When the job last ended well",
    "telegram_backup_last_run_ok": "1 when the job's last run has ended well",
}
_MIGRATION = PAGE.parent.parent / "plugins/modules/migration_state.py"
_HEAD = """\
# Metrics

Every metric that is counted here, and who serves it. Made by `python -m tools.metrics`; a test says when it is stale.
A histogram has `_bucket`, `_sum` and `_count`. `channel_id` has as many values as the account has channels; `sink` one
a store and push address; all other labels have a fixed set. Exporters and RabbitMQ have documents of their own.

| metric | kind | labels | what | served by |
|---|---|---|---|---|
"""


class Row(NamedTuple):
    """One metric."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def _row(metric: MetricWrapperBase) -> Row:
    kind = str(metric._type)
    name = metric._name + ("_total" if kind == "counter" else "")
    return Row(name, kind, tuple(metric._labelnames), metric._documentation or "")


def _served() -> Iterator[tuple[str, Row]]:
    registry = CollectorRegistry()
    of_gateway = Metrics(registry, cast(Spool, None), ["database"])
    of_gateway.follow_lease(lambda: 0.0)
    yield from (
        ("gateway", _row(metric)) for metric in vars(of_gateway).values() if isinstance(metric, MetricWrapperBase)
    )
    for place, modules in _PLACES.items():
        for module in modules:
            for metric in vars(module).values():
                if isinstance(metric, MetricWrapperBase):
                    yield place, _row(metric)
    for name, metric_of_host in host_metrics.METRICS.items():
        labels = ("unit",) if name.startswith("telegram_unit") else ("database", "user") if "pools" in name else ()
        yield "host metrics", Row(name, metric_of_host.kind, labels, metric_of_host.text)
    told = re.findall(r"^# HELP (\w+) (.+)$", _MIGRATION.read_text(encoding="utf-8"), re.MULTILINE)
    yield from (("migration", Row(name, "gauge", (), text)) for name, text in told)
    entry = {"ok": True, "at": 0.0, "last_ok": 0.0, "detail": ""}
    for line in record.metrics({"backup": entry}).splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            yield "backup", Row(name, kind, ("job_name",), _BACKUP[name])


def known() -> dict[Row, list[str]]:
    """Every metric, and who serves it, by name."""
    found: dict[Row, list[str]] = {}
    for place, row in _served():
        places = found.setdefault(row, [])
        if place not in places:
            places.append(place)
    return dict(sorted(found.items()))


def page() -> str:
    """The whole document."""
    lines = []
    for row, places in known().items():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        lines.append(f"| `{row.name}` | {row.kind} | {labels} | {row.text} | {', '.join(places)} |\n")
    return _HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
