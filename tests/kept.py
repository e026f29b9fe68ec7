"""What a long run has measured so far: kept in a file for the next run to go on with, and told on a page."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"

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


def tell(page: Path, measured: str) -> None:
    """Replace what stands between the marks of `page`, which keeps its own words."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, found, after = rest.partition(END)
    assert found, f"{page} has lost its marks: {BEGIN} and {END}"
    page.write_text(f"{before}{BEGIN}\n{measured}\n{END}{after}")
