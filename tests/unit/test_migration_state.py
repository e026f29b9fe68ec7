"""The file in which a migration's progress stands, and who may write it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.modules.migration_state import StateError, operate
from plugins.action.migration_state import has_ended, this_run
from prometheus_client.parser import text_string_to_metric_families

from telegram_stack.console.migration import Progress, progress

ME = {"controller": "ops1", "pid": 4711, "started": "88112", "user": "admin"}
OTHER = {**ME, "controller": "ops2"}
INPUTS = {"source_host": "192.0.2.10", "source_port": 5433}


class State:
    """A file and what is done to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def do(self, operation: str, *, check: bool = False, **options: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "path": str(self.path),
            "operation": operation,
            "phase": None,
            "inputs": INPUTS,
            "evidence": {},
            "error": "",
            "begins": None,
            "undone_from": None,
            "outcome": None,
            "take_over": False,
            "textfiles": str(self.path.parents[1] / "textfiles"),
            "operator": ME,
            **options,
        }
        return dict(operate(given, check))

    def migrate(self, *phases: int) -> None:
        self.do("open")
        for phase in phases:
            self.do("begin", phase=phase)
            self.do("finish", phase=phase, evidence={"rows": phase})

    @property
    def content(self) -> dict[str, Any]:
        return dict(json.loads(self.path.read_text(encoding="utf-8")))


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path / "folder" / "state.json")


def test_a_run_that_ended_is_gone_on_with(state: State) -> None:
    state.migrate(0, 1)
    state.do("begin", phase=2)
    assert state.do("open")["done"] == [0, 1]
    assert state.content["phases"]["1"]["evidence"] == {"rows": 1}
    state.do("begin", phase=2)
    assert state.content["phases"]["2"]["attempts"] == 2


def test_a_phase_may_begin_in_the_write_that_ends_another(state: State) -> None:
    state.migrate(7)
    state.do("begin", phase=8)
    state.do("fail", phase=8, error="away")
    state.do("finish", phase=7, begins=8)
    phases = state.content["phases"]
    assert phases["7"]["status"] == "done"
    assert (phases["8"]["status"], phases["8"]["attempts"]) == ("begun", 2)
    assert "error" not in phases["8"]


def test_only_root_reads_it(state: State) -> None:
    state.migrate(0)
    assert state.path.stat().st_mode & 0o777 == 0o600
    assert state.path.parent.stat().st_mode & 0o777 == 0o700


def test_everybody_reads_how_far_it_is_and_nothing_else(state: State) -> None:
    state.migrate(0)
    state.do("begin", phase=1)
    state.do("fail", phase=1, error="password authentication failed for old_user")
    file = state.path.parent.with_suffix(".json")
    assert file.stat().st_mode & 0o777 == 0o644
    told = progress(str(file))
    assert isinstance(told, Progress)
    assert {number: phase.status for number, phase in told.phases.items()} == {"0": "done", "1": "failed"}
    assert told.phases["0"].finished_at is not None
    for secret in ("old_user", "192.0.2.10", "ops1", "rows"):
        assert secret not in file.read_text()


def test_what_a_failure_has_undone_is_done_again(state: State) -> None:
    state.migrate(6, 7, 8)
    state.do("begin", phase=9)
    assert state.do("fail", phase=9, error="no connection", undone_from=7)["done"] == [6]
    assert {number: phase["status"] for number, phase in state.content["phases"].items()} == {
        "6": "done", "7": "begun", "8": "begun", "9": "failed",
    }  # fmt: skip
    assert state.content["phases"]["7"]["evidence"] == {"rows": 7}


