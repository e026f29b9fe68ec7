"""The backup's decisions: what is kept, what a difference is called, what health says of it."""

from __future__ import annotations

import getpass
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from plugins.module_utils import health_record
from plugins.module_utils.health import NoAnswer
from roles.backup.files.telegram_backup import legacy, pgbackrest, record, recovery, restoring, sets, tables, tools
from roles.backup.files.telegram_backup.restic import Snapshot

DAY = 86_400
CONTROLDATA = """\
wal_level setting:                    replica
max_connections setting:              100
max_worker_processes setting:         16
max_wal_senders setting:              10
max_prepared_xacts setting:           0
max_locks_per_xact setting:           64
"""


def backup(label: str, day: float, prior: str | None = None) -> dict[str, Any]:
    kind = "diff" if prior else "full"
    return {"label": label, "type": kind, "prior": prior, "timestamp": {"stop": day * DAY}}


@pytest.mark.parametrize(
    ("backups", "today", "kind"),
    [
        ([], 0.0, "full"),
        ([backup("F", 0)], 1.0, "diff"),
        ([backup("F", 0), backup("F_D", 6, "F")], 6.99, "full"),
        ([backup("F", 0), backup("F_D", 6, "F")], 6.0, "diff"),
    ],
)
def test_a_full_backup_is_due_when_the_last_full_one_is_old(
    backups: list[dict[str, Any]], today: float, kind: str
) -> None:
    assert pgbackrest.kind_due(backups, today * DAY, 7) == kind


def test_what_a_kept_backup_needs_is_kept_and_differences_go_first() -> None:
    backups = [backup("A", 0), backup("A1", 1, "A"), backup("A2", 2, "A"), backup("B", 7), backup("B1", 8, "B")]
    assert pgbackrest.expired(backups, {"A2", "B1"}) == ["A1"]
    assert pgbackrest.expired(backups, {"B"}) == ["A1", "A2", "B1", "A"]


@pytest.mark.parametrize("kept", [set(), {"unknown"}])
def test_a_catalogue_that_names_no_backup_drops_none(kept: set[str]) -> None:
    assert pgbackrest.expired([backup("A", 0), backup("B", 7)], kept) == []


def test_each_table_that_came_back_otherwise_is_named() -> None:
    wanted = {name: {"rows": 2, "checksum": "7"} for name in ("same", "other", "gone")}
    found = {"same": tables.Content(2, "7"), "other": tables.Content(2, "8"), "new": tables.Content(0, "0")}
    assert [sentence.split(":")[0] for sentence in tables.differences(wanted, found)] == ["gone", "new", "other"]


def test_a_standby_gets_its_primarys_limits() -> None:
    assert recovery.limits(CONTROLDATA)["max_connections"] == "100"
    with pytest.raises(tools.BackupError, match="max_wal_senders"):
        recovery.limits(CONTROLDATA.replace("max_wal_senders setting", "max_senders"))


def test_a_point_in_time_without_a_zone_is_utc() -> None:
    assert sets.moment("2026-01-31T17:45:00").isoformat() == "2026-01-31T17:45:00+00:00"
    assert sets.moment("2026-01-31T18:45:00.123456789+01:00").hour == 17  # as restic writes them
    with pytest.raises(tools.BackupError, match="yesterday is no time"):
        sets.moment("yesterday")


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(tools.BackupError, match=r"MB are free. Nothing was changed: make room"):
        tools.need_space(tmp_path / "not" / "there", 1 << 60, what="restoring")
    assert list(tmp_path.iterdir()) == []


def test_an_archived_table_can_be_made_again_on_any_engine() -> None:
    columns = [("id", "uuid"), ('odd "name"', "timestamp with time zone")]
    assert legacy.recreation("telegram_gateway.messages", columns, "m.copy") == (
        'CREATE SCHEMA IF NOT EXISTS "telegram_gateway";\n'
        'CREATE TABLE "telegram_gateway"."messages" (\n  "id" uuid,\n  "odd ""name""" timestamp with time zone\n);\n'
        '\\copy "telegram_gateway"."messages" ("id", "odd ""name""") FROM \'m.copy\'\n'
    )


