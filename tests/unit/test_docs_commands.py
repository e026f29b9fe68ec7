"""What the documents let one type exists: playbooks that a test runs, targets, settings, units, programs, paths."""

from __future__ import annotations

import re

import pytest
from tests.unit.doc_commands import (
    PAGES,
    SHELLS,
    Command,
    blocks,
    commands,
    faults,
    known,
    said_at_a_playbook,
    secrets,
    specs,
)
from tools import metrics

COMMANDS = commands()
_PREFIXES = (
    "gateway|redis_sentinel|pgbouncer|timescaledb|rabbitmq|signal_worker|monitoring|backup|migration|common|legacy_feed"
)
NO_SETTINGS = {"pgbouncer_admin", "pgbouncer_info", "pgbouncer_stats", "gateway_api"}
"""Roles, modules and users whose names begin alike."""


@pytest.mark.requirement("DO-01")
@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_a_command_names_what_is_there(command: Command) -> None:
    assert known(command.words), (
        f"{command}: unknown program; where it cannot be tried, title its block Illustration: …"
    )
    assert faults(command) == []


@pytest.mark.requirement("DO-01")
def test_a_block_says_its_language_and_an_illustration_why_it_is_one() -> None:
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            assert block.language, f"{page.name}: {block.body[:60]}"
            assert not block.title or re.match(r"Illustration: \w+", block.title), f"{page.name}: {block.title}"
            assert block.language not in {"bash", "shell", "shell-session"}, f"{page.name}: say one of {SHELLS}"


@pytest.mark.requirement("DO-01")
def test_settings_that_are_named_exist() -> None:
    there = specs() | secrets() | said_at_a_playbook() | {row.name for row in metrics.known()} | NO_SETTINGS
    for page in PAGES:
        named = set(re.findall(rf"`((?:{_PREFIXES})_[a-z0-9_]*[a-z0-9])(?:`|[:=])", page.read_text(encoding="utf-8")))
        assert named <= there, f"{page.name}: {named - there}"


@pytest.mark.parametrize(
    "words",
    [
        ("ansible-playbook", "playbooks/deploi.yml"),
        ("ansible-playbook", "playbooks/deploy.yml", "-e", "health_formt=json"),
        ("ansible-playbook", "playbooks/deploy.yml", "--tags", "gateway_reload"),
        ("make", "dmeo"),
        ("pytest", "tests/unit/test_nothing.py"),
        ("python", "-m", "tools.nothing"),
        ("python", "-m", "benchmarks.database", "--lines", "3"),
        ("systemctl", "status", "telegram-gatway"),
        ("journalctl", "-u", "telegram-nothing", "-n", "50"),
        ("curl", "-s", "http://127.0.0.1:4006/helth"),
        ("telegram-signal-worker", "repeat"),
        ("telegram-gateway", "--conf", "FILE"),
    ],
    ids=" ".join,
)
def test_what_is_misspelt_is_found(words: tuple[str, ...]) -> None:
    assert faults(Command("docs/made-up.md", words))
