# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From a job's record in a JSON file to a finding: did it end well, and lately."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from .health import DEGRADED, OK, Finding, NoAnswer

HOUR = 3600.0


class Entry(NamedTuple):
    """One job; times are seconds since 1970."""

    ok: bool | None
    """How its last run ended; None when it never ran."""
    at: float
    """When that was, or since when it has had occasion to."""
    last_ok: float | None
    detail: str


def read(path: str, name: str) -> Entry:
    """Entry `name` of the file. Raises NoAnswer."""
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))[name]
        return Entry(found["ok"], float(found["at"]), found["last_ok"], str(found["detail"]))
    except FileNotFoundError as error:
        raise NoAnswer(f"{path} is not there: the job has never run", "run playbooks/deploy.yml") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoAnswer(f"{path} cannot be read: {error!r}") from error


def judge(entry: Entry, now: float, hours: float) -> Finding:
    """Judge a job that has to end well every so many `hours`."""
    threshold = f"done within {hours:g} h"
    age = (now - (entry.last_ok or entry.at)) / HOUR
    if entry.ok is False:
        return Finding(DEGRADED, f"failed {(now - entry.at) / HOUR:.0f} h ago: {entry.detail}", threshold)
    if age > hours:
        return Finding(DEGRADED, f"not done for {age:.0f} h, last: {entry.detail}", threshold)
    return Finding(OK, f"{entry.detail}, {age:.0f} h ago" if entry.ok else entry.detail, threshold)
