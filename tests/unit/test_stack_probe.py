"""What the playbook `benchmark` reads off the services' metrics."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location(
    "stack_probe", Path(__file__).resolve().parents[2] / "playbooks/files/stack_probe.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
stack_probe = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(stack_probe)

METRICS = """\
telegram_events_received_total{kind="new"} 90.0
telegram_events_received_total{kind="edit"} 10.0
telegram_stage_seconds_bucket{le="0.002",stage="spool"} 50.0
telegram_stage_seconds_bucket{le="0.01",stage="spool"} 100.0
telegram_stage_seconds_bucket{le="+Inf",stage="spool"} 100.0
telegram_stage_seconds_bucket{le="0.002",stage="queue"} 7.0
"""
SPOOL = [(2.0, 50.0), (10.0, 100.0), (float("inf"), 100.0)]


def test_a_histogram_is_found_by_name_and_stage() -> None:
    assert stack_probe.buckets_of(METRICS, "telegram_stage_seconds", ',stage="spool"') == SPOOL
    assert stack_probe.buckets_of(METRICS, "telegram_stage_seconds", ',stage="cache"') == []
    assert stack_probe.buckets_of('x_bucket{le="5.0"} 3.0\n', "x") == [(5000.0, 3.0)]


def test_all_kinds_of_updates_are_received() -> None:
    assert stack_probe.received(METRICS) == 100


def test_only_what_came_between_two_looks_counts() -> None:
    earlier = [(2.0, 50.0), (10.0, 60.0), (float("inf"), 60.0)]
    assert stack_probe.difference(SPOOL, earlier) == [(2.0, 0.0), (10.0, 40.0), (float("inf"), 40.0)]
    assert stack_probe.difference(SPOOL, []) == SPOOL, "a service that has begun since"


@pytest.mark.requirement("OP-01")
def test_percentiles_lie_within_their_bucket() -> None:
    assert stack_probe.percentiles(SPOOL) == {"p50": 2.0, "p95": 9.2, "p99": 9.84}
    late = [(2.0, 90.0), (10.0, 90.0), (float("inf"), 100.0)]
    assert stack_probe.percentiles(late) == {"p50": 1.11, "p95": 10.0, "p99": 10.0}
