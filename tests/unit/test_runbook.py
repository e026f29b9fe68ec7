"""Every alert's link meets a section of the runbook, and the runbook has no section that nobody links to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.unit.alert_rules import ROOT, alerts

RUNBOOK = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.+?)(?=^#|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


@pytest.mark.requirement("MO-04", "DO-01")
def test_each_alert_has_its_section() -> None:
    assert set(SECTIONS) == set(alerts())
    anchors = {f"#{name.lower()}" for name in SECTIONS}
    assert {"#" + alert["annotations"]["runbook_url"].partition("#")[2] for alert in alerts().values()} == anchors


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_a_section_says_where_to_look_and_what_to_do(name: str) -> None:
    text = SECTIONS[name]
    assert "Look" in text, name
    assert "Do:" in text or name == "DeadMansSwitch", name
    assert "`" in text, name


def test_links_and_settings_exist() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", RUNBOOK):
        file, _, anchor = target.partition("#")
        assert not file or Path(ROOT / "docs" / file).is_file(), target
        assert not anchor or file or anchor in {name.lower() for name in SECTIONS}, target
    defaults = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/defaults/main.yml"))
    for name in set(re.findall(r"`((?:gateway|redis_sentinel|pgbouncer|monitoring)_[a-z_]+[a-z])`", RUNBOOK)):
        assert re.search(rf"^{name}:", defaults, re.MULTILINE), name
