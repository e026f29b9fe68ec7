"""The tasks at which a migration is killed or sabotaged are there: else the long form would never come to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import yaml
from tests.integration.servers import ROOT
from tests.legacy import kills, sabotage


class _Loader(yaml.SafeLoader):
    """YAML whose secrets stay closed."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, node: node.value)


def shown(tasks: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Names that appear when a playbook runs: not those of blocks and of what is imported."""
    for task in tasks:
        parts = [part for name in ("tasks", "block", "rescue", "always") for part in task.get(name, [])]
        yield from shown(parts)
        if not parts and not any(".import_" in key for key in task):
            yield task["name"]


FILES = [path for folder in ("roles/*/tasks", "playbooks", "playbooks/tasks") for path in ROOT.glob(f"{folder}/*.yml")]
NAMES = [name for path in FILES for name in shown(yaml.load(path.read_text(), _Loader))]  # noqa: S506 - a safe loader
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
    assert "Make the roles" not in NAMES, "an import is not shown"
