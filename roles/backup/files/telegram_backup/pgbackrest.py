"""The encrypted repository of the database: pgBackRest, called as a program."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from .tools import AS_POSTGRES, BackupError, Database, call, parsed

DAY = 86_400
STANZA = "telegram"


class PgBackRest:
    """The stanza of `database`."""

    def __init__(self, database: Database) -> None:
        self._base = [*AS_POSTGRES, "pgbackrest", f"--config={database.pgbackrest_config}", f"--stanza={STANZA}"]

    def _call(self, *words: str, what: str) -> bytes:
        return call([*self._base, *words], what=what)

    def backups(self) -> list[dict[str, Any]]:
        """What pgBackRest has, the oldest first. Raises BackupError."""
        said = parsed(self._call("--output=json", "info", what="asking pgBackRest"), what="pgBackRest")
        if len(said) != 1 or said[0]["status"]["code"] not in (0, 2):  # 2: no backup yet
            reason = said[0]["status"]["message"] if said else "it knows no stanza"
            raise BackupError(f"asking pgBackRest failed: {reason}")
        return list(said[0]["backup"])

    def backup(self, full_days: int) -> dict[str, Any]:
        """Make one, full where the last full one is older; what pgBackRest says of it."""
        kind = kind_due(self.backups(), time.time(), full_days)
        self._call(f"--type={kind}", "backup", what=f"the {kind} backup of the database")
        return self.backups()[-1]

    def check(self) -> None:
        """Have the write-ahead log up to now in the repository. Raises BackupError."""
        self._call("check", what="archiving the database's write-ahead log")

    def restore(self, data: Path, label: str, restore_point: str) -> None:
        """Write backup `label` into the empty folder `data`, to be recovered up to `restore_point` and no further."""
        words = [f"--pg1-path={data}", f"--set={label}", "--type=name", f"--target={restore_point}"]
        words += ["--target-action=pause", "restore"]
        self._call(*words, what=f"restoring the database from {label}")

    def expire(self, kept: Collection[str]) -> None:
        """Drop what no label of `kept` needs."""
        for label in expired(self.backups(), kept):
            self._call(f"--set={label}", "expire", what=f"dropping the old database backup {label}")


def kind_due(backups: Sequence[dict[str, Any]], now: float, full_days: int) -> str:
    """`full` or `diff`. Half a day of grace, or the day of the full backup would wander."""
    fulls = [entry["timestamp"]["stop"] for entry in backups if entry["type"] == "full"]
    return "diff" if fulls and now - max(fulls) < (full_days - 0.5) * DAY else "full"


def expired(backups: Sequence[dict[str, Any]], kept: Collection[str]) -> list[str]:
    """Labels to drop: neither kept nor needed by one that is kept. Differences first: a full one takes all along."""
    if not set(kept) & {entry["label"] for entry in backups}:
        return []  # nothing matches: something is wrong, and dropping everything would not mend it
    priors = {entry["label"]: entry.get("prior") for entry in backups}
    needed = set(kept)
    for label in kept:
        while label := priors.get(label) or "":
            needed.add(label)
    return sorted((label for label in priors if label not in needed), key=lambda label: (priors[label] is None, label))
