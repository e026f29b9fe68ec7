"""What `systemd-analyze security` says of units, and what docs/security.md says that it is."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).resolve().parents[1] / "docs/security.md"
LIMIT = 4.0
"""Above it a unit of our own is not let in."""
NOT_MEASURED = "grafana-server"
"""Its package brings its own sandbox, and cannot be had where these tests run."""
_ROW = re.compile(r"^\| (?P<units>`[^|]+`) \| (?P<most>[\d.]+) \| (?P<why>[^|]{20,}) \|$", re.MULTILINE)


def told() -> dict[str, float]:
    """The units of the page's table, without `.service`, and the exposure that each has at most."""
    rows = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    return {unit: float(most) for units, most, _ in rows for unit in re.findall(r"`([^`]+)`", units)}


def measured(said: str) -> float:
    """The exposure in what systemd-analyze prints of one unit."""
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found, said
    return float(found[1])
