"""How the last backup and the last restore test went: for health (JSON) and for the node exporter (text)."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

TEXTFILES = Path("/var/lib/prometheus/node-exporter")
JOBS = ("backup", "restore_test")


def write(state_dir: Path, job: str, *, ok: bool, detail: str, textfiles: Path = TEXTFILES) -> None:
    """Note how `job` ended just now."""
    path = state_dir / "record.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    now = time.time()
    for each in JOBS:  # one that never ran counts from the first run of another
        known.setdefault(each, {"ok": None, "at": now, "last_ok": None, "detail": "has not run yet"})
    known[job] = {"ok": ok, "at": now, "last_ok": now if ok else known[job]["last_ok"], "detail": detail}
    _replace(path, json.dumps(known, indent=2) + "\n")
    if textfiles.is_dir():
        _replace(textfiles / "telegram_backup.prom", metrics(known))


def metrics(known: dict[str, Any]) -> str:
    """The record in Prometheus' format."""
    lines = ["# TYPE telegram_backup_last_success_timestamp_seconds gauge"]
    for job, entry in known.items():
        if entry["last_ok"] is not None:
            lines.append(f'telegram_backup_last_success_timestamp_seconds{{job_name="{job}"}} {entry["last_ok"]:.0f}')
    lines.append("# TYPE telegram_backup_last_run_ok gauge")
    for job, entry in known.items():
        if entry["ok"] is not None:
            lines.append(f'telegram_backup_last_run_ok{{job_name="{job}"}} {int(entry["ok"])}')
    return "\n".join(lines) + "\n"


def _replace(path: Path, text: str) -> None:
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o644)
    new.replace(path)
