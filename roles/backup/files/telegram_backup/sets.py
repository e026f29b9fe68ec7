"""A backup set: database, session, spool, photos, broker definitions, settings, and a catalogue of what is in it."""

from __future__ import annotations

import json
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from . import tables
from .pgbackrest import PgBackRest
from .restic import Restic, Snapshot
from .tools import BackupError, Database, Settings, call, empty, gateway_spools, parsed

TAG = "set"
SECRETS = "secrets"
CATALOGUE = "catalogue.json"
SPOOL = "spool.db"
ACCOUNTS = "accounts"
"""Below the gateway's folder: a folder each for the gateways of further accounts."""
DEFINITIONS = "rabbitmq-definitions.json"


def make(settings: Settings) -> str:
    """Make a set, drop those that are too old; a sentence about it. Raises BackupError."""
    begun = time.monotonic()
    restic = Restic(settings)
    restic.unlock()
    name = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    staging = empty(settings.staging)
    catalogue: dict[str, Any] = {"set": name, "host": settings.host, "made_at": datetime.now(UTC).isoformat()}
    try:
        if settings.database:
            catalogue["database"] = database = _database(settings.database, name, settings.full_days)
        paths, catalogue["missing"] = _files(settings)
        catalogue["files"] = [str(path) for path in paths]
        catalogue |= gateways(settings)
        (staging / CATALOGUE).write_text(json.dumps(catalogue, indent=2), encoding="utf-8")
        tags = [TAG, f"name={name}", *([f"label={database['label']}"] if settings.database else [])]
        restic.backup([staging, *paths], tags)
    finally:
        empty(settings.staging)
    _drop_old(settings, restic)
    rows = sum(table["rows"] for table in catalogue.get("database", {}).get("tables", {}).values())
    counted = f"{rows} rows, " if settings.database else ""
    return f"set {name}: {counted}{len(paths)} files and folders in {time.monotonic() - begun:.0f} s"


def listed(restic: Restic) -> list[dict[str, str]]:
    """The sets of this host, the oldest first."""
    return [
        {"set": entry.tag("name"), "time": entry.time, "database": entry.tag("label"), "snapshot": entry.id}
        for entry in restic.snapshots(TAG)
    ]


def find(restic: Restic, wanted: str, before: str = "") -> Snapshot:
    """The set named `wanted`; `latest` is the newest, or the newest made before the time `before`.

    Raises BackupError with the sets that there are.
    """
    entries = restic.snapshots(TAG)
    if wanted == "latest":
        # An entry is written after the moment that its set stands for.
        fitting = [entry for entry in entries if not before or moment(entry.time) <= moment(before)]
    else:
        fitting = [entry for entry in entries if entry.tag("name") == wanted]
    if not fitting:
        names = ", ".join(entry.tag("name") for entry in entries) or "none"
        if not entries and (others := restic.hosts(TAG)):
            names += f". There are sets of {', '.join(others)}: name it in the inventory as the host was named"
        what = f"before {before}" if before and wanted == "latest" else f"named {wanted}"
        raise BackupError(f"there is no backup set {what}; the sets of this host are: {names}")
    return fitting[-1]


def catalogue(settings: Settings, restic: Restic, snapshot: Snapshot) -> dict[str, Any]:
    """What is in a set."""
    found: dict[str, Any] = parsed(restic.dump(snapshot, settings.staging / CATALOGUE), what="the set's catalogue")
    return found


def moment(text: str) -> datetime:
    """A time with its zone, UTC where none is given. Raises BackupError."""
    try:
        given = datetime.fromisoformat(text)
    except ValueError as error:
        raise BackupError(f"{text} is no time; write it like 2026-01-31T17:45:00+00:00") from error
    return (given if given.tzinfo else given.replace(tzinfo=UTC)).astimezone(UTC)


def _database(database: Database, name: str, full_days: int) -> dict[str, Any]:
    """Have pgBackRest make a backup, and count every table at a restore point behind it."""
    pgbackrest = PgBackRest(database)
    backup = pgbackrest.backup(full_days)
    where = (database.socket_dir, database.port, database.name)
    with tables.connect(*where) as reading, tables.connect(*where) as locking:
        point = f"telegram-{name}"
        contents = tables.contents_at(reading, locking, point)
        row = reading.execute(
            "SELECT current_setting('server_version'), current_setting('shared_preload_libraries'),"
            " pg_current_wal_lsn()::text, (SELECT max(name) FROM telegram.schema_migrations),"
            " (SELECT sum(pg_database_size(oid))::bigint FROM pg_database)"
        ).fetchone()
    pgbackrest.check()
    keys = ("version", "preload", "lsn", "schema", "bytes")
    return {
        "label": backup["label"],
        "kind": backup["type"],
        "restore_point": point,
        **dict(zip(keys, row or (), strict=True)),
        "tables": {table: content._asdict() for table, content in contents.items()},
    }


def _files(settings: Settings) -> tuple[list[Path], list[str]]:
    """What is stored as it stands on disk (what changes is copied into staging before); and what is not there."""
    wanted = [Path(path) for path in settings.paths]
    for number, spool in enumerate(gateway_spools(settings.gateway_config)):
        wanted += [
            path
            for path in sorted(spool.parent.iterdir())
            if not path.name.startswith(spool.name) and path.suffix != ".lock" and path.name != ACCOUNTS
        ]
        _copy_spool(spool, settings.staging / spool_name(number))
    if settings.rabbitmq:
        definitions = call(
            ["rabbitmqctl", "--quiet", "export_definitions", "-"], what="asking RabbitMQ for its definitions"
        )
        (settings.staging / DEFINITIONS).write_bytes(definitions)
    return [path for path in wanted if path.exists()], [str(path) for path in wanted if not path.exists()]


def gateways(settings: Settings) -> dict[str, Any]:
    """Where the gateway is, and those of further accounts, for the catalogue."""
    found = [{"folder": str(spool.parent), "spool": str(spool)} for spool in gateway_spools(settings.gateway_config)]
    return {"gateway": found[0] if found else None, "accounts": found[1:]}


def spool_name(number: int) -> str:
    """What the copy of a gateway's spool is called: that of the first, or of a further account."""
    return f"{number}-{SPOOL}" if number else SPOOL


def _copy_spool(spool: Path, copy: Path) -> None:
    """SQLite's own way of copying a file that is written to."""
    if not spool.exists():
        return
    try:
        with closing(sqlite3.connect(spool)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise BackupError(f"copying the gateway's spool {spool} failed: {error}") from error


def _drop_old(settings: Settings, restic: Restic) -> None:
    """restic decides which sets stay; pgBackRest follows."""
    restic.forget(TAG, [f"--keep-{each}={count}" for each, count in settings.keep.items()])
    if settings.database:
        PgBackRest(settings.database).expire({entry.tag("label") for entry in restic.snapshots(TAG)})
