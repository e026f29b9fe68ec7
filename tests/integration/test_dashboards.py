"""Every panel has data on the real chain under load, watched by a real Prometheus with the role's jobs and rules."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from tests.integration.servers import wait_until
from tests.integration.watched import ask_api, disturb, lacks, load, watched
from tests.unit.dashboards import NAMES, board
from tools.dashboards.data import ASKED, WITHOUT_DATA, empty

pytestmark = pytest.mark.skipif(lacks() is not None, reason=str(lacks()))

_NO_SYSTEMD = "the programs are no units here"
NOT_HERE = {
    **{name: reason for name, reason in WITHOUT_DATA.items() if reason is not ASKED},
    "node_systemd_unit_state": _NO_SYSTEMD,
    "telegram_unit_": _NO_SYSTEMD,
}


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    """The address of one that watches a stack on which something happens."""
    with tempfile.TemporaryDirectory(prefix="watched-") as name:
        Path(name).chmod(0o755)
        with watched(Path(name)) as (running, address):
            load(running, 20, 2400)
            disturb(running)
            for _ in range(20):
                ask_api(running)
                time.sleep(0.2)
            yield address


def asked(address: str, path: str) -> Any:
    """The data of an answer of Prometheus."""
    answer = httpx.get(f"{address}/api/v1/{path}")
    assert answer.is_success, answer.text
    return answer.json()["data"]


@pytest.mark.requirement("MO-01")
def test_every_target_of_the_roles_jobs_answers(prometheus: str) -> None:
    def all_up() -> bool:
        targets = asked(prometheus, "targets")["activeTargets"]
        return len(targets) >= 11 and {target["health"] for target in targets} == {"up"}

    wait_until(all_up, 60)


@pytest.mark.requirement("MO-03")
def test_no_panel_is_empty(prometheus: str) -> None:
    boards = [board(name) for name in NAMES]
    missing: dict[str, list[str]] = {}

    def series(expressions: Sequence[str]) -> list[int]:
        return [len(asked(prometheus, f"query?{urlencode({'query': text})}")["result"]) for text in expressions]

    for _ in range(40):  # rates need two scrapes, and rules of objectives a minute
        missing = empty(series, boards, NOT_HERE)
        if not missing:
            break
        time.sleep(3)
    assert missing == {}


@pytest.mark.requirement("MO-02")
def test_every_rule_can_be_computed(prometheus: str) -> None:
    rules = [rule for group in asked(prometheus, "rules")["groups"] for rule in group["rules"]]
    assert len(rules) > 60
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] == "err"} == {}
