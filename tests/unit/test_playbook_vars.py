"""What the tasks of playbooks read has to be given in every play that runs them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

PLAYBOOKS = Path(__file__).resolve().parents[2] / "playbooks"
READERS = ("tasks/preflight.yml", "tasks/health.yml", "tasks/rotate_clients.yml", "telegram_stack.monitoring")
"""What asks for vars/links.yml, by how a play names it."""
WITHOUT_PROMETHEUS = "telegram_stack:!telegram_monitoring"


def plays() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for path in sorted(PLAYBOOKS.glob("*.yml")):
        for play in yaml.safe_load(path.read_text(encoding="utf-8")):
            text = json.dumps(play, default=str)
            if any(reader in text for reader in READERS) and not str(play["hosts"]).startswith(WITHOUT_PROMETHEUS):
                found.append((f"{path.name}: {play['name']}", play))
    return found


@pytest.mark.parametrize(("name", "play"), plays())
def test_a_play_knows_of_links_where_its_tasks_ask(name: str, play: dict[str, Any]) -> None:
    assert "vars/links.yml" in play.get("vars_files", []), name


def test_the_plays_are_found() -> None:
    assert len(plays()) >= 7
