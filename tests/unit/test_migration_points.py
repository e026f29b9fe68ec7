"""The tasks at which a migration is killed or sabotaged are there: else the long form would never come to them."""

from __future__ import annotations

import re

import pytest
from tests.integration.servers import ROOT
from tests.legacy import kills, sabotage

_TASK = re.compile(r"^ *- name: (.+)$", re.MULTILINE)
NAMES = [
    name
    for folder in ("roles/*/tasks", "playbooks", "playbooks/tasks")
    for path in ROOT.glob(f"{folder}/*.yml")
    for name in _TASK.findall(path.read_text())
]
POINTS = {
    *kills.points(0, 11, inside=True),
    *kills._OF_TARGET,
    *(task for case in sabotage.CASES.values() for task in case.at),
}


def named(task: str, name: str) -> bool:
    """Whether a task written as `name`, perhaps with Jinja at its end, is called `task` when it runs."""
    words, jinja, _ = name.partition("{{")
    return task == name or bool(jinja and task.startswith(words) and task != words)


@pytest.mark.parametrize("task", sorted(POINTS))
def test_a_point_at_which_a_migration_is_met_is_a_task(task: str) -> None:
    assert any(named(task, name) for name in NAMES)


def test_a_task_that_is_not_there_is_found_missing() -> None:
    assert not any(named("Bring the given session in", name) for name in NAMES)
