"""The legacy gateway's session, written by GramJS itself."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

from telethon.sessions import StringSession
from tests.integration import npm

HIGHEST_PORT = 32_767
"""GramJS writes the port as a signed number."""
_GRAMJS = Path(__file__).with_name("gramjs")


def gramjs(session: str) -> str:
    """The Telethon string `session` as GramJS writes it; raises CalledProcessError when Node or npm fail.

    Raises ValueError where the port is above `HIGHEST_PORT`.
    """
    ready = StringSession(session)
    if ready.port > HIGHEST_PORT:
        raise ValueError(f"GramJS cannot write port {ready.port}: let the simulator listen below {HIGHEST_PORT + 1}")
    key = base64.b64encode(ready.auth_key.key).decode()
    given = {"dc": ready.dc_id, "address": ready.server_address, "port": ready.port, "key": key}
    done = subprocess.run(
        ["node", str(_GRAMJS / "session.mjs")],
        env={**os.environ, "GRAMJS": str(npm.installed(_GRAMJS))},
        input=json.dumps(given),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout
