"""The installed collection under the oldest ansible-core that it allows, and under the one of the tools."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.integration.installed import PROGRAMS, call, content
from tests.integration.servers import ROOT
from tests.unit.test_wheelhouse import wheelhouse

NAME = "tradingsystem.telegram_stack"
OLDEST = "2.18"
LOCK = ROOT / "requirements" / f"ansible-{OLDEST}.lock"
ONE_HOST = ROOT / "inventories/single/hosts.yml"


@dataclass(frozen=True)
class Core:
    """One ansible-core: where its programs are, and where it finds our collection and those that ours needs."""

    programs: Path
    path: str

    def run(self, program: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run its `program` in `folder`."""
        return call(self.programs / program, self.path, folder, *arguments)

    def play(self, folder: Path, *tasks: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run `tasks` on this machine."""
        (folder / "play.json").write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
        (folder / "hosts.ini").write_text(
            f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}"
        )
        return self.run("ansible-playbook", folder, "play.json", "-i", "hosts.ini")


def oldest() -> Path:
    """The programs of the oldest ansible-core, installed from its lock into this user's cache."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    cache: Path = wheelhouse.cache_folder().with_name(f"ansible-{python}-{wheelhouse.digest(LOCK)[:12]}")
    if not (cache / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", cache], check=True)
        pip = [str(cache / "bin/python"), "-m", "pip", "--disable-pip-version-check", "install", "--no-compile"]
        subprocess.run([*pip, "--quiet", "--require-hashes", "--requirement", str(LOCK)], check=True)
        (cache / ".complete").touch()
    return cache / "bin"


@pytest.fixture(scope="module", params=[OLDEST, "of the tools"])
def core(request: pytest.FixtureRequest, collections: Path) -> Core:
    """Each ansible-core; the collections that ours needs come from the tools' package `ansible`."""
    others = importlib.metadata.distribution("ansible").locate_file("")
    return Core(oldest() if request.param == OLDEST else PROGRAMS, f"{collections}:{others}")


def test_these_are_the_oldest_allowed_and_a_newer_one(core: Core, tmp_path: Path) -> None:
    allowed = yaml.safe_load((ROOT / "meta/runtime.yml").read_text())["requires_ansible"]
    assert allowed == f">={OLDEST}.0"
    said = core.run("ansible", tmp_path, "--version").stdout.splitlines()[0]
    version = tuple(map(int, said.split("core ")[1].rstrip("]").split(".")))
    old = version[:2] == (2, 18)
    assert old == (core.programs != PROGRAMS), said
    assert version >= (2, 18), said


def test_every_playbook_is_found_by_its_name_and_has_no_error_of_syntax(
    core: Core, collections: Path, tmp_path: Path
) -> None:
    playbooks = sorted(content(collections).glob("playbooks/*.yml"))
    names = [f"{NAME}.{path.stem}" for path in playbooks]
    assert f"{NAME}.deploy" in names
    done = core.run("ansible-playbook", tmp_path, "--syntax-check", "-i", str(ONE_HOST), *names)
    assert done.returncode == 0, done.stdout
    assert [f"playbook: {path}" for path in playbooks] == [
        line for line in done.stdout.splitlines() if line.startswith("playbook: ")
    ]
    assert "DEPRECAT" not in done.stdout


@pytest.mark.parametrize("kind", ["module", "role", "filter"])
def test_everything_is_documented(core: Core, collections: Path, tmp_path: Path, kind: str) -> None:
    root = content(collections)
    there = {
        "module": {path.stem for path in root.glob("plugins/modules/*.py")},
        "role": {path.parent.parent.name for path in root.glob("roles/*/tasks/main.yml")},
        "filter": filters(root),
    }[kind]
    assert len(there) > 3
    names = sorted(f"{NAME}.{name}" for name in there)
    done = core.run("ansible-doc", tmp_path, "--type", kind, "--json", *names)
    assert done.returncode == 0, done.stdout
    told = json.loads(done.stdout[done.stdout.index("{") :])
    assert sorted(told) == names, done.stdout[:1000]
    for name, of_it in told.items():
        if kind == "role":
            assert of_it["entry_points"]["main"]["short_description"], name
        else:  # a file of several filters may lend all of them the words of one
            assert f"{NAME}.{of_it['doc'].get('name') or of_it['doc']['module']}" == name


def filters(root: Path) -> set[str]:
    """The filters that roles and playbooks of the collection at `root` use."""
    files = [path for folder in ("roles", "playbooks") for path in (root / folder).rglob("*.yml")]
    return {name for path in files for name in re.findall(rf"\|\s*{NAME}\.(\w+)", path.read_text())}


def test_a_setting_of_the_wrong_type_is_refused_by_the_specs_of_its_role(core: Core, tmp_path: Path) -> None:
    role = {"ansible.builtin.include_role": {"name": f"{NAME}.common"}, "vars": {"telegram_pgbouncer_port": "many"}}
    refused = core.play(tmp_path, role)
    said = " ".join(refused.stdout.split())
    assert refused.returncode == 2, said
    assert "Validating arguments against arg spec 'main'" in said
    assert re.search(r"'?telegram_pgbouncer_port'? is of type .*? unable to convert to int", said), said
    assert "ok=1 changed=0" in said


def test_module_action_and_filter_work(core: Core, tmp_path: Path) -> None:
    state = {"path": str(tmp_path / "migration/state.json"), "textfiles": str(tmp_path)}
    inputs = f"{{{{ 'SOURCE=nowhere' | {NAME}.env_file }}}}"
    done = core.play(
        tmp_path,
        {f"{NAME}.migration_state": {**state, "operation": "open", "inputs": inputs}},
        {f"{NAME}.migration_state": state, "register": "read"},
        {f"{NAME}.say": {"text": "From {{ read.state.inputs.SOURCE }}"}},
    )
    assert done.returncode == 0, done.stdout
    assert "From nowhere" in done.stdout.splitlines()
    assert "ok=3 changed=1" in " ".join(done.stdout.split())
