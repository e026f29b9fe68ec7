"""TimescaleDB's community edition for the tests: the WASM build from npm, since no server of it can be installed here.

It serves one session at a time, has no background workers, and every client is its superuser.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.integration.servers import ROOT, Postgres, free_port, wait_until

WASM = ROOT / "tests" / "wasm"


def missing() -> str | None:
    """What keeps this machine from serving it, in one sentence."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"{' and '.join(lacking)} missing: TimescaleDB's community edition cannot run here" if lacking else None


def _installed() -> Path:
    """The folder with what tests/wasm/package-lock.json pins, fetched once into the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "telegram-stack"
    lock = (WASM / "package-lock.json").read_bytes()
    folder = cache / f"community-{hashlib.sha256(lock).hexdigest()[:10]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as name:
            for file in ("package.json", "package-lock.json"):
                shutil.copy(WASM / file, name)
            options = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
            subprocess.run(["npm", "ci", *options, "--prefix", name], check=True, timeout=300)
            with contextlib.suppress(FileExistsError, OSError):  # another run was faster
                Path(name).rename(folder)
                Path(name).mkdir()
    return folder


@contextlib.contextmanager
def timescale() -> Iterator[Postgres]:
    """An empty database of the engine `timescale`, with the extension; close each connection before the next."""
    running = Postgres(free_port(), "unused")
    with tempfile.TemporaryFile("w+") as log:
        command = ["node", str(WASM / "serve.mjs"), str(_installed()), str(running.port)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

        def ready() -> bool:
            log.seek(0)
            said = log.read()
            assert process.poll() is None, said
            return "ready" in said

        try:
            wait_until(ready, within=120)
            with running.connect(database="postgres") as connection:
                connection.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
            yield running
        finally:
            process.terminate()
            process.wait(timeout=30)
