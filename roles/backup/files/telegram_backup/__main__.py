"""The program `telegram-backup`. Whatever fails is said in one sentence, with exit code 1."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import legacy, record, restoring, sets
from .restic import Restic
from .tools import BackupError, Settings, load

SETTINGS = "/etc/telegram-stack/backup.json"


def main() -> int:
    """Run the command that was asked for."""
    arguments = _arguments()
    try:
        settings = load(arguments.settings)
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        said = arguments.run(settings, arguments)
    except BackupError as error:
        sys.stderr.write(f"{error}.\n")
        return 1
    sys.stdout.write(said if isinstance(said, str) else json.dumps(said, indent=2))
    sys.stdout.write("\n")
    return 0


def _run(settings: Settings, arguments: argparse.Namespace) -> str:
    return _recorded(settings, "backup", lambda: sets.make(settings))


def _test(settings: Settings, arguments: argparse.Namespace) -> str:
    return _recorded(settings, "restore_test", lambda: restoring.test(settings))


def _recorded(settings: Settings, job: str, work: Any) -> str:
    try:
        said = str(work())
    except BackupError as error:
        record.write(settings.state_dir, job, ok=False, detail=str(error))
        raise
    record.write(settings.state_dir, job, ok=True, detail=said)
    return said


def _prepare(settings: Settings, arguments: argparse.Namespace) -> dict[str, bool]:
    """Make the repository where there is none. The passphrase of one that exists has to be right."""
    restic = Restic(settings)
    there = restic.exists()
    if not there:
        restic.create()
    return {"changed": not there}


def _keep_secrets(settings: Settings, arguments: argparse.Namespace) -> dict[str, bool]:
    """Store the secrets file that comes on standard input, unless the newest stored one is the same."""
    restic, content = Restic(settings), sys.stdin.buffer.read()
    stored = restic.snapshots(sets.SECRETS)
    if stored and restic.dump(stored[-1], Path("/secrets.json")) == content:
        return {"changed": False}
    restic.store(content, "secrets.json", sets.SECRETS)
    restic.forget(sets.SECRETS, ["--keep-last=12"])
    return {"changed": True}


def _secrets(settings: Settings, arguments: argparse.Namespace) -> str:
    restic = Restic(settings)
    restic.open()
    stored = restic.snapshots(sets.SECRETS)
    if not stored:
        raise BackupError("the repository holds no secrets of this host")
    return restic.dump(stored[-1], Path("/secrets.json")).decode()


def _check(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    return restoring.check(settings, arguments.set, arguments.until, arguments.data)


def _database(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    return restoring.database(settings, arguments.set, arguments.until, arguments.data)


def _archive(settings: Settings, arguments: argparse.Namespace) -> dict[str, Any]:
    given = json.load(sys.stdin)
    return legacy.make(settings, given["name"], given["paths"], given["source"], given["tables"])


def _archive_restore(settings: Settings, arguments: argparse.Namespace) -> str:
    legacy.restore(settings, arguments.name, arguments.folder, arguments.only)
    return f"archive {arguments.name} is below {arguments.folder}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="telegram-backup", description=__doc__)
    parser.add_argument("--settings", default=SETTINGS)
    commands = parser.add_subparsers(required=True)

    def command(name: str, run: Any, says: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=says)
        made.set_defaults(run=run)
        return made

    command("run", _run, "make a backup set and drop the old ones")
    command("list", lambda settings, _: sets.listed(Restic(settings)), "list the sets of this host as JSON")
    command("test", _test, "restore the newest set into a scratch place and compare it")
    command("prepare", _prepare, "make the repository where there is none")
    command("keep-secrets", _keep_secrets, "store the secrets that come on standard input")
    command("secrets", _secrets, "print the stored secrets")
    command("archive", _archive, "archive a legacy system, described as JSON on standard input")
    for name, run, says in (
        ("check", _check, "say what a restore would take, and whether it could"),
        ("restore-files", lambda settings, given: restoring.files(settings, given.set), "put the gateway's files back"),
        ("restore-database", _database, "restore the database into an empty folder"),
    ):
        restoring_one = command(name, run, says)
        restoring_one.add_argument("--set", default="latest", help="name of a set, or latest")
        restoring_one.add_argument("--until", default="", help="a point in time, like 2026-01-31T17:45:00+00:00")
        restoring_one.add_argument("--data", type=Path, help="folder of the database's data")
    archived = command("archive-restore", _archive_restore, "write an archive's files below a folder")
    archived.add_argument("name")
    archived.add_argument("folder", type=Path)
    archived.add_argument("only", nargs="*", help="paths as they were; all without any")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
