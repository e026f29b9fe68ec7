"""What the collection says that it needs is what it uses: other collections, and Python packages on the controller."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
OF_ANSIBLE = {"ansible", "ansible_collections"}


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def words(name: str) -> list[str]:
    """The first word of each line of a list of packages."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line.split()[0] for line in lines if line and not line.startswith("#")]


def test_other_collections_are_named_where_they_are_used_and_nowhere_else() -> None:
    files = [path for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    keys = {name for path in files for name in re.findall(r"^[- ]+(\w+\.\w+)\.\w+:", path.read_text(), re.MULTILINE)}
    used = keys - {"ansible.builtin", "tradingsystem.telegram_stack"}
    assert used
    assert load("galaxy.yml")["dependencies"].keys() == used
    assert {item["name"]: item["version"] for item in load("requirements.yml")["collections"]} == load("galaxy.yml")[
        "dependencies"
    ]


def on_the_controller() -> list[Path]:
    """Python that runs where Ansible does: filters, actions, and what roles call with its own Python."""
    plugins = [path for kind in ("filter", "action") for path in (ROOT / "plugins" / kind).glob("*.py")]
    called = [
        role / "files" / name
        for role in (ROOT / "roles").iterdir()
        for tasks in (role / "tasks").glob("*.yml")
        for name in re.findall(r"ansible_playbook_python, role_path ~ '/files/(\w+\.py)'", tasks.read_text())
    ]
    assert plugins
    assert called
    return plugins + called


def imported(path: Path) -> Iterator[str]:
    """The packages that `path` imports, itself or by what it takes from module_utils."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield str(node.module).split(".")[0]
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1]
            yield from imported(base.joinpath(*str(node.module).split(".")).with_suffix(".py"))


def test_an_execution_environment_gets_what_runs_on_the_controller() -> None:
    named = load("meta/execution-environment.yml")["dependencies"]
    assert words(named["system"])
    projects = importlib.metadata.packages_distributions()
    packages = {name for path in on_the_controller() for name in imported(path)} - sys.stdlib_module_names - OF_ANSIBLE
    assert {projects[name][0].lower() for name in packages} == {word.lower() for word in words(named["python"])}
