"""Stopping what the legacy system runs, and what a connection's table says."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.tradingsystem.telegram_stack.plugins.module_utils.tcp_connections import (
    connections_to,
    established,
)
from tests.integration import modules
from tests.integration.modules import failure, success

# Two words of an address are one of a kernel's, in the machine's own order.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0FA6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0A00020F:C350 3200A795:01BB 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
"""
TABLE6 = """\
  sl  local_address                         remote_address                        st tx rx tr when ret uid timeout inode
   0: 0000000000000000FFFF00000100007F:0FA6 0000000000000000FFFF00003200A795:01BB 01 0:0 0:0 0 0 0 13 1 0 20 4 30 10 -1
"""
SLEEPER = "import time; time.sleep(120)  # a legacy consumer of tests"


def processes(name: str = "consumer", **options: Any) -> list[dict[str, Any]]:
    return [{"name": name, **options}]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", SLEEPER])
    while SLEEPER.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes():
        assert process.poll() is None
    yield process
    process.kill()
    process.wait()


def commands(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    stop = ["kill", str(process.pid)]
    return processes(stop=stop, start=["true"], pattern="[a] legacy consumer of tests")


def test_established_connections_are_read_and_listeners_are_not() -> None:
    assert [(inode, str(address), port) for inode, (address, port) in established(TABLE)] == [(12, "149.167.0.50", 443)]
    assert [(inode, str(address), port) for inode, (address, port) in established(TABLE6)] == [
        (13, "149.167.0.50", 443)
    ]


def test_who_is_connected_is_found_by_the_address_alone() -> None:
    with socket.create_server(("127.0.0.99", 0)) as server, socket.create_connection(server.getsockname()) as client:
        [found] = connections_to(["127.0.0.99"], [server.getsockname()[1]])
        assert found.address == "127.0.0.99"
        assert found.pid
        assert client.getpeername()[0] == "127.0.0.99"
        assert connections_to(["127.0.0.98"], range(65536)) == []
        assert connections_to(["127.0.0.99"], [server.getsockname()[1] + 1]) == []


def test_a_process_is_known_by_its_command_line_and_stopped(sleeper: subprocess.Popen[bytes]) -> None:
    def run(state: str, *, check: bool = False) -> dict[str, Any]:
        given = {"processes": commands(sleeper), "state": state}
        return success(modules.run("legacy_processes", given, check=check))

    assert run("read")["running"] == ["consumer"]
    assert run("stopped", check=True)["changed"]
    assert sleeper.poll() is None
    stopped = modules.start("legacy_processes", {"processes": commands(sleeper), "state": "stopped"})
    sleeper.wait(10)
    said = success(modules.answer(stopped))
    assert said["changed"]
    assert said["stopped_at"]
    assert run("stopped")["changed"] is False


def test_a_process_that_goes_on_stops_the_migration(sleeper: subprocess.Popen[bytes]) -> None:
    stubborn = [{**commands(sleeper)[0], "stop": ["true"]}]
    said = modules.run("legacy_processes", {"processes": stubborn, "state": "stopped", "timeout": 1})
    assert "Still running on this host after 1 s: consumer" in failure(said)


def test_somebody_else_on_the_session_stops_the_migration(sleeper: subprocess.Popen[bytes]) -> None:
    with socket.create_server(("127.0.0.97", 0)) as server, socket.create_connection(server.getsockname()):
        given = {"processes": commands(sleeper), "telegram_addresses": ["127.0.0.97"], "timeout": 1}
        given["telegram_ports"] = [server.getsockname()[1]]
        running = modules.start("legacy_processes", {**given, "state": "stopped"})
        sleeper.wait(20)
        assert "still connected to Telegram after 1 s" in failure(modules.answer(running))


def test_a_process_that_nothing_can_stop_is_refused() -> None:
    said = modules.run("legacy_processes", {"processes": processes(stop=["true"])})
    assert failure(said) == "Process consumer needs unit, container, or all of stop, start and pattern."


def test_a_container_engine_that_fails_is_no_stopped_container() -> None:
    said = modules.run("legacy_processes", {"processes": processes(container="x", engine="/bin/false")})
    assert failure(said).startswith("/bin/false inspect --format failed on this host")
