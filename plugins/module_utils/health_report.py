# Copyright: Telegram hybrid stack maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The results of all hosts as one report: a row for each component, a sentence, a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .health import FAILED, OFF, OK, STATUSES, counts, worst

Row = dict[str, Any]

NAMED = 5
"""How many components the summary names."""


def host_results(checks: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> list[Row]:
    """What `stack_health` answered for `checks`, or a failure of each when it did not answer."""
    results = answer.get("results")
    if isinstance(results, list) and len(results) == len(checks):
        return results
    if answer.get("unreachable"):
        problem, hint = "host unreachable", "look at its console; is ssh reachable from here?"
    else:
        message = str(answer.get("msg") or "nothing came back").strip().splitlines()[0]
        problem, hint = f"the check could not run: {message}", "run again with -vvv"
    return [
        {
            "component": check["component"],
            "name": check["name"],
            "status": OFF if check["kind"] == OFF else FAILED,
            "value": problem,
            "threshold": "",
            "hint": hint,
            "note": "",
            "version": "",
            "port": check.get("port"),
            "unit": check.get("unit") or "",
        }
        for check in checks
    ]


def component_rows(host: str, results: Iterable[Row]) -> list[Row]:
    """One row for each component of `host`, in the order of the checks."""
    grouped: dict[str, list[Row]] = {}
    for result in results:
        grouped.setdefault(result["component"], []).append(result)
    return [_component_row(host, component, mine) for component, mine in grouped.items()]


def _component_row(host: str, component: str, results: Sequence[Row]) -> Row:
    # The first of the worst tells: the unit is asked before what it serves.
    telling = max(results, key=lambda result: STATUSES.index(result["status"]))
    status = telling["status"]
    if status == OFF and any(result["status"] == OK for result in results):
        status = OK
    return {
        "host": host,
        "component": component,
        "status": status,
        "version": next((result["version"] for result in results if result["version"]), ""),
        "port": next((result["port"] for result in results if result["port"] is not None), None),
        "unit": next((result["unit"] for result in results if result["unit"]), ""),
        "problem": "" if status == OK else f"{telling['name']}: {telling['value']}",
        "action": "" if status == OK else telling["hint"],
        "note": next((result["note"] for result in results if result["note"]), ""),
    }


def report(hosts: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    """The whole report of the results by host."""
    rows = [row for host, results in hosts.items() for row in component_rows(host, results)]
    statuses = [row["status"] for row in rows]
    return {
        "status": worst(statuses),
        "counts": counts(statuses),
        "summary": summary(rows),
        "components": rows,
        "checks": hosts,
    }


def summary(rows: Sequence[Row]) -> str:
    """One sentence for the operator."""
    troubles = sorted(
        (row for row in rows if row["status"] not in (OK, OFF)), key=lambda row: -STATUSES.index(row["status"])
    )
    if not rows:
        return "Nothing was checked: is any host in the groups telegram_database, telegram_cache and so on?"
    off = [row["component"] for row in rows if row["status"] == OFF]
    aside = f" ({', '.join(off)} off)" if off else ""
    if not troubles:
        return f"All {len(rows) - len(off)} components are well{aside}."
    names = ", ".join(f"{row['component']} on {row['host']} {row['status']}" for row in troubles[:NAMED])
    if len(troubles) > NAMED:
        names += f" and {len(troubles) - NAMED} more"
    first = f"; first: {troubles[0]['action']}" if troubles[0]["action"] else ""
    return f"{len(troubles)} of {len(rows)} components are not well{aside}: {names}{first}"


_COLUMNS = ("component", "status", "version", "port", "unit")
_REMARKS = (("why: ", "problem"), ("do:  ", "action"), ("note: ", "note"))
_TITLES = {"component": "COMPONENT", "status": "STATE", "version": "VERSION", "port": "PORT", "unit": "UNIT"}


def table(rows: Sequence[Row]) -> str:
    """The rows as an aligned table; below each what is wrong with it and what to do, and what else is to know."""
    columns = ("host", *_COLUMNS) if len({row["host"] for row in rows}) > 1 else _COLUMNS
    titles = {**_TITLES, "host": "HOST"}
    cells = [{column: _cell(row, column) for column in columns} for row in rows]
    widths = {column: max(len(line[column]) for line in [titles, *cells]) for column in columns}
    indent = " " * sum(widths[column] + 2 for column in columns[: columns.index("status")])

    def line(texts: Mapping[str, str]) -> str:
        return "  ".join(texts[column].ljust(widths[column]) for column in columns).rstrip()

    lines = [line(titles)]
    for row, texts in zip(rows, cells, strict=True):
        lines.append(line(texts))
        lines += [f"{indent}{word}{row[key]}" for word, key in _REMARKS if row[key]]
    return "\n".join(lines)


def _cell(row: Row, column: str) -> str:
    value = row[column]
    if column == "status" and value not in (OK, OFF):
        return str(value).upper()
    return "-" if value in ("", None) else str(value)
