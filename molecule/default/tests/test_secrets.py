"""Secrets are where they are meant to be, for whom they are meant, and nowhere else: `prepare` planted some."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable
from typing import Any

import pytest
from probe import STATE, run_python, secrets_of
from testinfra.host import Host

# Where programs and units read secrets from.
MEANT = [
    "/etc/telegram-stack/credentials/*",
    "/etc/telegram-stack/pgbackrest.conf",
    "/etc/pgbouncer/userlist.txt",
    "/etc/redis/telegram-*-login.conf",
    "/run/credentials/*",
    "/var/lib/rabbitmq/.erlang.cookie",
    "/var/lib/telegram-redis/*/state.conf",
]
# Prints which files hold any of WORDS, with their modes, and who else has said one: processes and the journal.
SEARCH = """
import glob, json, os, subprocess
words = json.loads(WORDS)
def grep(*arguments, **more):
    return subprocess.run(["grep", "-F", "-f", patterns, *arguments], capture_output=True, **more).stdout
patterns = "/dev/shm/words"
with os.fdopen(os.open(patterns, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
    file.write("\\n".join(words))
try:
    places = [entry.path for entry in os.scandir("/") if entry.is_dir(follow_symlinks=False)]
    places = [place for place in places if place not in ("/dev", "/proc", "/sys")]
    files = grep("-rlaZ", "-D", "skip", *places).decode().split("\\0")[:-1]
    journal = subprocess.Popen(["journalctl", "-a", "-o", "export"], stdout=subprocess.PIPE)
    said = grep("-ac", stdin=journal.stdout).decode().strip()
    journal.wait()
finally:
    os.unlink(patterns)
processes = []
for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/proc/[0-9]*/environ"):
    try:
        content = open(path, "rb").read()
    except OSError:
        continue
    if any(word.encode() in content for word in words):
        processes.append(path + ": " + open(path.rsplit("/", 1)[0] + "/comm").read().strip())
modes = {path: oct(os.stat(path).st_mode & 0o7777) for path in files}
print(json.dumps({"files": modes, "journal": said, "processes": processes}))
"""


def words(secrets: Iterable[str]) -> list[str]:
    """What to look for: the secrets, or of one with several lines a line that is its own."""
    return [secret.splitlines()[1] if "\n" in secret else secret for secret in secrets]


@pytest.fixture(scope="module")
def planted() -> set[str]:
    """Every secret that the stack has had, before and after its rotation."""
    return {*secrets_of("telegram_secrets.yml").values(), *secrets_of("telegram_secrets.yml.before").values()}


def search(host: Host, secrets: Iterable[str]) -> dict[str, Any]:
    """Where on the host any of `secrets` stands."""
    found: dict[str, Any] = run_python(host, SEARCH.replace("WORDS", repr(json.dumps(words(secrets)))))
    return found


@pytest.mark.requirement("OP-02")
def test_secrets_stand_on_a_host_only_where_they_are_meant_to(host: Host, planted: set[str]) -> None:
    found = search(host, planted)
    assert {path for path in found["files"] if not any(fnmatch.fnmatch(path, meant) for meant in MEANT)} == set()
    assert {path: mode for path, mode in found["files"].items() if int(mode, 8) & ~0o640} == {}
    assert (found["journal"], found["processes"]) == ("0", [])
    assert len({path.split("/")[2] for path in found["files"]}) >= 4  # the search does find


@pytest.mark.requirement("OP-02")
def test_secrets_stand_in_no_output_of_a_playbook(planted: set[str]) -> None:
    said = (STATE / "ansible.log").read_text(errors="replace")
    assert "Make the roles, each with its password" in said
    assert "Write them into the secrets file" in said
    assert [name for name, secret in secrets_of("telegram_secrets.yml").items() if words([secret])[0] in said] == []
    assert sum(word in said for word in words(planted)) == 0, "a secret from before the rotation"


@pytest.mark.requirement("OP-03")
def test_old_secrets_are_gone_from_the_host(host: Host) -> None:
    old, new = secrets_of("telegram_secrets.yml.before"), secrets_of("telegram_secrets.yml")
    found = search(host, [secret for name, secret in old.items() if new[name] != secret])
    # Redis notes the password of the replication in its own file, where ours, read after it, overrules it.
    noted = set(fnmatch.filter(found["files"], "/var/lib/telegram-redis/*/state.conf"))
    assert set(found["files"]) - noted == set()
