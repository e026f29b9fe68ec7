"""Every panel's expressions, asked of a Prometheus: which have no data."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roles.monitoring.files.dashboard_check import expressions

Ask = Callable[[Sequence[str]], Sequence[int]]
"""Gives how many series Prometheus has for each of the expressions now."""

_VERSION_1 = "with control groups of version 1 nobody counts a unit's processor time"
_BEFORE = "the set that a deployment makes comes before the node exporter; the next run tells"
_DISK = "a container's disk is its host's"
ASKED = "Telegram has asked for no pause"
_NO_MIGRATION = "no legacy system was migrated"
WITHOUT_DATA = {
    "telegram_backup_last_run_ok": _BEFORE,
    "telegram_backup_last_success_timestamp_seconds": _BEFORE,
    "telegram_unit_cpu_seconds_total": _VERSION_1,
    "telegram_flood_wait_remaining_seconds": ASKED,
    "telegram_flood_wait_seconds_total": ASKED,
    "node_timex_offset_seconds": "a container may not read the state of the clock",
    "node_filesystem_avail_bytes": _DISK,
    "node_filesystem_size_bytes": _DISK,
    "instance:node_filesystem_avail:ratio": _DISK,
    "telegram_lease_remaining_seconds": "one gateway alone needs no lease",
    "telegram_migration_phase": _NO_MIGRATION,
    "telegram_migration_failed": _NO_MIGRATION,
    "telegram_legacy_feed_backlog": _NO_MIGRATION,
    "telegram_legacy_feed_rows_total": _NO_MIGRATION,
}
"""Metrics that a host of the tests need not have, and why: what asks for one may be empty."""


def empty(ask: Ask, boards: Sequence[Mapping[str, Any]], without: Mapping[str, str]) -> dict[str, list[str]]:
    """The expressions that have no data and ask for no metric in `without`, by the dashboard's title."""
    asked = [
        (board["title"], expression)
        for board in boards
        for expression in expressions(dict(board))
        if not any(name in expression for name in without)
    ]
    found: dict[str, list[str]] = {}
    for (title, expression), series in zip(asked, ask([expression for _, expression in asked]), strict=True):
        if not series:
            found.setdefault(title, []).append(expression)
    return found


def parsed(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Dashboards from their files' contents."""
    return [json.loads(text) for text in texts]
