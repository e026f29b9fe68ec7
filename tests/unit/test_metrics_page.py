"""The page of metrics is current, and their names say their units."""

from __future__ import annotations

import re

import pytest
from tests.unit.alert_rules import rules
from tools.metrics import PAGE, known, page

UNITS = ("seconds", "bytes", "events", "messages", "channels", "clients", "requests", "connections")
NO_UNIT = {
    "telegram_api_requests_total", "telegram_backup_last_run_ok", "telegram_cache_breaker_state",
    "telegram_channel_last_message_id", "telegram_connection_status", "telegram_failure_queue_size",
    "telegram_legacy_feed_backlog", "telegram_migration_failed", "telegram_migration_phase",
    "telegram_session_state", "telegram_sink_available",
    "telegram_sink_cursor_sequence", "telegram_spool_last_sequence", "telegram_update_queue_size", "pgbouncer_up",
    "telegram_legacy_feed_up", "telegram_worker_database_up", "telegram_worker_queue_up",
}  # fmt: skip
"""States, numbers of entries in names that are the legacy system's, and identifiers."""


@pytest.mark.requirement("MO-01")
def test_the_page_is_what_the_code_counts() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "out of date: run python -m tools.metrics"


def test_names_say_their_units() -> None:
    for row in known():
        if row.kind == "counter":
            assert row.name.endswith("_total"), row.name
        elif row.name not in NO_UNIT:
            assert row.name.removesuffix("_total").endswith(UNITS), row.name
        assert row.text, row.name


def test_one_name_has_one_meaning() -> None:
    names = [row.name for row in known()]
    assert len(names) == len(set(names))


@pytest.mark.requirement("MO-02")
def test_rules_look_at_metrics_that_are_counted() -> None:
    names = {row.name for row in known()} | {rule["record"] for rule in rules() if "record" in rule}
    for row in known():
        if row.kind == "histogram":
            names |= {f"{row.name}_{part}" for part in ("bucket", "sum", "count")}
    asked = {
        name
        for rule in rules()
        for name in re.findall(r"(?<![\w:.\"/-])(?:telegram|pgbouncer)_[a-z_]+", re.sub(r'"[^"]*"', "", rule["expr"]))
    }
    assert len(asked) >= 30
    assert asked <= names
