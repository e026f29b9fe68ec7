# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From the view `telegram.maintenance_status` to a finding: did each job run, and what is left to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .health import DEGRADED, OK, Finding, NoAnswer

QUERY = """
SELECT
  job, last_ok, last_detail, backlog, runs_failed_since_success,
  extract(epoch FROM now() - last_started)::float8, extract(epoch FROM now() - last_finished)::float8,
  extract(epoch FROM now() - greatest(
    (SELECT max(applied_at) FROM telegram.schema_migrations), pg_postmaster_start_time()
  ))::float8
FROM telegram.maintenance_status ORDER BY job
"""

ENGINE_JOB_SECONDS = 2 * 86_400.0
"""Policies of TimescaleDB (named with a colon) have schedules of their own, the rarest once a day."""

UNIT = "telegram-database-maintenance.service"
JOURNAL = f"journalctl -u {UNIT} -n 50"
FAILED_HINT = f"{JOURNAL}; mend the cause, then systemctl start {UNIT}"
LATE_HINT = f"systemctl list-timers telegram-database-maintenance.timer; then systemctl start {UNIT}"


class Job(NamedTuple):
    """One row of `QUERY`; times are seconds ago."""

    name: str
    ok: bool | None
    """How its last run ended; None while it runs, and when it never did."""
    detail: str | None
    backlog: int | None
    failures: int | None
    """Runs that failed since the last that did not."""
    started: float | None
    finished: float | None
    settled: float
    """How long server and schema have been there."""


def judge(jobs: Sequence[Job], minutes: float) -> Finding:
    """Judge the jobs, of which each has to end well every `minutes`."""
    if not jobs:
        raise NoAnswer("the database knows no maintenance jobs", "run playbooks/deploy.yml for the database")
    threshold = f"each job done within {minutes:g} min"
    failed = [job for job in jobs if job.ok is False and not _is_done(job)]
    late = [job for job in jobs if job not in failed and _is_late(job, minutes * 60)]
    if failed:
        return Finding(DEGRADED, "; ".join(map(_failure, failed)), threshold, FAILED_HINT)
    if late:
        return Finding(DEGRADED, "; ".join(map(_described, late)), threshold, LATE_HINT)
    return Finding(OK, "; ".join(map(_described, jobs)), threshold)


def _is_done(job: Job) -> bool:
    """Some releases of TimescaleDB report a policy as failed after it has done its work: then nothing is left."""
    return ":" in job.name and job.backlog == 0


def _is_late(job: Job, limit: float) -> bool:
    if ":" in job.name:
        limit = max(limit, ENGINE_JOB_SECONDS)
    since = job.started if job.ok is None else job.finished
    # A server that was down, or is new, has had no occasion yet.
    return min(job.settled, job.settled if since is None else since) > limit


def _failure(job: Job) -> str:
    often = f" {job.failures} times" if (job.failures or 0) > 1 else ""
    return f"{job.name} failed{often}, last {_ago(job.finished)}: {job.detail or 'no reason given'}"


def _described(job: Job) -> str:
    if job.started is None:
        return f"{job.name} has not run yet"
    if job.ok is None:
        return f"{job.name} began {_ago(job.started)} and has not ended"
    left = "" if job.backlog is None else f", backlog {job.backlog}"
    word = "ok" if job.ok else "reports a failure"
    return f"{job.name} {word} {_ago(job.finished)}{left}"


def _ago(seconds: float | None) -> str:
    if seconds is None:
        return "at an unknown time"
    if seconds < 120:
        return f"{seconds:.0f} s ago"
    return f"{seconds / 60:.0f} min ago" if seconds < 7200 else f"{seconds / 3600:.0f} h ago"
