"""How the database's own jobs are judged: no server."""

from __future__ import annotations

import pytest
from plugins.module_utils.health import NoAnswer
from plugins.module_utils.health_maintenance import Job, judge

DAY = 86_400.0
GOOD = Job("retention", True, "0 messages removed", 0, 0, 610, 600, DAY)


def test_jobs_that_ran_are_ok_and_each_says_when_how_and_what_is_left() -> None:
    found = judge([GOOD, GOOD._replace(name="rollups", finished=15, backlog=7)], 90)
    assert (found.status, found.hint) == ("ok", "")
    assert found.value == "retention ok 10 min ago, backlog 0; rollups ok 15 s ago, backlog 7"
    assert found.threshold == "each job done within 90 min"


def test_a_job_that_failed_is_degraded_with_its_reason_and_a_command() -> None:
    bad = GOOD._replace(name="rollups", ok=False, detail="disk full", failures=3)
    found = judge([GOOD, bad], 90)
    assert (found.status, found.value) == ("degraded", "rollups failed 3 times, last 10 min ago: disk full")
    assert "systemctl start telegram-database-maintenance.service" in found.hint
    assert "journalctl" in found.hint


@pytest.mark.parametrize(
    ("job", "status", "value"),
    [
        (GOOD._replace(finished=3 * 3600), "degraded", "retention ok 3 h ago, backlog 0"),
        (GOOD._replace(finished=3 * 3600, settled=60), "ok", "retention ok 3 h ago, backlog 0"),
        (Job("x", None, None, None, 0, None, None, 600), "ok", "x has not run yet"),
        (Job("x", None, None, None, 0, None, None, DAY), "degraded", "x has not run yet"),
        (Job("x", None, None, None, 0, 600, None, DAY), "ok", "x began 10 min ago and has not ended"),
        (Job("x", None, None, None, 0, 3 * 3600, None, DAY), "degraded", "x began 3 h ago and has not ended"),
        (GOOD._replace(name="policy:retention", finished=DAY, settled=9 * DAY), "ok", "policy:retention ok 24 h ago"),
        (GOOD._replace(name="policy:retention", finished=3 * DAY, settled=9 * DAY), "degraded", "72 h ago"),
    ],
)
def test_a_job_has_to_end_in_its_time_once_the_server_gave_it_one(job: Job, status: str, value: str) -> None:
    found = judge([job], 90)
    assert found.status == status
    assert value in found.value
    assert bool(found.hint) == (status != "ok")


def test_a_policy_that_reports_a_failure_with_its_work_done_is_believed_its_work() -> None:
    policy = GOOD._replace(name="policy:compression", ok=False, failures=1)
    found = judge([policy], 90)
    assert (found.status, found.value) == ("ok", "policy:compression reports a failure 10 min ago, backlog 0")
    assert judge([policy._replace(backlog=4)], 90).status == "degraded"
    assert judge([policy._replace(name="compression")], 90).status == "degraded", "one of our own is never excused"


def test_no_jobs_at_all_are_no_answer() -> None:
    with pytest.raises(NoAnswer, match="no maintenance jobs"):
        judge([], 90)
