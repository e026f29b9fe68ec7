#!/usr/bin/python
# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: what a Telegram session is, and the same session for another library."""

from __future__ import annotations

DOCUMENTATION = r"""
module: telegram_session
short_description: Inspects a Telegram session, and writes it as another library wants it
version_added: 0.1.0
description:
  - Tells what a session is and which account key it holds, by a fingerprint. The key itself is never shown.
  - With O(dest) writes the same session in the form of Telethon or of GramJS, the legacy gateway's library. Both hold
    the same key, so no new log-in is needed.
  - Two processes with one key kill the session for good. Stop whatever uses it before another one begins.
options:
  path:
    description:
      - The file with the session, on the managed host.
    type: path
  content:
    description:
      - The session itself, where it stands in no file of its own.
    type: str
  dest:
    description:
      - Write the session to this file, whole or not at all. Its folder has to be there.
    type: path
  format:
    description:
      - In which form O(dest) is written.
    type: str
    choices: [telethon, gramjs]
    default: telethon
extends_documentation_fragment:
  - ansible.builtin.files
attributes:
  check_mode:
    description: Writes nothing and tells whether it would.
    support: full
  diff_mode:
    description: Shows kind, data centre and fingerprint of both files, never their content.
    support: full
  idempotent:
    description: A file that holds the session in that form already stays as it is.
    support: full
author:
  - Telegram hybrid stack maintainers (@tradingsystem)
notes:
  - O(dest) has mode V(0600) unless O(mode) says otherwise.
"""

EXAMPLES = r"""
- name: Look at the legacy gateway's session
  tradingsystem.telegram_stack.telegram_session:
    path: /opt/telegram-gateway/.session/telegram-gateway.session
  register: legacy_session

- name: Write it as Telethon does
  tradingsystem.telegram_stack.telegram_session:
    path: /opt/telegram-gateway/.session/telegram-gateway.session
    dest: /var/lib/telegram-migration/session
    owner: root
"""

RETURN = r"""
kind:
  description:
    - V(telethon) and V(gramjs) are string sessions of these libraries.
    - V(encrypted) is a file of the newer legacy API, V(stack) one of this stack. Their keys are with their owners, so
      nothing else can be told of them; RV(hint) says what to do.
  returned: success
  type: str
  sample: gramjs
dc_id:
  description: The data centre that the account is at.
  returned: when it is a string session
  type: int
  sample: 4
address:
  description: The address of that data centre.
  returned: when it is a string session
  type: str
  sample: 149.154.167.91
port:
  description: Its port.
  returned: when it is a string session
  type: int
  sample: 443
fingerprint:
  description: A hash of the key. Two files with the same hold one session; the stack's lease of it is named after it.
  returned: when it is a string session
  type: str
  sample: 9f86d081884c7d65
hint:
  description: What to do with a session that cannot be read.
  returned: when it is none
  type: str
  sample: Export a string session from the program that wrote it.
"""

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ..module_utils.string_session import (
    Session,
    of_gramjs,
    of_telethon,
)

LONGEST = 65_536
HINTS = {
    "encrypted": (
        "This file is encrypted by the legacy API, whose key is its own. Export a string session with that API "
        "(client.session.save()), or log in anew at the stack's gateway."
    ),
    "stack": (
        "This file is encrypted by the stack's gateway. Give the string session from which it was imported, or log in "
        "anew."
    ),
}


class SessionError(Exception):
    """There is no session that can be used; the message is meant for the operator and shows nothing of it."""


def recognise(content: bytes, name: str) -> tuple[str, Session | None]:
    """Kind and session of a file's content. Raises SessionError."""
    text = content.decode("ascii", "replace").strip()
    for kind, read in (("gramjs", of_gramjs), ("telethon", of_telethon)):
        session = read(text)
        if session:
            return kind, session
    if text.startswith("gAAAAA"):  # Fernet's version and the upper half of the time
        return "stack", None
    if content and (name.endswith(".enc") or _is_sealed(text)):
        return "encrypted", None
    raise SessionError(
        f"{name} is no session that is known: a string session of Telethon or GramJS is one line that begins with 1. "
        "Name the right file, or export one with client.session.save()."
    )


def _is_sealed(text: str) -> bool:
    """Whether it is a document with the parts of AES-GCM."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return isinstance(document, dict) and any(part in document for part in ("iv", "nonce"))


def read(path: str) -> bytes:
    """A file's content. Raises SessionError."""
    try:
        with Path(path).open("rb") as file:
            return file.read(LONGEST)
    except OSError as error:
        raise SessionError(
            f"The session {path} cannot be read: {error.strerror}. Name the file in path, or give it in content."
        ) from error


def facts(kind: str, session: Session | None) -> dict[str, Any]:
    """What may be told."""
    if session is None:
        return {"kind": kind, "hint": HINTS[kind]}
    where = {"dc_id": session.dc_id, "address": session.address, "port": session.port}
    return {"kind": kind, **where, "fingerprint": session.fingerprint}


def deliver(module: AnsibleModule, kind: str, session: Session | None) -> dict[str, Any]:
    """Bring `dest` into its form. Raises SessionError."""
    dest, form = module.params["dest"], module.params["format"]
    if session is None:
        raise SessionError(f"This session cannot be written to {dest}: {HINTS[kind]}")
    wanted = session.gramjs() if form == "gramjs" else session.telethon()
    before = _before(dest)
    changed = before != wanted.encode()
    if changed and not module.check_mode:
        _write(module, dest, wanted)
    file_args = module.load_file_common_arguments({**module.params, "path": dest})
    file_args["mode"] = file_args["mode"] or "0600"
    if Path(dest).exists():
        changed = module.set_fs_attributes_if_different(file_args, changed)
    shown = {} if before is None else _shown(before, dest)
    return {"changed": changed, "diff": {"before": shown, "after": facts(form, session)}}


def _before(dest: str) -> bytes | None:
    return read(dest).strip() if Path(dest).exists() else None


def _shown(content: bytes, dest: str) -> dict[str, Any]:
    try:
        return facts(*recognise(content, dest))
    except SessionError:
        return {"kind": "unknown"}


def _write(module: AnsibleModule, dest: str, text: str) -> None:
    """A file of its own with mode 0600 takes the place of `dest`."""
    try:
        handle, fresh = tempfile.mkstemp(prefix=".session-", dir=Path(dest).absolute().parent)
    except OSError as error:
        raise SessionError(f"{dest} cannot be written: {error.strerror}. Make its folder first.") from error
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(dest)  # atomic_move would keep owner and mode of what was there
    except OSError as error:
        with contextlib.suppress(OSError):
            Path(fresh).unlink()
        raise SessionError(f"{dest} cannot be written: {error.strerror}.") from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "content": {"type": "str", "no_log": True},
            "dest": {"type": "path"},
            "format": {"type": "str", "choices": ["telethon", "gramjs"], "default": "telethon"},
        },
        add_file_common_args=True,
        required_one_of=[("path", "content")],
        mutually_exclusive=[("path", "content")],
        supports_check_mode=True,
    )
    try:
        path, content = module.params["path"], module.params["content"]
        given = content.encode() if content is not None else read(path)
        kind, session = recognise(given, path or "content")
        result = deliver(module, kind, session) if module.params["dest"] else {"changed": False}
    except SessionError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**facts(kind, session), **result)


if __name__ == "__main__":
    main()