def test_prometheus_is_told_where_something_reads_it(state: State, tmp_path: Path) -> None:
    folder = tmp_path / "textfiles"
    told = folder / "telegram_migration.prom"

    def figures() -> tuple[float, float]:
        found = {family.name: family.samples[0].value for family in text_string_to_metric_families(told.read_text())}
        return found["telegram_migration_phase"], found["telegram_migration_failed"]

    state.do("open")
    assert not folder.exists()
    folder.mkdir()
    state.do("begin", phase=0)
    assert figures() == (-1, 0)
    assert told.stat().st_mode & 0o777 == 0o644
    state.migrate(0, 1)
    assert figures() == (1, 0)
    state.do("begin", phase=2)
    state.do("fail", phase=2, error="the disk is full")
    assert figures() == (1, 1)
    state.do("begin", phase=2)
    assert figures() == (1, 0)
    state.do("fail", phase=2, error="the disk is full")
    state.do("close", outcome="rolled_back")
    assert figures() == (-1, 0)


def test_reading_a_file_that_is_not_there_gives_nothing(state: State) -> None:
    assert state.do("read") == {"changed": False, "state": {}, "done": []}


def test_check_mode_writes_nothing(state: State) -> None:
    assert state.do("open", check=True)["changed"]
    assert not state.path.exists()


def test_other_inputs_are_refused_and_named(state: State) -> None:
    state.migrate(0)
    with pytest.raises(StateError, match=r"source_host was '192\.0\.2\.10', is '192\.0\.2\.99'.*rollback\.yml"):
        state.do("open", inputs={**INPUTS, "source_host": "192.0.2.99"})
    assert state.content["inputs"] == INPUTS


def test_after_a_rollback_a_new_migration_begins_and_the_old_state_is_kept(state: State) -> None:
    state.migrate(0, 1)
    state.do("close", outcome="rolled_back")
    assert state.do("open", inputs={"source_host": "192.0.2.99"})["done"] == []
    [kept] = [path for path in state.path.parent.iterdir() if path != state.path]
    assert json.loads(kept.read_text(encoding="utf-8"))["outcome"] == "rolled_back"


def test_a_second_operator_is_refused_and_told_who_the_first_one_is(state: State) -> None:
    state.migrate(0)
    with pytest.raises(StateError, match=r"admin on ops1 \(process 4711.*migration_take_over=true") as caught:
        state.do("open", operator=OTHER)
    assert caught.value.held_by == ME
    state.do("open", operator=OTHER, take_over=True)
    with pytest.raises(StateError, match="Another operator has taken over"):
        state.do("begin", phase=1)


def test_who_has_ended_the_work_is_in_nobodys_way(state: State) -> None:
    state.migrate(0)
    state.do("close")
    assert state.do("open", operator=OTHER)["done"] == [0]


def test_a_failed_phase_keeps_its_reason_until_it_is_tried_again(state: State) -> None:
    state.migrate(0)
    state.do("begin", phase=1)
    state.do("fail", phase=1, error="no room")
    assert state.do("read")["done"] == [0]
    assert state.content["phases"]["1"]["error"] == "no room"
    state.do("begin", phase=1)
    assert "error" not in state.content["phases"]["1"]


def test_evidence_is_added_to_what_is_there(state: State) -> None:
    state.migrate(0)
    state.do("record", phase=7, evidence={"confirmed": True})
    state.do("finish", phase=7, evidence={"stopped_at": "now"})
    assert state.content["phases"]["7"]["evidence"] == {"confirmed": True, "stopped_at": "now"}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}'])
def test_a_file_of_something_else_is_neither_read_nor_replaced(state: State, content: str) -> None:
    state.path.parent.mkdir()
    state.path.write_text(content, encoding="utf-8")
    with pytest.raises(StateError, match=str(state.path)):
        state.do("open")
    assert state.path.read_text(encoding="utf-8") == content


def test_a_run_of_this_machine_is_known_by_its_process_and_when_that_began() -> None:
    parent = this_run()
    assert parent["pid"] == os.getppid()
    assert not has_ended(parent, parent["controller"])
    assert has_ended({**parent, "started": "1"}, parent["controller"])  # the number was used again
    assert not has_ended({**parent, "started": "1"}, "another machine")
