"""Settings of the program, and how it calls others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

AS_POSTGRES = ("runuser", "-u", "postgres", "--")


class BackupError(Exception):
    """What failed, on what, why, and what to do: meant for the operator."""


@dataclass(frozen=True)
class Database:
    """The cluster that is backed up, and how pgBackRest is told about it."""

    pgbackrest_config: str
    bin_dir: str
    socket_dir: str
    port: int
    name: str


@dataclass(frozen=True)
class Settings:
    """The file that the role renders."""

    host: str
    repository: str
    passphrase_file: str
    state_dir: Path
    keep: Mapping[str, int] = field(default_factory=dict)
    full_days: int = 7
    environment: Mapping[str, str] = field(default_factory=dict)
    paths: Sequence[str] = ()
    gateway_config: str = ""
    rabbitmq: bool = False
    database: Database | None = None

    @property
    def staging(self) -> Path:
        """Where copies of what changes all the time wait for restic; emptied by each run."""
        return self.state_dir / "staging"

    @property
    def scratch(self) -> Path:
        """Where restores are tried."""
        return self.state_dir / "scratch"


def load(path: str) -> Settings:
    """Read the settings. Raises BackupError."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
        database = given.pop("database", None)
        given["state_dir"] = Path(given["state_dir"])
        return Settings(**given, database=Database(**database) if database else None)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackupError(f"the settings {path} cannot be used: {error}; run playbooks/deploy.yml again") from error


def gateway_spools(config: str) -> list[Path]:
    """Spools of the gateway and, behind it, of further accounts', as their configurations say; each has a folder."""
    first = Path(config)
    if not config or not first.exists():
        return []
    found = [first, *sorted(first.parent.glob(f"{first.stem}@*{first.suffix}"))]
    return [Path(tomllib.loads(path.read_text(encoding="utf-8"))["spool"]["path"]) for path in found]


def call(
    command: Sequence[str], *, what: str, environment: Mapping[str, str] | None = None, stdin: bytes | None = None
) -> bytes:
    """Run `command`; what it prints. Raises BackupError with its own words where it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, check=False, input=stdin, cwd="/", env={**os.environ, **(environment or {})}
        )
    except OSError as error:
        raise BackupError(f"{what} failed: {error}") from error
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).decode(errors="replace").split())
        raise BackupError(f"{what} failed: {words[-600:] or f'exit code {done.returncode}'}")
    return done.stdout


def parsed(text: bytes, *, what: str) -> Any:
    """JSON of a program's output. Raises BackupError: an answer that is none is a failure."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise BackupError(f"{what} gave no answer that can be read") from error


def empty(folder: Path, owner: str = "root") -> Path:
    """`folder`, there and empty, for `owner` alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    shutil.chown(folder, owner, owner)
    return folder


def need_space(folder: Path, bytes_needed: int, *, what: str) -> None:
    """Raises BackupError where the disk below `folder` has less free."""
    there = folder
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    if free < bytes_needed:
        raise BackupError(
            f"{what} needs {bytes_needed >> 20} MB below {folder}, and {free >> 20} MB are free. "
            "Nothing was changed: make room, then run it again"
        )