def test_the_record_keeps_the_last_success_through_failures(tmp_path: Path) -> None:
    record.write(tmp_path, "backup", ok=True, detail="set 1", textfiles=tmp_path)
    first = json.loads((tmp_path / "record.json").read_text())
    record.write(tmp_path, "backup", ok=False, detail="no space", textfiles=tmp_path)
    known = json.loads((tmp_path / "record.json").read_text())
    assert known["backup"]["last_ok"] == first["backup"]["last_ok"]
    assert known["restore_test"]["ok"] is None
    metrics = (tmp_path / "telegram_backup.prom").read_text()
    assert 'telegram_backup_last_run_ok{job_name="backup"} 0' in metrics
    assert 'job_name="restore_test"' not in metrics


@pytest.mark.parametrize(
    ("entry", "status", "says"),
    [
        (health_record.Entry(True, 0, 0, "set 1"), "ok", "set 1, 25 h ago"),
        (health_record.Entry(None, 0, None, "has not run yet"), "ok", "has not run yet"),
        (health_record.Entry(True, -2 * 3600, -2 * 3600, "set 1"), "degraded", "not done for 27 h"),
        (health_record.Entry(None, -2 * 3600, None, "has not run yet"), "degraded", "not done for 27 h"),
        (health_record.Entry(False, 24 * 3600, 0, "no space"), "degraded", "failed 1 h ago: no space"),
    ],
)
def test_health_wants_a_good_run_and_a_late_one(entry: health_record.Entry, status: str, says: str) -> None:
    found = health_record.judge(entry, 25 * 3600, 26)
    assert (found.status, says in found.value) == (status, True), found


@pytest.mark.parametrize("text", [None, "", "{}", '{"backup": {"ok": true}}'])
def test_a_record_that_says_nothing_is_no_answer(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "record.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(NoAnswer):
        health_record.read(str(path), "backup")


class Kept:
    """What restic would keep: whole files at their own paths."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, _settings: tools.Settings) -> Kept:
        return self

    def store(self, paths: list[Path]) -> None:
        for path in paths:
            place = self.folder / path.relative_to("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, place)

    def dump(self, _snapshot: object, path: Path) -> bytes:
        return (self.folder / path.relative_to("/")).read_bytes()

    def restore(self, _snapshot: object, target: Path) -> None:
        shutil.copytree(self.folder, target, dirs_exist_ok=True)


@pytest.mark.requirement("GW-11")
def test_sessions_and_spools_of_all_accounts_are_kept_and_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "gateway"
    folders = {"gateway.toml": first, "gateway@second.toml": first / "accounts" / "second"}
    for number, (config, folder) in enumerate(folders.items()):
        folder.mkdir(parents=True)
        (tmp_path / config).write_text(f'[spool]\npath = "{folder}/spool.db"\n')
        (folder / "session").write_text(f"session {number}")
        with closing(sqlite3.connect(folder / "spool.db")) as spool:
            spool.execute("CREATE TABLE events AS SELECT ? AS number", [number])
            spool.commit()
    settings = tools.Settings("h", "r", "p", tmp_path / "state", gateway_config=str(tmp_path / "gateway.toml"))
    tools.empty(settings.staging)
    paths, missing = sets._files(settings)
    assert (paths, missing) == ([folder / "session" for folder in folders.values()], [])
    catalogue = settings.staging / sets.CATALOGUE
    catalogue.write_text(json.dumps(sets.gateways(settings)))

    kept = Kept(tmp_path / "kept")
    kept.store([*paths, *settings.staging.iterdir()])
    shutil.rmtree(first)
    monkeypatch.setattr(restoring, "Restic", kept)
    monkeypatch.setattr(sets, "find", lambda *_: Snapshot("1", "", ("name=made",)))
    monkeypatch.setattr(restoring, "GATEWAY_USER", getpass.getuser())
    restoring.files(settings, "latest")
    for number, folder in enumerate(folders.values()):
        assert (folder / "session").read_text() == f"session {number}"
        with closing(sqlite3.connect(folder / "spool.db")) as spool:
            assert spool.execute("SELECT number FROM events").fetchall() == [(number,)]
    with pytest.raises(tools.BackupError, match="session exists already and is not replaced"):
        restoring.files(settings, "latest")
