"""Packages from npm for the tests, as a lock file pins them; fetched once into the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def missing() -> str:
    """Which of the two programs are not installed; empty when both are."""
    return " and ".join(name for name in ("node", "npm") if shutil.which(name) is None)


def installed(source: Path) -> Path:
    """A folder with the packages of `source`/package-lock.json; raises CalledProcessError when npm cannot get them."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telegram-stack"
    lock = (source / "package-lock.json").read_bytes()
    folder = cache / f"npm-{source.name}-{hashlib.sha256(lock).hexdigest()[:10]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(source / file, name)
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            subprocess.run(["npm", "ci", *options, "--prefix", name], check=True, timeout=300)
            with contextlib.suppress(FileExistsError, OSError):  # another run was faster
                Path(name).rename(folder)
                Path(name).mkdir()
    return folder
