"""The demo's own decisions: when it deploys again, what it shows, what it leaves alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import bootstrap, demo, demo_legacy, demo_page, demo_stack, playbook
from tools.simulator import Simulator


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small checkout whose demo was deployed."""
    for folder in demo_stack.SOURCES:
        (tmp_path / folder / "part").mkdir(parents=True)
        (tmp_path / folder / "part" / "main.yml").write_text(folder)
    variables, secrets = tmp_path / "variables.json", tmp_path / "inventories/demo/telegram_secrets.yml"
    variables.write_text("{}")
    secrets.write_text("{}")
    deployed = tmp_path / "deployed"
    deployed.write_text(demo_stack.digest(tmp_path, variables))
    monkeypatch.setattr(demo_stack, "digest", lambda digest=demo_stack.digest: digest(tmp_path, variables))
    for name, path in {"ROOT": tmp_path, "VARIABLES": variables, "SECRETS": secrets, "DEPLOYED": deployed}.items():
        monkeypatch.setattr(demo_stack, name, path)
    return tmp_path


def test_nothing_is_deployed_again_while_nothing_changed(checkout: Path) -> None:
    assert demo_stack.outdated() is None
    for made in ("roles/part/__pycache__/x.pyc", "roles/common/files/wheels/x.whl", "services/x.egg-info/PKG-INFO"):
        (checkout / made).parent.mkdir(parents=True)
        (checkout / made).write_text("made while deploying")
    assert demo_stack.outdated() is None


@pytest.mark.parametrize("folder", demo_stack.SOURCES)
def test_a_changed_source_is_deployed_again(checkout: Path, folder: str) -> None:
    (checkout / folder / "part" / "main.yml").write_text("other")
    assert "changed" in str(demo_stack.outdated())


def test_a_removed_or_renamed_source_is_deployed_again(checkout: Path) -> None:
    (checkout / "sql/part/main.yml").rename(checkout / "sql/part/other.yml")
    assert "changed" in str(demo_stack.outdated())


@pytest.mark.parametrize(
    ("path", "gone", "reason"),
    [
        ("deployed", True, "completed"),
        ("variables.json", True, "completed"),
        ("variables.json", False, "changed"),
        ("inventories/demo/telegram_secrets.yml", True, "telegram_secrets.yml is gone"),
    ],
)
def test_what_the_demo_keeps_is_needed(checkout: Path, path: str, gone: bool, reason: str) -> None:
    (checkout / path).unlink() if gone else (checkout / path).write_text("[]")
    assert reason in str(demo_stack.outdated())


@pytest.fixture
def steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None, str], list[str]]:
    """What `up` does, given why the host is outdated and its health."""

    def run(outdated: str | None, status: str) -> list[str]:
        done: list[str] = []
        row = {"host": "demo", "component": "Redis primary", "version": "", "port": 6379, "unit": ""}
        row |= {"problem": "", "note": ""}
        report = {
            "status": status,
            "summary": "Redis primary failed",
            "components": [row | {"status": status, "action": ""}],
        }
        well = {"status": "ok", "components": [row | {"status": "ok", "action": ""}]}
        message = dict.fromkeys(demo_page.STAGES, 0.0) | {"channel": "-1001", "message": "7"}
        monkeypatch.setattr(demo, "STATE", tmp_path)
        monkeypatch.setattr(demo_stack, "boot", lambda _name: ("192.0.2.11", False))
        monkeypatch.setattr(demo, "start_simulator", lambda simulator: done.append(f"simulator {simulator.address}"))
        monkeypatch.setattr(demo_stack, "outdated", lambda: outdated)

        def noted(step: str, answer: dict[str, Any]) -> dict[str, Any]:
            done.append(step)
            return answer

        monkeypatch.setattr(demo_stack, "health", lambda _wait: noted("health", report))
        monkeypatch.setattr(demo_stack, "deploy", lambda: noted("deploy", well))
        monkeypatch.setattr(demo_stack, "path_of_one_message", lambda: message)
        demo.up()
        return done

    return run


