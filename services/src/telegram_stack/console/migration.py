"""How far the migration from the legacy system is, where there was one."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

TITLES = (
    "preflight",
    "backup",
    "installation",
    "schema",
    "backfill",
    "delta",
    "verification",
    "fence",
    "final delta",
    "cut-over",
    "smoke test",
    "soak",
)
"""As the playbook and its runbook call them."""


class Phase(msgspec.Struct, frozen=True):
    """One phase of it."""

    status: Literal["begun", "done", "failed"]
    begun_at: datetime | None = None
    finished_at: datetime | None = None


class Progress(msgspec.Struct, frozen=True):
    """What module migration_state lets everybody read: no settings, no errors, no evidence."""

    begun_at: datetime
    updated_at: datetime
    outcome: str | None
    phases: dict[str, Phase]

    def titled(self) -> list[tuple[int, str, Phase | None]]:
        """Every phase by its number, with its title; None for those that have not begun."""
        return [(number, title, self.phases.get(str(number))) for number, title in enumerate(TITLES)]


def progress(file: str) -> Progress | str | None:
    """What `file` says; why it cannot be read; None where there is no migration."""
    if not file:
        return None
    try:
        return msgspec.json.decode(Path(file).read_bytes(), type=Progress)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        return f"{file} cannot be read: {error}"
