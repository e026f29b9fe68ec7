"""Upgrades a host while messages are posted: to a newer version, back, and to one whose gateway does not start.

    python -m tests.upgrade --inventory FILE --host NAME --simulator http://10.77.1.1:8454

The host's stack is deployed from this collection. What is posted meanwhile has to be stored and consumed afterwards,
and after a failure the host has to run what ran before.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parent.parent

_SHIPPED = ("playbooks", "roles", "plugins", "services", "sql", "meta", "galaxy.yml", "LICENSE")
_BROKEN = 'import sys\n\nif "--check" not in sys.argv:\n    sys.exit("broken for the test")\n'
_UNCONSUMED = """
CREATE TEMP TABLE posted (channel_id bigint, message_id bigint);
COPY posted FROM STDIN;
{rows}
\\.
SELECT count(*) FILTER (WHERE m.message_id IS NULL) || ' ' || count(*) FILTER (WHERE p.message_id IS NULL)
FROM posted LEFT JOIN telegram.messages AS m USING (channel_id, message_id)
  LEFT JOIN telegram.processing AS p USING (channel_id, message_id);
"""


def main() -> None:
    """Do it all; an assertion says what is not as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inventory", required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--simulator", required=True, help="URL of the simulator's control")
    given = parser.parse_args()
    first = release(given.host)
    with tempfile.TemporaryDirectory() as folder, posting(given.simulator) as posted:
        newer, broken = (version(Path(folder), number) for number in ("99.1.0", "99.2.0"))
        begin = broken / "services/src/telegram_stack/gateway/main.py"
        begin.write_text(begin.read_text().replace("\nimport ", f"\n{_BROKEN}import ", 1))

        said = upgrade(newer, given)
        assert said.returncode == 0, said.stdout[-4000:]
        second = release(given.host)
        assert second.startswith("99.1.0-"), second
        assert f"{first} -> {second}, no messages for" in said.stdout, said.stdout[-4000:]

        said = upgrade(ROOT, given, "-e", "upgrade_back=true")
        assert said.returncode == 0, said.stdout[-4000:]
        assert release(given.host) == first, release(given.host)

        said = upgrade(broken, given)
        assert said.returncode != 0, said.stdout[-4000:]
        assert "All services run as before" in said.stdout, said.stdout[-4000:]
        assert release(given.host) == first, release(given.host)
    assert len(posted) > 500, len(posted)
    await_consumed(given.host, posted)
    print(f"{len(posted)} messages, none lost: {first} -> {second} -> {first} -> broken -> {first}")


def version(below: Path, number: str) -> Path:
    """A copy of the collection that calls itself `number`, in a collections folder of its own."""
    copy = below / number / "ansible_collections" / "tradingsystem" / "telegram_stack"
    copy.mkdir(parents=True)
    for name in _SHIPPED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "wheels"))
        else:
            shutil.copy(ROOT / name, copy / name)
    settings = copy / "services" / "pyproject.toml"
    settings.write_text(re.sub(r'^version = ".*"$', f'version = "{number}"', settings.read_text(), flags=re.MULTILINE))
    return copy


def upgrade(collection: Path, given: argparse.Namespace, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the playbook of `collection`; what it says has no colours and no line breaks within a sentence."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "COLUMNS": "500"}
    if collection != ROOT:
        environment["ANSIBLE_COLLECTIONS_PATH"] = str(collection.parents[2])
    words = ["-i", given.inventory, "--limit", given.host, *options]
    return subprocess.run(
        ["ansible-playbook", *words, str(collection / "playbooks/upgrade.yml")],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def on(host: str, *command: str, given: str = "") -> str:
    """What a command on the host prints."""
    return subprocess.run(
        [sys.executable, "-m", "tools.targets", "exec", host, *command], cwd=ROOT, input=given, text=True, check=True,
        stdout=subprocess.PIPE,
    ).stdout  # fmt: skip


def release(host: str) -> str:
    """The one that is current, which all services have to run."""
    current = Path(on(host, "readlink", "/opt/telegram-stack/current").strip()).name
    for unit in ("telegram-gateway", "telegram-gateway-api", "telegram-signal-worker"):
        pid = on(host, "systemctl", "show", "--property=MainPID", "--value", unit).strip()
        # The program of every release is the host's own Python; the libraries that it has mapped are the release's.
        mapped = on(host, "cat", f"/proc/{pid}/maps")
        assert f"/opt/telegram-stack/{current}/" in mapped, f"{unit} does not run {current}"
    return current


@contextlib.contextmanager
def posting(simulator: str) -> Iterator[list[tuple[int, int]]]:
    """Twenty messages a second, and which they were."""
    posted: list[tuple[int, int]] = []
    end = threading.Event()

    def work() -> None:
        while not end.wait(0.25):
            answer = httpx.post(f"{simulator}/messages", json={"count": 5}, timeout=30).raise_for_status()
            posted.extend((one["channel_id"], one["message_id"]) for one in answer.json()["messages"])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield posted
    finally:
        end.set()
        thread.join()


def await_consumed(host: str, posted: list[tuple[int, int]], within: float = 120) -> None:
    """Wait until each of `posted` is stored and processed."""
    query = _UNCONSUMED.format(rows="\n".join(f"{channel}\t{number}" for channel, number in posted))
    psql = ["runuser", "-u", "postgres", "--", "psql", "-XqAt", "-vON_ERROR_STOP=1", "-p5434", "telegram_gateway"]
    end = time.monotonic() + within
    while (left := on(host, *psql, given=query).strip()) != "0 0":
        assert time.monotonic() < end, f"not stored, not processed: {left} of {len(posted)}"
        time.sleep(1)


if __name__ == "__main__":
    main()
