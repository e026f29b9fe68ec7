"""The encrypted repository of files: restic, called as a program."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .tools import BackupError, Settings, call, parsed


class Snapshot(NamedTuple):
    """One entry of the repository."""

    id: str
    time: str
    tags: tuple[str, ...]

    def tag(self, name: str) -> str:
        """What stands behind `name=` in its tags; empty where nothing does."""
        return next((tag.partition("=")[2] for tag in self.tags if tag.startswith(f"{name}=")), "")


class Restic:
    """The repository of `settings`, of which this host sees its own entries."""

    def __init__(self, settings: Settings) -> None:
        self._where = settings.repository
        self._host = settings.host
        self._environment = settings.environment
        self._base = ["restic", f"--repo={settings.repository}", f"--password-file={settings.passphrase_file}"]
        self._base.append(f"--cache-dir={settings.state_dir / 'cache'}")

    def _call(self, *words: str, what: str, stdin: bytes | None = None) -> bytes:
        return call([*self._base, *words], what=what, environment=self._environment, stdin=stdin)

    def open(self) -> None:
        """Raises BackupError where there is no repository, or the passphrase is not its."""
        try:
            self._call("cat", "config", what=f"opening the backup repository {self._where}")
        except BackupError as error:
            if "wrong password" in str(error):
                raise BackupError(
                    f"the passphrase does not open the backup repository {self._where}. Nothing was changed: "
                    "give the one with which it was made (backup_passphrase in the secrets file of that time)"
                ) from error
            raise

    def exists(self) -> bool:
        """Whether there is a repository that opens. Raises BackupError for one that does not."""
        try:
            self.open()
        except BackupError as error:
            if any(words in str(error) for words in ("Is there a repository", "does not exist")):
                return False
            raise
        return True

    def create(self) -> None:
        """Make the repository. Raises BackupError."""
        self._call("init", what=f"making the backup repository {self._where}")

    def unlock(self) -> None:
        """Take away what a killed run left. Raises BackupError as `open` does."""
        self.open()
        self._call("unlock", what=f"unlocking {self._where}")

    def backup(self, paths: Sequence[Path], tags: Sequence[str]) -> str:
        """Store `paths`; the id of the entry. A file that vanished or cannot be read is a failure."""
        words = [f"--tag={tag}" for tag in tags]
        said = self._call("backup", "--json", f"--host={self._host}", *words, *map(str, paths), what="storing files")
        for line in said.splitlines():
            message = parsed(line, what="restic")
            if message.get("message_type") == "summary":
                return str(message["snapshot_id"])
        raise BackupError("storing files failed: restic named no snapshot")

    def store(self, content: bytes, name: str, tag: str) -> None:
        """Store `content` as a file that never stands on a disk."""
        words = ["--stdin", f"--stdin-filename={name}", f"--tag={tag}", f"--host={self._host}"]
        self._call("backup", *words, what=f"storing {name}", stdin=content)

    def snapshots(self, tag: str) -> list[Snapshot]:
        """This host's entries with `tag`, the oldest first."""
        said = self._call("snapshots", "--json", f"--host={self._host}", f"--tag={tag}", what="listing backups")
        found: list[dict[str, Any]] = parsed(said, what="restic") or []
        entries = [Snapshot(each["id"], each["time"], tuple(each.get("tags") or ())) for each in found]
        return sorted(entries, key=lambda entry: entry.time)

    def hosts(self, tag: str) -> list[str]:
        """All that have entries with `tag`."""
        said = self._call("snapshots", "--json", f"--tag={tag}", what="listing backups")
        found: list[dict[str, Any]] = parsed(said, what="restic") or []
        return sorted({each["hostname"] for each in found})

    def dump(self, snapshot: Snapshot, path: Path) -> bytes:
        """The content of one file of an entry."""
        return self._call("dump", snapshot.id, str(path), what=f"reading {path} of backup {snapshot.id[:8]}")

    def size(self, snapshot: Snapshot) -> int:
        """How many bytes the files of an entry take."""
        said = self._call("stats", "--json", "--mode=restore-size", snapshot.id, what="measuring a backup")
        return int(parsed(said, what="restic")["total_size"])

    def restore(self, snapshot: Snapshot, target: Path, *options: str) -> None:
        """Write the entry's files below `target` and read them again."""
        words = ["restore", snapshot.id, f"--target={target}", "--verify", *options]
        self._call(*words, what=f"restoring backup {snapshot.id[:8]}")

    def forget(self, tag: str, keep: Sequence[str]) -> None:
        """Drop the entries with `tag` that no rule of `keep` holds, and what only they needed."""
        words = ["forget", "--prune", "--group-by=host", f"--host={self._host}", f"--tag={tag}", *keep]
        self._call(*words, what="dropping old backups")

    def check(self) -> None:
        """Look through the repository. Raises BackupError for damage."""
        self._call("check", what=f"checking {self._where}")
