"""The lab: everything on disk that belongs to the targets of one checkout."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tools.targets.errors import TargetError

CHECKOUT = Path(__file__).resolve().parents[2]
FIRST_HOST, LAST_HOST = 11, 250
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True)
class Machine:
    """What is written down about one target."""

    name: str
    host: int
    """Last number of its address."""
    suite: str
    origin: str
    """What it started from: a suite or a snapshot."""
    layers: tuple[str, ...]
    """Names of the read-only layers below it, top first."""


@dataclass(frozen=True)
class Snapshot:
    """A saved target that others can start from."""

    name: str
    host: int
    suite: str
    layers: tuple[str, ...]


@dataclass(frozen=True)
class Lab:
    """Where the targets of one checkout live."""

    root: Path

    @classmethod
    def here(cls) -> "Lab":
        """The lab of this checkout; TARGETS_LAB names another folder, for a second lab beside it."""
        chosen = os.environ.get("TARGETS_LAB")
        if chosen:
            return cls(Path(chosen).resolve())
        return cls(Path("/var/lib/telegram-stack-targets") / _digest(str(CHECKOUT)))

    @property
    def id(self) -> str:
        """Short name of the lab, the same on every call."""
        return _digest(str(self.root))

    @property
    def key(self) -> Path:
        """Private SSH key that all its targets accept."""
        return self.root / "id_ed25519"

    @property
    def layers(self) -> Path:
        """Read-only file systems: bases and saved targets."""
        return self.root / "layers"

    def folder(self, name: str) -> Path:
        """Folder of one target; raises TargetError when the name cannot be a host name."""
        if not _NAME.fullmatch(name):
            raise TargetError(
                f"'{name}' cannot name a target: use a letter, then letters, digits and '-', 31 at most, lower case."
            )
        return self.root / "machines" / name

    def make(self) -> None:
        """Create the folders."""
        for folder in ("machines", "snapshots", "layers", "locks"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o711)  # the key's own mode protects it; targets' services traverse, nobody lists

    @contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Hold one of the lab's locks: "lab" for the records, "machine-NAME" for one target."""
        with locked(self.root / "locks" / what):
            yield

    def machines(self) -> list[Machine]:
        """Every target, by name."""
        return [
            Machine(**{**record, "layers": tuple(record["layers"])})
            for path in sorted((self.root / "machines").glob("*/machine.json"))
            if (record := _load(path))
        ]

    def machine(self, name: str) -> Machine:
        """One target; raises TargetError when there is none of that name."""
        self.folder(name)
        found = [machine for machine in self.machines() if machine.name == name]
        if not found:
            raise TargetError(f"There is no target '{name}'; create it with: python3 -m tools.targets up {name}")
        return found[0]

    def write_machine(self, machine: Machine) -> None:
        """Record a target."""
        folder = self.folder(machine.name)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "machine.json", json.dumps(asdict(machine)))

    def snapshots(self) -> list[Snapshot]:
        """Every saved target, by name."""
        return [
            Snapshot(**{**record, "layers": tuple(record["layers"])})
            for path in sorted((self.root / "snapshots").glob("*.json"))
            if (record := _load(path))
        ]

    def snapshot(self, name: str) -> Snapshot:
        """One saved target; raises TargetError when there is none of that name."""
        found = [snapshot for snapshot in self.snapshots() if snapshot.name == name]
        if not found:
            known = ", ".join(snapshot.name for snapshot in self.snapshots()) or "none"
            raise TargetError(
                f"There is no saved target '{name}' (saved: {known}); save one with:"
                f" python3 -m tools.targets save NAME {name}"
            )
        return found[0]

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Record a saved target, in place of an older one of that name."""
        self.folder(snapshot.name)
        write(self.root / "snapshots" / f"{snapshot.name}.json", json.dumps(asdict(snapshot)))

    def delete_snapshot(self, snapshot: Snapshot) -> None:
        """Forget a saved target."""
        (self.root / "snapshots" / f"{snapshot.name}.json").unlink()

    def free_host(self, preferred: int) -> int:
        """A host number no target has, `preferred` if that is free."""
        taken = {machine.host for machine in self.machines()}
        if preferred not in taken:
            return preferred
        for host in range(FIRST_HOST, LAST_HOST + 1):
            if host not in taken:
                return host
        raise TargetError("This lab is full; take a target down with: python3 -m tools.targets down NAME")

    def drop_unused_layers(self) -> None:
        """Delete saved layers that no target and no snapshot stands on."""
        owners: list[Machine | Snapshot] = [*self.machines(), *self.snapshots()]
        used = {layer for owner in owners for layer in owner.layers}
        for layer in self.layers.glob("saved-*"):
            if layer.name not in used:
                shutil.rmtree(layer)


def cache() -> Path:
    """What all checkouts of this user share: built root file systems and Debian packages."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    folder = Path(home) / "telegram-stack"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Put `text` at `path` in one step, so that no reader sees half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(text)
    part.chmod(mode)
    part.replace(path)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, created if need be; it ends with the process at the latest."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _load(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:  # taken down between listing and reading
        return None
    return dict(record)
