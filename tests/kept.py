"""What a long run has measured so far, kept in a file for the next run to go on with."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

T = TypeVar("T", bound=msgspec.Struct)


def load(path: Path, kind: type[T]) -> T:
    """The state of an earlier run, or an empty one."""
    return msgspec.json.decode(path.read_bytes(), type=kind) if path.exists() else kind()


def save(path: Path, state: msgspec.Struct) -> None:
    """Keep it; a kill in between leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(state))
    new.replace(path)
