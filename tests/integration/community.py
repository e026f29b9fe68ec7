"""TimescaleDB's community edition for the tests: the WASM build from npm, since no server of it can be installed here.

It serves one session at a time, has no background workers, and every client is its superuser.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator

from tests.integration import npm
from tests.integration.servers import ROOT, Postgres, free_port, wait_until

WASM = ROOT / "tests" / "wasm"


def missing() -> str | None:
    """What keeps this machine from serving it, in one sentence."""
    lacking = npm.missing()
    return f"{lacking} missing: TimescaleDB's community edition cannot run here" if lacking else None


@contextlib.contextmanager
def timescale() -> Iterator[Postgres]:
    """An empty database of the engine `timescale`, with the extension; close each connection before the next."""
    running = Postgres(free_port(), "unused")
    with tempfile.TemporaryFile("w+") as log:
        command = ["node", str(WASM / "serve.mjs"), str(npm.installed(WASM)), str(running.port)]
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