def test_a_demo_that_is_well_is_only_looked_at(
    steps: Callable[[str | None, str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps(None, "ok") == ["simulator 192.0.2.1", "health"]
    shown = capsys.readouterr().out
    assert "already there, up to date and well" in shown
    assert all(text in shown for text in ("Redis primary", "http://192.0.2.11:4010/\n", "message 7 of channel -1001"))


def test_a_demo_that_is_not_well_is_deployed_again_and_says_why(
    steps: Callable[[str | None, str], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert steps(None, "failed") == ["simulator 192.0.2.1", "health", "deploy"]
    assert "needs a deployment: Redis primary failed." in capsys.readouterr().out


def test_an_outdated_demo_is_deployed_without_asking_first(steps: Callable[[str | None, str], list[str]]) -> None:
    assert steps("services have changed", "ok") == ["simulator 192.0.2.1", "deploy"]


def test_the_printed_commands_read_the_secrets_and_the_page_shows_none(tmp_path: Path) -> None:
    secrets = tmp_path / "telegram_secrets.yml"
    known = {
        "rabbitmq_admin": "-_for1the2queue",
        "rabbitmq_monitor": "other",
        "api_token_read": "for-the_api",
        "monitoring_web": "for_the-monitoring",
    }
    secrets.write_text("# Secrets\n" + yaml.safe_dump({"telegram_secrets": known}))
    page = demo_page.addresses("192.0.2.11", str(secrets))
    assert not [value for value in known.values() if value in page]

    passwords = re.findall(r"password: (.*)", page)
    token = next(line for line in page.splitlines() if "api_token_read" in line).partition(" | curl")[0]
    answers = [subprocess.check_output(["sh", "-c", line], text=True) for line in (*passwords, token)]
    assert answers == ["for_the-monitoring\n", "-_for1the2queue\n", "X-API-Key: for-the_api\n"]


@pytest.fixture
def legacy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """What `demo_legacy.up` runs, when the playbook succeeds or fails."""

    def run(succeeds: bool) -> list[str]:
        ran: list[str] = []

        def play(playbook: str, _variables: object, log: Path, *, progress: bool, inventory: Path) -> bool:
            log.write_text("fatal: [legacy]: no room")
            hosts = json.loads(inventory.read_text())["all"]
            assert progress and hosts["children"]["telegram_gateway"]["hosts"] == {"legacy": {}} == hosts["hosts"]
            assert hosts["vars"]["migration_source_host"] == "192.0.2.11"
            ran.append(playbook)
            return succeeds

        def begun(simulator: Simulator, channels: int, sessions: list[str]) -> None:
            assert (channels, sessions) == (0, [])
            (simulator.folder.parent / "public-key").write_text("key")

        monkeypatch.setattr(demo_stack, "ROOT", tmp_path)
        monkeypatch.setattr(demo_stack, "boot", lambda _name: ("192.0.2.11", False))
        monkeypatch.setattr(demo_stack, "targets", lambda *_words: '{"legacy": {}}')
        for name in ("STATE", "INVENTORY", "INSTALLED"):
            monkeypatch.setattr(demo_legacy, name, tmp_path / name.lower() if name != "STATE" else tmp_path)
        monkeypatch.setattr(demo_legacy, "start_with_sessions", begun)
        monkeypatch.setattr(Simulator, "ask", lambda _self, _method, _path, _body=None: {"running": True})
        monkeypatch.setattr(playbook, "run", play)
        demo_legacy.up()
        return ran

    return run


def test_a_legacy_system_is_installed_once_since_it_may_be_migrated_meanwhile(
    legacy: Callable[[bool], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert legacy(True) == ["tests/legacy/install.yml"]
    assert legacy(True) == []
    shown = capsys.readouterr().out
    assert ".venv/bin/ansible-playbook migrate.yml -i inventory --check" in shown
    assert "pass_timescale" not in shown


def test_an_installation_of_the_legacy_system_that_failed_is_tried_again(legacy: Callable[[bool], list[str]]) -> None:
    with pytest.raises(SystemExit, match=r"(?s)no room.*Try again: make demo-legacy"):
        legacy(False)
    assert legacy(True) == ["tests/legacy/install.yml"]


def test_the_path_of_a_message_counts_from_its_receipt() -> None:
    times = dict(zip(demo_page.STAGES, (1.0, 1.002, 1.0114, 1.0082, 1.0046, 61.0165), strict=True))
    lines = demo_page.path({"channel": "-1001", "message": "599", **times}).splitlines()
    assert lines[0] == "The path of message 599 of channel -1001:"
    assert lines[1].split() == ["received", "00:00:01.000", "UTC", "+", "0.0", "ms"]
    assert lines[-1].split() == ["consumed", "00:01:01.016", "UTC", "+", "60016.5", "ms"]


OUTPUT = """
PLAY [Set up the cache] ***

TASK [tradingsystem.telegram_stack.redis_sentinel : Install Redis] ***
ok: [demo]

TASK [tradingsystem.telegram_stack.redis_sentinel : Start Redis] ***
[ERROR]: Task failed: no such unit
fatal: [demo]: FAILED! => {"msg": "no such unit"}

PLAY RECAP ***
demo : ok=1 failed=1
"""


def test_of_a_failed_deployment_the_failed_step_alone_is_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(OUTPUT)
    shown = playbook.failure(tmp_path / "log")
    assert shown.startswith("TASK [tradingsystem.telegram_stack.redis_sentinel : Start Redis]")
    assert shown.endswith('FAILED! => {"msg": "no such unit"}')


def test_of_a_playbook_that_did_not_begin_the_last_words_are_shown(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("[ERROR]: the playbook could not be found\n")
    assert playbook.failure(tmp_path / "log") == "[ERROR]: the playbook could not be found"


def test_progress_names_the_plays_with_their_time(capsys: pytest.CaptureFixture[str]) -> None:
    for line in OUTPUT.splitlines():
        playbook._show(line, 95.4)
    assert capsys.readouterr().out == "   1:35  Set up the cache\n"


def test_a_foreign_process_with_the_simulators_old_id_is_left_alone(tmp_path: Path) -> None:
    simulator = Simulator(tmp_path, "127.0.0.1", 1)
    (tmp_path / "pid").write_text(str(os.getpid()))
    assert simulator.pid() is None
    simulator.stop()
    assert not (tmp_path / "pid").exists()


def test_a_failed_step_of_the_set_up_shows_its_words_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"(?s)no index here.*\nThe tools are missing, then run make again\."):
        bootstrap.run("The tools are missing", "sh", "-c", "echo no index here; exit 1")
    bootstrap.run("never said", "sh", "-c", "echo noise")
    assert capsys.readouterr().out == ""
