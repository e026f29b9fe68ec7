# Copyright: the tradingsystem.telegram_stack contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a set of SQL migrations is and which of them may run: no server needed here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_NAME = re.compile(r"(?:engine/(?P<engine>[a-z_]+)/)?(?P<number>\d{4})_[a-z0-9_]+\.sql")
_HEADER = re.compile(r"--\s*(?P<key>transaction|run-as)\s*:\s*(?P<value>\S+)\s*", re.IGNORECASE)
_HEADER_VALUES = {"transaction": ("yes", "no"), "run-as": ("owner", "login")}
_TRANSACTION_WORDS = ("abort", "begin", "commit", "end", "rollback", "savepoint", "start")
# Everything a semicolon may hide in: line and block comments, strings, names, dollar quotes.
_TOKEN = re.compile(
    r"""--[^\n]*
      | /\*.*?\*/
      | \b[eE]'(?:[^'\\]|\\.|'')*'
      | '(?:[^']|'')*'
      | "(?:[^"]|"")*"
      | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$).*?(?P=dollar)
      | (?P<end>;)""",
    re.VERBOSE | re.DOTALL,
)
_LEADING = re.compile(r"(?:\s+|--[^\n]*|/\*.*?\*/)*", re.DOTALL)


class MigrationError(Exception):
    """The files and the ledger do not fit together; the message is meant for the operator."""


@dataclass(frozen=True)
class Statement:
    """One statement and the line of its file (from 1) that it begins on."""

    text: str
    line: int


@dataclass(frozen=True)
class Migration:
    """One file. `engine` is None for files that every engine runs."""

    name: str
    number: int
    engine: str | None
    content: str
    transaction: bool
    run_as_login: bool

    @property
    def checksum(self) -> str:
        """SHA-256 of the content; line ends do not count."""
        return hashlib.sha256("\n".join(self.content.splitlines()).encode()).hexdigest()


def parse(name: str, content: str) -> Migration:
    """Read a file's name (`NNNN_words.sql` or `engine/ENGINE/NNNN_words.sql`) and the header on its first lines."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise MigrationError(f"{name}: use a name like NNNN_words.sql or engine/ENGINE/NNNN_words.sql, all small.")
    header = {"transaction": "yes", "run-as": "owner"}
    for line in content.splitlines():
        if not line.startswith("--"):
            break
        found = _HEADER.fullmatch(line)
        if found:
            key, value = found["key"].lower(), found["value"].lower()
            if value not in _HEADER_VALUES[key]:
                raise MigrationError(f"{name}: header {key} is {value}; allowed: {', '.join(_HEADER_VALUES[key])}.")
            header[key] = value
    file = Migration(
        name=name,
        number=int(match["number"]),
        engine=match["engine"],
        content=content,
        transaction=header["transaction"] == "yes",
        run_as_login=header["run-as"] == "login",
    )
    _refuse_transaction_control(file)
    return file


def _refuse_transaction_control(file: Migration) -> None:
    """A COMMIT half-way would keep the first half of a file that failed later."""
    for statement in split(file.content) if file.transaction else ():
        word = statement.text.split(None, 1)[0].lower()
        if word in _TRANSACTION_WORDS:
            raise MigrationError(
                f"{file.name}, line {statement.line}: {word.upper()} has no place in a file that runs in one "
                "transaction. Take it out, or let the statements run one by one with the header -- transaction: no."
            )


def select(files: Iterable[Migration], engine: str | None) -> list[Migration]:
    """The files that `engine` runs, in order. Two of one number would have no order: refused."""
    chosen = sorted((file for file in files if file.engine in (None, engine)), key=lambda file: file.number)
    for first, second in pairwise(chosen):
        if first.number == second.number:
            raise MigrationError(f"{first.name} and {second.name} have the same number: rename the newer one.")
    return chosen


def pending(files: Sequence[Migration], applied: Mapping[str, str]) -> list[Migration]:
    """Those of `files` (selected and ordered) that `applied` (name to checksum) does not hold yet.

    Raises MigrationError for a file changed since it was applied, one that is gone, and one that comes too late.
    """
    by_name = {file.name: file for file in files}
    for name, checksum in sorted(applied.items()):
        file = by_name.get(name)
        if file is None:
            raise MigrationError(
                f"{name} was applied to this database but is not among the files: they are older than the database, "
                "or made for another engine. Use the collection's version that deployed this database, or a newer one."
            )
        if file.checksum != checksum:
            raise MigrationError(
                f"{name} was changed after it was applied: applied {checksum}, now {file.checksum}. "
                "Restore the file and put the change into a new migration with the next number."
            )
    last = max((by_name[name] for name in applied), key=lambda file: file.number, default=None)
    missing = [file for file in files if file.name not in applied]
    for file in missing:
        if last is not None and file.number < last.number:
            raise MigrationError(
                f"{file.name} ({file.checksum}) comes too late: {last.name} ({last.checksum}) is already applied. "
                f"Give it a number above {last.number:04d}."
            )
    return missing


def interrupted(todo: Sequence[Migration], begun: Mapping[str, str]) -> list[Migration]:
    """Those of `todo` that an earlier run began and did not finish: `begun`, name to checksum.

    Such a file may have been mended since. Raises MigrationError when one is gone: nobody could finish it.
    """
    lost = sorted(set(begun) - {file.name for file in todo})
    if lost:
        raise MigrationError(
            f"{lost[0]} ({begun[lost[0]]}) was begun on this database, not finished, and is not among the files. "
            "Use the collection's version that began it, or a newer one: it runs the file again."
        )
    return [file for file in todo if file.name in begun]


def split(content: str) -> list[Statement]:
    """Cut a script at its top-level semicolons, so that a failing statement can be named by its line.

    SQL-standard function bodies (`BEGIN ATOMIC`) are not understood: write bodies in dollar quotes.
    """
    statements: list[Statement] = []
    start = 0
    for token in _TOKEN.finditer(content):
        if token["end"]:
            _add(statements, content, start, token.start())
            start = token.end()
    _add(statements, content, start, len(content))
    return statements


def _add(statements: list[Statement], content: str, start: int, end: int) -> None:
    comments = _LEADING.match(content, start, end)
    begin = comments.end() if comments else start
    if begin < end:
        statements.append(Statement(content[begin:end].rstrip(), content.count("\n", 0, begin) + 1))
