"""The package that users install: its playbooks by their collection names, away from any clone."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import bundle
import pytest
from tests.integration.installed import PROGRAMS, call, content
from tests.integration.servers import ROOT

PARTS = {"hosts_exist", "migrate_phases"}
"""Playbooks that others import."""
PLAYBOOKS = sorted({path.stem for path in (ROOT / "playbooks").glob("*.yml")} - PARTS)
ONE_HOST = (ROOT / "inventories/single/hosts.yml").read_text()


def play(collections: Path, name: str, inventory: str, folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code and output of a playbook called by its collection name, in a folder with nothing but an inventory."""
    (folder / "hosts.yml").write_text(inventory)
    command = (f"tradingsystem.telegram_stack.{name}", *arguments, "-i", "hosts.yml")
    done = call(PROGRAMS / "ansible-playbook", str(collections), folder, *command)
    return done.returncode, " ".join(done.stdout.split())


def test_each_playbook_is_found_by_its_name_and_whole(collections: Path, tmp_path: Path) -> None:
    others = [f"tradingsystem.telegram_stack.{name}" for name in PLAYBOOKS[1:]]
    code, output = play(collections, PLAYBOOKS[0], ONE_HOST, tmp_path, *others, "--list-tasks")
    assert code == 0, output
    installed = content(collections) / "playbooks"
    missing = [name for name in PLAYBOOKS if f"playbook: {installed / name}.yml play #1" not in output]
    assert not missing, output
    assert output.count("Refuse an inventory without hosts of the stack TAGS") >= len(PLAYBOOKS)


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_an_inventory_without_the_stack_is_refused(collections: Path, tmp_path: Path, name: str) -> None:
    code, output = play(collections, name, "all: {hosts: {elsewhere: {ansible_host: 192.0.2.1}}}", tmp_path)
    assert code == 2, output
    assert "Nothing to do: no host is in the group telegram_stack of this inventory." in output


def test_a_misspelt_setting_is_refused_before_the_first_change(collections: Path, tmp_path: Path) -> None:
    inventory = ONE_HOST.replace("ansible_host: 192.0.2.10", "ansible_connection: local\n    telegram_databse_port: 1")
    inventory = inventory.replace("ansible_user: admin", f"ansible_python_interpreter: {sys.executable}")
    code, output = play(collections, "deploy", inventory, tmp_path)
    assert code == 2, output
    assert "telegram_databse_port" in output
    assert "telegram_database_port" in output
    assert "changed=0" in output
    assert not (tmp_path / "group_vars").exists()


@pytest.mark.requirement("OP-06")
def test_a_bundle_is_checked_by_the_package_without_a_clone(collections: Path, tmp_path: Path) -> None:
    folder = content(collections) / "roles/common/files"
    manifest = {"version": "0.0.9", "debian": "13", "machine": "x86_64"}
    bundle.pack({bundle.MANIFEST: json.dumps(manifest), bundle.INDEX: ""}, tmp_path / "bundle.tar")
    command = [sys.executable, str(folder / "bundle.py"), "open", str(tmp_path / "bundle.tar")]
    done = subprocess.run(
        [*command, "--debian", "13", "--machine", "x86_64"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"is for the collection's version 0.0.9, not {bundle.version()}" in done.stderr


def test_the_services_come_from_the_wheel_that_the_package_carries(collections: Path) -> None:
    program = content(collections) / "roles/common/files/wheelhouse.py"
    spec = importlib.util.spec_from_file_location("installed_wheelhouse", program)
    assert spec is not None
    assert spec.loader is not None
    installed = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = installed
    spec.loader.exec_module(installed)
    (wheel,) = installed.origin()
    assert wheel.parent == program.parent / "wheels"
    assert wheel.name.startswith("telegram_stack-")
