# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a health check says, how it is kept from hanging, and how many of them become one word."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

OK, OFF, DEGRADED, FAILED = "ok", "off", "degraded", "failed"
STATUSES = (OK, OFF, DEGRADED, FAILED)
"""From best to worst. `off` is a component that is deliberately not there; it weighs nothing."""

Check = Mapping[str, Any]
"""One entry of the module's option C(checks)."""


class Finding(NamedTuple):
    """What a driver found out."""

    status: str
    value: str
    threshold: str = ""
    hint: str = ""
    version: str = ""
    note: str = ""
    """What to know or do although all is well."""


class NoAnswer(Exception):
    """Nothing usable came back, so the check has failed; the text says what came instead."""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.hint = hint


Driver = Callable[[Check], Finding]


def run_check(check: Check, drivers: Mapping[str, Driver]) -> dict[str, Any]:
    """The result of one check. Whatever goes wrong on the way is a failed check, never an exception."""
    try:
        finding = _in_time(drivers[check["kind"]], check)
        if finding.status not in STATUSES:
            raise NoAnswer(f"the check ended in the unknown state {finding.status!r}")
    except NoAnswer as error:
        finding = Finding(FAILED, str(error), hint=error.hint)
    except Exception as error:
        finding = Finding(FAILED, f"{type(error).__name__}: {error}")
    return {
        "component": check["component"],
        "name": check["name"],
        "status": finding.status,
        "value": " ".join(finding.value.split()),
        "threshold": finding.threshold,
        "hint": "" if finding.status == OK else finding.hint or check.get("hint") or _default_hint(check),
        "note": finding.note,
        "version": finding.version,
        "port": check.get("port"),
        "unit": check.get("unit") or "",
    }


def _in_time(driver: Driver, check: Check) -> Finding:
    """Run `driver`, which may ask several questions; one that hangs for good is left behind in its thread."""
    answers: queue.SimpleQueue[Finding | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(driver(check))
        except Exception as error:
            answers.put(error)

    seconds = 3 * check["timeout"]
    threading.Thread(target=run, daemon=True, name=check["name"]).start()
    try:
        answer = answers.get(timeout=seconds)
    except queue.Empty:
        raise NoAnswer(f"no answer within {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _default_hint(check: Check) -> str:
    unit = check.get("unit")
    return f"journalctl -u {unit} -n 50" if unit else "run playbooks/deploy.yml again"


def run_checks(checks: Iterable[Check], drivers: Mapping[str, Driver]) -> list[dict[str, Any]]:
    """The results in the order of `checks`.

    Behind a unit that is allowed to be missing, and is, a component's further checks are off too.
    """
    absent: dict[str, dict[str, Any]] = {}
    results = []
    for check in checks:
        if check["component"] in absent:
            results.append({**absent[check["component"]], "name": check["name"], "port": check.get("port")})
            continue
        result = run_check(check, drivers)
        if result["status"] == OFF:
            absent[check["component"]] = result
        results.append(result)
    return results


def worst(statuses: Iterable[str]) -> str:
    """The worst of `statuses`, with `off` as good as `ok`; nothing at all is a failure: nobody looked."""
    seen = list(statuses)
    if not seen or any(status not in STATUSES for status in seen):
        return FAILED
    found = max(seen, key=STATUSES.index)
    return OK if found == OFF else found


def counts(statuses: Iterable[str]) -> dict[str, int]:
    """How often each status occurs, the absent ones too."""
    seen = list(statuses)
    return {status: seen.count(status) for status in STATUSES}
