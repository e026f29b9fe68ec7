"""Starts the Telegram simulator in the background for the demo and the scenarios, and talks to its control port."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

SERVICES = Path(__file__).resolve().parent.parent / "services" / "src"


class Simulator:
    """The simulator whose state is in `folder`, listening on `port` of `address`, its control on the port above."""

    def __init__(self, folder: Path, address: str, port: int) -> None:
        self.folder = folder
        self.address = address
        self.port = port

    @property
    def control(self) -> str:
        """The address of its control port."""
        return f"http://{self.address}:{self.port + 1}"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def pid(self) -> int | None:
        """The process id while it runs."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        ours = f"--state\0{self.folder}\0".encode()  # an id is given again, and other checkouts have simulators too
        return pid if b"telegram_stack.simulator" in command and ours in command else None

    def start(self, *arguments: str) -> None:
        """Start it unless it runs, and wait until it answers."""
        process = None
        if self.pid() is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            command = [sys.executable, "-m", "telegram_stack.simulator.main", "--state", str(self.folder), *arguments]
            command += ["--listen", self.address, "--port", str(self.port)]
            command += ["--control-listen", self.address, "--control-port", str(self.port + 1)]
            with (self.folder / "log").open("ab") as log:
                process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=os.environ | {"PYTHONPATH": str(SERVICES)},
                )
            self._pid_file.write_text(str(process.pid))
        # A process that is being started has no command line yet: of our own child we ask the child.
        self._wait(lambda: self.pid() is None if process is None else process.poll() is not None)

    def _wait(self, ended: Callable[[], bool]) -> None:
        why = "does not answer"
        for _ in range(600):
            try:
                self.ask("GET", "/health")
            except (urllib.error.URLError, ConnectionError):
                if ended():
                    why = "ended at once"
                    break
                time.sleep(0.1)
            else:
                return
        log = self.folder / "log"
        last = "\n".join(log.read_text().splitlines()[-5:])
        sys.exit(f"The Telegram simulator {why}; {log} ends with:\n{last}")

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One request to the control port; the answer as JSON, or as text where it is none."""
        request = urllib.request.Request(  # noqa: S310  # always http, to our own process
            f"{self.control}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            text = answer.read().decode()
        return json.loads(text) if answer.headers.get_content_type() == "application/json" else text

    def stop(self) -> None:
        """Stop it and wait until it is gone."""
        pid = self.pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            for _ in range(100):
                if self.pid() is None:
                    break
                time.sleep(0.1)
            else:
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)


def start_with_sessions(simulator: Simulator, channels: int, sessions: list[str]) -> None:
    """Start it and leave beside its folder what gateways need: address, public-key, and session-NAME for each name."""
    folder = simulator.folder
    simulator.start("--channels", str(channels))
    (folder.parent / "address").write_text(simulator.address)
    (folder.parent / "public-key").write_text(simulator.ask("GET", "/public-key"))
    for name in sessions:
        path = folder.parent / f"session-{name}"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(simulator.ask("POST", "/sessions", {})["session"])


def gateway_settings(simulator: Simulator, session: str) -> dict[str, Any]:
    """What a gateway is deployed with that talks to it, with the session of that name, which stays in its file."""
    folder = simulator.folder.parent
    return {
        "gateway_api_id": 1,
        "gateway_api_hash": "0" * 32,
        "gateway_server_dc_id": 2,
        "gateway_server_address": simulator.address,
        "gateway_server_port": simulator.port,
        "gateway_server_public_key": (folder / "public-key").read_text(),
        "gateway_session_string": f"{{{{ lookup('ansible.builtin.file', '{folder / f'session-{session}'}') }}}}",
    }


def main() -> None:
    """Command line of the molecule scenarios."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    start = verbs.add_parser("start", help="start it, make sessions")
    start.add_argument("folder", type=Path)
    start.add_argument("--address", required=True)
    start.add_argument("--port", type=int, required=True)
    start.add_argument("--channels", type=int, default=20)
    start.add_argument("--sessions", nargs="*", default=[])
    stop = verbs.add_parser("stop", help="stop it")
    stop.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.verb == "start":
        start_with_sessions(Simulator(given.folder, given.address, given.port), given.channels, given.sessions)
    else:
        Simulator(given.folder, "", 0).stop()


if __name__ == "__main__":
    main()
