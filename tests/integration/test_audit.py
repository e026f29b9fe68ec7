"""`make audit` against a stand-in for the service of known vulnerabilities: what is asked, found, and not to be had."""

from __future__ import annotations

import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.integration.servers import ROOT, free_port

LOCKS = ("services/requirements.lock", "services/build.lock", "requirements/dev.lock", "requirements/ansible-2.18.lock")
VULNERABILITY = {
    "id": "PYSEC-2026-1",
    "summary": "Made up",
    "affected": [
        {
            "package": {"name": "telethon", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99.0"}]}],
        }
    ],
}


@contextmanager
def service(vulnerable: str = "") -> Iterator[tuple[str, set[tuple[str, str]]]]:
    """Address of a service in OSV's form that knows one vulnerability, of `vulnerable`; and what it was asked."""
    asked: set[tuple[str, str]] = set()

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = query["package"]["name"]
            asked.add((name, query["version"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"vulns": [VULNERABILITY]} if name == vulnerable else {}).encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(target: str, address: str) -> subprocess.CompletedProcess[str]:
    """Run `make` with the service at `address`."""
    return subprocess.run(
        ["make", "--no-print-directory", target],
        cwd=ROOT,
        env={**os.environ, "PIP_AUDIT_VULNERABILITY_SERVICE": "osv", "PIP_AUDIT_OSV_URL": address},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def locked(lock: str) -> set[tuple[str, str]]:
    """Names and versions in `lock`, without those that a marker keeps for some Python or platform."""
    found = set(re.findall(r"^([\w.-]+)==(\S+) \\$", (ROOT / lock).read_text(), re.MULTILINE))
    assert len(found) > 3, lock
    return found


def test_everything_that_is_locked_is_looked_up() -> None:
    with service() as (address, asked):
        done = run("audit", address)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("No known vulnerabilities found") == len(LOCKS)
    assert set().union(*map(locked, LOCKS)) <= asked


def test_a_vulnerability_is_an_error_with_its_number_and_the_version_that_mends_it() -> None:
    with service(vulnerable="telethon") as (address, asked):
        done = run("audit", address)
    assert done.returncode != 0
    assert re.search(r"^telethon +\S+ +PYSEC-2026-1 +99\.0", done.stdout, re.MULTILINE), done.stdout
    assert "in services/requirements.lock requirements/dev.lock: docs/security.md#known-vuln" in done.stderr
    assert locked(LOCKS[-1]) <= asked, "the other locks were not looked up"


def test_a_service_that_does_not_answer_is_an_error() -> None:
    done = run("audit", f"http://127.0.0.1:{free_port()}/v1/query")
    assert done.returncode != 0
    assert "No known vulnerabilities" not in done.stdout + done.stderr
    assert "Connection refused" in done.stderr
    assert f"could not be looked up, as said above, in {' '.join(LOCKS)}: " in done.stderr


def test_the_bill_of_materials_has_the_services_packages() -> None:
    with service() as (address, _):
        done = run("sbom", address)
    assert done.returncode == 0, done.stderr
    parts = json.loads((ROOT / "dist/sbom.json").read_text())["components"]
    assert locked("services/requirements.lock") <= {(part["name"], part["version"]) for part in parts}
