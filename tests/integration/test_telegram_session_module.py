"""`telegram_session` as Ansible runs it: what it tells of each kind, and that it never tells the key."""

from __future__ import annotations

import base64
import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from telethon.crypto import AuthKey
from telethon.sessions import StringSession
from tests.integration import modules
from tests.integration.modules import failure, success

KEY = b"\x05" + bytes(range(255))
WHERE = {"dc_id": 4, "address": "149.154.167.91", "port": 443, "fingerprint": sha256(KEY).hexdigest()[:16]}


def of_telethon() -> str:
    session = StringSession()
    session.set_dc(4, "149.154.167.91", 443)
    session.auth_key = AuthKey(KEY)
    saved: str = session.save()
    return saved


def of_gramjs() -> str:
    name = b"149.154.167.91"
    return "1" + base64.b64encode(b"\x04" + len(name).to_bytes(2, "big") + name + b"\x01\xbb" + KEY).decode()


def run(*, check: bool = False, **arguments: Any) -> dict[str, Any]:
    said = modules.run("telegram_session", arguments, check=check)
    told = json.dumps({name: value for name, value in said.items() if name != "invocation"})
    for secret in (KEY.hex(), of_telethon()[8:], of_gramjs()[40:]):
        assert secret not in told
    return said


@pytest.mark.parametrize(("text", "kind"), [(of_telethon(), "telethon"), (of_gramjs(), "gramjs")])
def test_it_tells_what_a_string_session_is(tmp_path: Path, text: str, kind: str) -> None:
    file = tmp_path / "session"
    file.write_text(f"{text}\n")
    for said in (run(path=str(file)), run(content=text)):
        assert {name: success(said)[name] for name in ("kind", "changed", *WHERE)} == {
            "kind": kind, "changed": False, **WHERE,
        }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("session.enc", os.urandom(400), "encrypted"),
        ("session", b'{"iv": "00", "tag": "00", "data": "00"}', "encrypted"),
        ("session", Fernet(Fernet.generate_key()).encrypt(of_telethon().encode()), "stack"),
    ],
)
def test_what_it_cannot_read_it_names_and_says_what_to_do(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    said = success(run(path=str(file)))
    assert (said["kind"], "fingerprint" in said) == (kind, False)
    assert "log in anew" in said["hint"]
    assert said["hint"] in failure(run(path=str(file), dest=str(tmp_path / "other")))
    assert not (tmp_path / "other").exists()


def test_it_writes_either_form_and_back(tmp_path: Path) -> None:
    legacy, ours, back = tmp_path / "legacy", tmp_path / "ours", tmp_path / "back"
    legacy.write_text(of_gramjs())
    there: dict[str, Any] = {"path": str(legacy), "dest": str(ours)}
    assert success(run(**there, check=True))["changed"]
    assert not ours.exists()
    first = success(run(**there))
    assert (first["changed"], first["diff"]) == (True, {"before": {}, "after": {"kind": "telethon", **WHERE}})
    assert (ours.read_text(), ours.stat().st_mode & 0o777) == (of_telethon(), 0o600)
    assert not success(run(**there))["changed"]
    assert success(run(path=str(ours), dest=str(back), format="gramjs"))["changed"]
    assert back.read_text() == of_gramjs()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "legacy", "ours"]


def test_a_file_that_is_open_to_others_or_holds_something_else_is_mended(tmp_path: Path) -> None:
    dest = tmp_path / "session"
    dest.write_text("nonsense")
    said = success(run(content=of_gramjs(), dest=str(dest)))
    assert (said["changed"], said["diff"]["before"]) == (True, {"kind": "unknown"})
    dest.chmod(0o644)
    assert success(run(content=of_gramjs(), dest=str(dest), check=True))["changed"]
    assert dest.stat().st_mode & 0o777 == 0o644
    assert success(run(content=of_gramjs(), dest=str(dest)))["changed"]
    assert (dest.read_text(), dest.stat().st_mode & 0o777) == (of_telethon(), 0o600)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"content": "1canary"}, "content is no session that is known"),
        ({"path": "/nowhere/session"}, "/nowhere/session cannot be read: No such file or directory"),
        ({"content": of_gramjs(), "dest": "/nowhere/session"}, "cannot be written: No such file or directory"),
        ({}, "one of the following is required: path, content"),
    ],
)
def test_what_is_wrong_is_named(arguments: dict[str, Any], words: str) -> None:
    said = failure(run(**arguments))
    assert words in said
    assert "canary" not in said
