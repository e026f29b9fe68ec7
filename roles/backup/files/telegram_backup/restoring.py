"""From a set back to a host, or into a scratch place that proves it could be."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from . import sets
from .pgbackrest import STANZA, PgBackRest
from .recovery import Recovery
from .restic import Restic
from .tools import BackupError, Database, Settings, empty, need_space

GATEWAY_USER = "telegram-gateway"
SPARE = 512 << 20
"""The log that is read while recovering, and what a server needs to start."""


def check(settings: Settings, wanted: str, until: str, data: Path | None) -> dict[str, Any]:
    """The catalogue of the set that a restore would take; changes nothing. Raises BackupError where it would fail."""
    restic = Restic(settings)
    restic.open()
    snapshot = sets.find(restic, wanted, until)
    catalogue = sets.catalogue(settings, restic, snapshot)
    need_space(settings.state_dir, restic.size(snapshot) * 2, what=f"restoring the files of set {catalogue['set']}")
    if data:
        _need_database_space(catalogue, data)
    return catalogue


def files(settings: Settings, wanted: str) -> list[str]:
    """Put the gateway's session, spool and photos where they were, and everything else below `restored`. Says what.

    Raises BackupError where the gateway has a session or a spool already.
    """
    restic = Restic(settings)
    snapshot = sets.find(restic, wanted)
    catalogue = sets.catalogue(settings, restic, snapshot)
    restored = empty(settings.state_dir / "restored")
    restic.restore(snapshot, restored)
    staged = _below(restored, settings.staging)
    said = [f"settings and definitions of {snapshot.tag('name')} for looking things up: {restored}"]
    gateways = [catalogue["gateway"], *catalogue.get("accounts", [])] if catalogue.get("gateway") else []
    moves: dict[Path, Path] = {}
    for number, gateway in enumerate(gateways):
        folder = Path(gateway["folder"])
        found = sorted(_below(restored, folder).glob("*"))
        moves |= {path: folder / path.name for path in found if path.name != sets.ACCOUNTS}
        if (copy := staged / sets.spool_name(number)).exists():
            moves[copy] = Path(gateway["spool"])
    for target in moves.values():
        if target.exists():
            raise BackupError(f"{target} exists already and is not replaced; move it away, then restore again")
    for source, target in moves.items():
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        shutil.move(source, target)
        said.append(str(target))
    if gateways:
        folder = Path(gateways[0]["folder"])
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, GATEWAY_USER, GATEWAY_USER)
    return said


def database(settings: Settings, wanted: str, until: str, data: Path) -> dict[str, Any]:
    """Restore the database into the empty folder `data`, compare it, recover what came after. Raises BackupError."""
    configured = _database(settings)
    restic = Restic(settings)
    catalogue = sets.catalogue(settings, restic, sets.find(restic, wanted))
    limit = sets.moment(until).isoformat() if until else ""
    archive = f"pgbackrest --config={configured.pgbackrest_config} --stanza={STANZA} archive-push %p"
    recovery = Recovery(configured, data, settings.state_dir / "recovery")
    try:
        _compare(configured, recovery, catalogue, data, archive)
        reached = recovery.go_on(limit)
    finally:
        recovery.stop()
    tables = catalogue["database"]["tables"]
    rows = sum(table["rows"] for table in tables.values())
    return {"set": catalogue["set"], "tables": len(tables), "rows": rows, "reached": reached}


def test(settings: Settings) -> str:
    """Restore the newest set into a scratch place and compare it; a sentence about it. Raises BackupError."""
    restic = Restic(settings)
    restic.open()
    snapshot = sets.find(restic, "latest")
    catalogue = sets.catalogue(settings, restic, snapshot)
    scratch = empty(settings.scratch)
    try:
        need_space(scratch, restic.size(snapshot), what="the restore test")
        restic.restore(snapshot, scratch / "files")
        said = f"set {catalogue['set']}: files read back"
        if "database" in catalogue:
            configured = _database(settings)
            _need_database_space(catalogue, scratch)
            scratch.chmod(0o711)  # the database's user goes through
            data = empty(scratch / "data", "postgres")
            recovery = Recovery(configured, data, scratch / "server")
            try:
                _compare(configured, recovery, catalogue, data, "/bin/false")
            finally:
                recovery.stop()
            said += f", {len(catalogue['database']['tables'])} tables equal in count and checksum"
        restic.check()
    finally:
        empty(settings.scratch)
    return said


def _compare(
    configured: Database, recovery: Recovery, catalogue: dict[str, Any], data: Path, archive_command: str
) -> None:
    """Restore up to the set's restore point. Raises BackupError with what differs from the catalogue."""
    wanted = catalogue["database"]
    PgBackRest(configured).restore(data, wanted["label"], wanted["restore_point"])
    recovery.start(wanted["preload"], archive_command)
    different = recovery.differences(wanted["tables"])
    if different:
        raise BackupError(f"set {catalogue['set']} came back otherwise than it was stored: {'; '.join(different)}")


def _database(settings: Settings) -> Database:
    if not settings.database:
        raise BackupError("this host has no database of the stack: the settings name none")
    return settings.database


def _need_database_space(catalogue: dict[str, Any], data: Path) -> None:
    if "database" not in catalogue:
        raise BackupError(f"set {catalogue['set']} of {catalogue['host']} holds no database; take one that does")
    needed = int(catalogue["database"]["bytes"] * 1.1) + SPARE
    need_space(data, needed, what=f"restoring the database of set {catalogue['set']}")


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")
