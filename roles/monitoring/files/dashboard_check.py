"""Refuses a dashboard that Grafana would leave out, or show with empty panels.

usage: telegram-dashboard-check FILE

Says what is wrong and ends with 1. Where promtool is installed, it judges the expressions.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE = "telegram-prometheus"
"""The uid of the data source that is provisioned beside the dashboards."""

_GIVEN = {"__rate_interval": "1m", "__interval": "15s", "__range": "1h"}
"""Grafana's own variables, and values that they may have."""


def faults(text: str) -> list[str]:
    """What is wrong with a dashboard; empty when it is good."""
    try:
        board = json.loads(text)
    except ValueError as error:
        return [f"it is no JSON: {error}"]
    if not isinstance(board, dict):
        return ["it is no JSON object"]
    panels = [panel for panel in board.get("panels") or [] if panel.get("type") != "row"]
    found = [f"it has no {name}" for name in ("uid", "title", "panels") if not board.get(name)]
    ids = Counter(panel.get("id") for panel in board.get("panels") or [])
    found += [f"several panels have the id {number}" for number, count in ids.items() if count > 1]
    names = {variable.get("name") for variable in (board.get("templating") or {}).get("list") or []}
    for panel in panels:
        found += [f"panel {panel.get('title')!r}: {fault}" for fault in _panel_faults(panel, names)]
    return found or _parsed(expressions(board))


def expressions(board: dict[str, Any], **chosen: str) -> list[str]:
    """Every expression, asked for all that its variables can be, or what is `chosen`."""
    values = {**_GIVEN, **chosen}
    return [
        re.sub(r"\$(\w+)", lambda name: values.get(name[1], ".*"), target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets") or []
    ]


def _panel_faults(panel: dict[str, Any], names: set[str]) -> Iterator[str]:
    for part in ("title", "description"):
        if not panel.get(part):
            yield f"it has no {part}"
    defaults = (panel.get("fieldConfig") or {}).get("defaults") or {}
    if not defaults.get("unit"):
        yield "it has no unit"
    steps = (defaults.get("thresholds") or {}).get("steps") or []
    numbers = [step["value"] for step in steps[1:]]
    if not all(isinstance(number, int | float) for number in numbers) or numbers != sorted(numbers):
        yield f"its thresholds are no rising numbers: {numbers}"
    targets = panel.get("targets") or []
    if not targets:
        yield "it asks for nothing"
    for part in (panel, *targets):
        if (part.get("datasource") or {}).get("uid") != SOURCE:
            yield f"its data source is not {SOURCE}"
    for target in targets:
        asked = target.get("expr") or ""
        if not asked:
            yield "an expression is empty"
        for name in set(re.findall(r"\$(\w+)", asked)) - names - set(_GIVEN):
            yield f"there is no variable {name}"


def _parsed(asked: list[str]) -> list[str]:
    if shutil.which("promtool") is None:
        return []
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(asked)]
    with tempfile.NamedTemporaryFile("w", suffix=".yml", encoding="utf-8") as file:
        json.dump({"groups": [{"name": "panels", "rules": rules}]}, file)  # which is YAML too
        file.flush()
        ended = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    return [] if ended.returncode == 0 else [ended.stderr.strip() or ended.stdout.strip()]


def main() -> None:
    """Check the file that the command line names."""
    found = faults(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if found:
        sys.exit("The dashboard is not good: " + "; ".join(found))


if __name__ == "__main__":
    main()
