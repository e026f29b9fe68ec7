"""Whose a port is: what a role asks before it starts a program of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.integration.plays import play
from tests.integration.servers import free_port

# As much of a program's name as the kernel keeps.
NAME = "prometheus-postgres-exporter"[:15]
LISTEN = f"""
import pathlib, socket, sys, time
pathlib.Path("/proc/self/comm").write_text("{NAME}")
with socket.create_server(("127.0.0.1", int(sys.argv[1]))):
    print("ready", flush=True)
    time.sleep(300)
"""
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root is told whose a port is")


@dataclass(frozen=True)
class Listener:
    """A program of ours that holds a port."""

    port: int
    pid: int


@pytest.fixture
def listener() -> Iterator[Listener]:
    """One that has the longest name there is."""
    port = free_port()
    with subprocess.Popen([sys.executable, "-c", LISTEN, str(port)], stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
            yield Listener(port, program.pid)
        finally:
            program.kill()


def asked(folder: Path, port: int, *own: str) -> subprocess.CompletedProcess[str]:
    """Ask for one port, which programs named `own` may hold."""
    wanted = {"port": port, "component": "The exporter", "variable": "exporter_port", "processes": list(own)}
    role = {"name": "tradingsystem.telegram_stack.common", "tasks_from": "ports.yml"}
    return play(folder, [{"ansible.builtin.include_role": role}], {"common_ports": [wanted]})


def test_our_own_program_is_known_by_its_whole_name_where_netstat_is_installed_too(
    tmp_path: Path, listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It prints 19 characters of "pid/name" and no more: the longer the pid, the shorter the name.
    shown = f"{listener.pid}/{NAME}"[:19]
    line = f"tcp 0 0 127.0.0.1:{listener.port} 0.0.0.0:* LISTEN {shown}"
    (tmp_path / "netstat").write_text(f"#!/bin/sh\necho '{line}'\n")
    (tmp_path / "netstat").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    done = asked(tmp_path, listener.port, NAME)
    assert done.returncode == 0, done.stdout


def test_another_program_is_named_with_the_way_out(tmp_path: Path, listener: Listener) -> None:
    done = asked(tmp_path, listener.port, "haproxy")
    said = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert f"The exporter cannot start on localhost: port {listener.port} is held by pid {listener.pid}" in said
    assert f"({NAME}). Give The exporter another port (exporter_port) or stop the other program" in said
