"""The units that the roles write, and their drop-ins for units of Debian's packages, rendered into a folder."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from tests.integration.plays import playbook
from tests.integration.servers import ROOT

ROLES = ROOT / "roles"
PACKAGED = Path("/lib/systemd/system")
Task = dict[str, Any]


def render(folder: Path) -> list[str]:
    """Write every unit that the roles make or limit into `folder`, with what Debian ships of them; returns
    the units' names, without `.service`."""
    plays = [_play(role, folder) for role in sorted({path.name for path in ROLES.iterdir()} - {"common"})]
    (folder / "play.yml").write_text(json.dumps([play for play in plays if play["tasks"]]))
    done = playbook(str(folder / "play.yml"), "-i", "localhost,", "-c", "local")
    assert done.returncode == 0, done.stdout + done.stderr
    limited = [path.name.removesuffix(".d") for path in folder.glob("*.service.d")]
    for unit in limited:
        if not (folder / unit).exists():
            name, at, _ = unit.partition("@")
            shutil.copy(PACKAGED / (f"{name}@.service" if at else unit), folder / unit)
    return sorted(path.stem for path in folder.glob("*.service"))


def _play(role: str, folder: Path) -> Task:
    settings = [ROLES / name / kind for name in ("common", role) for kind in ("defaults", "vars")]
    files = [str(path) for place in settings for path in sorted(place.rglob("*.yml"))]
    return {
        "hosts": "localhost",
        "gather_facts": True,
        "vars_files": files,
        "vars": {"telegram_secrets": dict.fromkeys(_secrets(), "made-up")},
        "tasks": list(_tasks(role, folder)),
    }


def _tasks(role: str, folder: Path) -> Iterator[Task]:
    """The tasks of `role` that write units and drop-ins, made to write them into `folder`."""
    found = [
        (path.name, task) for path in sorted((ROLES / role / "tasks").glob("*.yml")) for task in _flat(_load(path))
    ]
    loops = {
        str(task["ansible.builtin.include_tasks"]): task for _, task in found if "ansible.builtin.include_tasks" in task
    }
    for file, task in found:
        around = {key: task.get(key) or loops.get(file, {}).get(key) for key in ("loop", "loop_control")}
        again = {key: value for key, value in around.items() if value}
        file_of = task.get("ansible.builtin.template", {})
        if ".service.j2" in file_of.get("src", "") or "/etc/systemd/system/" in file_of.get("dest", ""):
            source = f"{ROLES}/{role}/templates/{file_of['src']}"
            yield _template(source, folder, "{{ _dest | basename }}", {"_dest": file_of["dest"]}, again)
        if "/etc/systemd/system/" in task.get("vars", {}).get("_paths", ""):  # several units in one step
            for unit in sorted((ROLES / role / "templates").glob("*.service.j2")):
                yield _template(str(unit), folder, unit.stem, {}, {})
        included = task.get("ansible.builtin.include_role", {}).get("tasks_from")
        if included == "service.yml":
            given = {**task["vars"], "common_services_release": "0", "common_service_systemd": 252}
            source = f"{ROLES}/common/templates/service.service.j2"
            yield _template(source, folder, "{{ common_service_name }}.service", given, again)
        if included == "unit_dropin.yml":
            name = "{{ common_dropin_unit }}.d/50-telegram-stack.conf"
            yield {
                "ansible.builtin.file": {"path": f"{folder}/{Path(name).parent}", "state": "directory"},
                "vars": task["vars"],
                **again,
            }
            yield _template(f"{ROLES}/common/templates/limits.conf.j2", folder, name, task["vars"], again)


def _secrets() -> set[str]:
    """The names of the secrets that roles take by name."""
    files = [path for path in ROLES.rglob("*.yml") if path.parent.name in {"defaults", "vars", "tasks"}]
    return {name for path in files for name in re.findall(r"telegram_secrets\.(\w+)", path.read_text())}


def _template(source: str, folder: Path, name: str, given: Task, again: Task) -> Task:
    return {"ansible.builtin.template": {"src": source, "dest": f"{folder}/{name}"}, "vars": given, **again}


def _load(path: Path) -> list[Task]:
    loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded if isinstance(loaded, list) else []


def _flat(tasks: list[Task]) -> Iterator[Task]:
    """`tasks` and those within their blocks."""
    for task in tasks:
        yield task
        for key in ("block", "rescue", "always"):
            yield from _flat(task.get(key, []))
