"""The session file."""

from __future__ import annotations

import base64
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from telethon.crypto import AuthKey
from telethon.sessions import StringSession

from telegram_stack.telegram.session import SessionError, SessionFile, SessionMissingError

KEY = Fernet.generate_key().decode()
ROOT = Path(__file__).parents[2]


def ready() -> str:
    session = StringSession()
    session.set_dc(2, "127.0.0.1", 443)
    session.auth_key = AuthKey(b"\x01" * 256)
    saved: str = session.save()
    return saved


def of_gramjs(address: str, key: bytes = b"\x01" * 256) -> str:
    name = address.encode()
    packed = struct.pack(f">BH{len(name)}sH256s", 2, len(name), name, 443, key)
    return "1" + base64.b64encode(packed).decode()


@pytest.fixture
def file(tmp_path: Path) -> SessionFile:
    return SessionFile(tmp_path / "state" / "session", KEY)


@pytest.mark.requirement("GW-02")
def test_it_comes_back_as_it_was_and_is_unreadable_on_disk(file: SessionFile) -> None:
    session = ready()
    file.write(session)
    assert file.read() == session
    assert session.encode() not in file.path.read_bytes()
    assert (file.path.stat().st_mode & 0o777, file.path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [other.name for other in file.path.parent.iterdir()] == ["session"]


@pytest.mark.requirement("GW-02")
@pytest.mark.parametrize(("part", "mode", "mends"), [("file", 0o640, "0600"), ("folder", 0o750, "0700")])
def test_a_file_open_to_others_is_refused(file: SessionFile, part: str, mode: int, mends: str) -> None:
    file.write(ready())
    path = file.path if part == "file" else file.path.parent
    path.chmod(mode)
    with pytest.raises(SessionError, match=f"Run: sudo chmod {mends} {path}$"):
        file.read()
    path.chmod(int(mends, 8))
    assert file.read()


@pytest.mark.requirement("GW-02")
def test_a_missing_session_says_how_to_bring_one_in(file: SessionFile) -> None:
    with pytest.raises(SessionMissingError, match="import-session --config FILE"):
        file.read()


def test_another_key_is_told_from_a_broken_file(file: SessionFile) -> None:
    file.write(ready())
    with pytest.raises(SessionError, match="not encrypted with this session key"):
        SessionFile(file.path, Fernet.generate_key().decode()).read()
    with pytest.raises(SessionError, match="no Fernet key"):
        SessionFile(file.path, "short")


@pytest.mark.parametrize("text", ["", "nonsense", "1AAAA", "1" + "A" * 352])
def test_what_is_no_session_is_refused_without_being_shown(file: SessionFile, text: str) -> None:
    with pytest.raises(SessionError, match="no string session of Telethon or GramJS") as caught:
        file.write(text)
    assert len(text) < 5 or text not in str(caught.value)
    assert not file.path.exists()


def test_a_session_is_replaced_only_when_told(file: SessionFile) -> None:
    file.write(ready())
    before = file.stamp()
    with pytest.raises(SessionError, match="--replace"):
        file.write(ready())
    assert file.stamp() == before
    file.write(ready(), replace=True)
    assert file.stamp() != before


@pytest.mark.requirement("GW-16")
def test_one_process_has_the_session(file: SessionFile) -> None:
    file.write(ready())
    script = (
        "import sys; from pathlib import Path; from telegram_stack.telegram.session import SessionFile\n"
        f"with SessionFile(Path({str(file.path)!r}), {KEY!r}).locked(): print('locked')"
    )
    environment = {"PYTHONPATH": str(ROOT / "services" / "src")}

    def other() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
        )

    with file.locked():
        refused = other()
        assert f"another gateway (pid {os.getpid()}) uses the session" in refused.stderr
    assert other().stdout == "locked\n"


@pytest.mark.requirement("GW-02")
@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("149.154.167.91", "149.154.167.91"),  # as long as Telethon's with an IPv6 address
        ("2001:67c:4e8:f002::a", "2001:67c:4e8:f002::a"),
        ("venus.web.telegram.org", "149.154.167.51"),
    ],
)
def test_a_session_of_the_legacy_gateway_goes_on_with_its_key(file: SessionFile, address: str, server: str) -> None:
    key = os.urandom(256)
    file.write(of_gramjs(address, key))
    session = StringSession(file.read())
    assert (session.dc_id, session.server_address, session.port) == (2, server, 443)
    assert session.auth_key.key == key


@pytest.mark.requirement("GW-02")
@pytest.mark.parametrize(
    "session",
    ["", "1", "1é", of_gramjs("127.0.0.1")[:-4], of_gramjs("no-such-place"), "2" + of_gramjs("127.0.0.1")[1:]],
)
def test_what_no_library_wrote_is_refused(file: SessionFile, session: str) -> None:
    with pytest.raises(SessionError, match="no string session of Telethon or GramJS"):
        file.write(session)
    assert not file.path.exists()


@pytest.mark.requirement("GW-02")
@pytest.mark.parametrize("address", ["149.154.167.51", "2001:67c:4e8:f002::a"])
def test_a_session_of_telethon_stays_as_it_is(file: SessionFile, address: str) -> None:
    session = StringSession()
    session.set_dc(2, address, 443)
    session.auth_key = AuthKey(os.urandom(256))
    file.write(session.save())
    assert file.read() == session.save()
