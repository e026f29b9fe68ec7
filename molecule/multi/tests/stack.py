"""Questions that the tests of this scenario ask."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from typing import Any

from testinfra.host import Host

ROOT = os.environ["MOLECULE_PROJECT_DIRECTORY"]
OTHERS = {
    "database": ("cache", "application"),
    "cache": ("database", "application"),
    "application": ("database", "cache"),
}


def cable(verb: str, name: str) -> None:
    """Pull (`cut`) or plug (`heal`) the cable of a host."""
    command = [sys.executable, "-m", "tools.targets", verb, f"mol-{name}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)


def address(host: Host) -> str:
    """Where the others reach a host."""
    found: str = host.check_output("ip -4 -o addr show dev host0 | awk '{print $4}' | cut -d/ -f1")
    return found


def python(host: Host, program: str) -> str:
    """What a Python program prints on a host, its last line where it fails; nothing but Python is needed there."""
    encoded = base64.b64encode(program.encode()).decode()
    done = host.run(f"echo {encoded} | base64 -d | python3 -")
    return str(done.stdout) if done.rc == 0 else str(done.stderr).strip().splitlines()[-1]


def fetch(host: Host, url: str, login: str = "") -> str:
    """What an HTTP server answers a host, whatever its status."""
    return python(
        host,
        "import urllib.error, urllib.request, base64\n"
        f"request = urllib.request.Request({url!r})\n"
        f"login = {login!r}\n"
        "if login:\n"
        "    request.add_header('Authorization', 'Basic ' + base64.b64encode(login.encode()).decode())\n"
        "try:\n"
        "    print(urllib.request.urlopen(request, timeout=20).read().decode())\n"
        "except urllib.error.HTTPError as error:\n"
        "    print(error.code, error.read().decode())\n",
    )


def query(host: Host, port: int, user: str, password: str, statement: str) -> str:
    """What PostgreSQL at a port of the host's loopback says to a statement."""
    login = {"host": "127.0.0.1", "port": port, "user": user, "password": password, "dbname": "telegram_gateway"}
    program = (
        f"import psycopg\nwith psycopg.connect(**{login!r}) as db:\n    print(db.execute({statement!r}).fetchall())"
    )
    return python(host, program)


def redis(host: Host, port: int, *commands: str) -> str:
    """What Redis at a port of the host's loopback says to commands."""
    told = "".join(f"{command}\r\n" for command in commands)
    return python(
        host,
        f"import socket\nwith socket.create_connection(('127.0.0.1', {port}), timeout=5) as redis:\n"
        f"    redis.sendall({told!r}.encode())\n    print(redis.recv(4000).decode())",
    )


def health(host: Host, port: int) -> dict[str, Any]:
    """What a service of ours says of itself; an empty answer when it says nothing."""
    answer = fetch(host, f"http://127.0.0.1:{port}/health")
    _, brace, rest = answer.partition("{")
    return json.loads(brace + rest) if brace else {}


def links(host: Host) -> dict[str, bool]:
    """Which other hosts the links of a host lead to, and whether they are there."""
    found = {}
    for line in fetch(host, "http://127.0.0.1:6444/metrics").splitlines():
        if line.startswith('haproxy_backend_active_servers{proxy="to_'):
            name = line.split('"')[1].removeprefix("to_mol-")
            found[name] = float(line.rsplit(" ", 1)[1]) > 0
    return found


def script(host: Host, text: str) -> str:
    """What a shell script prints on the host; it may fail."""
    encoded = base64.b64encode(text.encode()).decode()
    done = host.run(f"echo {encoded} | base64 -d | bash 2>&1")
    return str(done.stdout)
