"""The shell commands of the documents, taken apart, and what is known of each: who would look it up finds it."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "sql/README.md", *(ROOT / "docs").rglob("*.md")])
SHELLS = {"console", "sh"}
_BLOCK = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_JOINTS = {"|", "||", "&&", ";", "&", "{", "}"}
_REDIRECTIONS = {"<", ">", ">>"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]+=")
_PLACEHOLDER = re.compile(r"[A-Z][A-Z_]*")


class Block(NamedTuple):
    """A fenced block: its language, its title (or nothing), its text."""

    language: str
    title: str
    body: str


class Command(NamedTuple):
    """A simple command and where it stands."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


def blocks(markdown: str) -> Iterator[Block]:
    """Every fenced block."""
    for match in _BLOCK.finditer(markdown):
        language, _, rest = match["info"].partition(" ")
        title = re.fullmatch(r'title="([^"]+)"', rest)
        yield Block(
            language, title[1] if title else rest, re.sub(rf"^{match['indent']}", "", match["body"], flags=re.M)
        )


def commands() -> list[Command]:
    """Every command of a block that is no illustration, and every command within a sentence."""
    found = []
    for path in PAGES:
        text, page = path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))
        for block in blocks(text):
            if block.language in SHELLS and not block.title.startswith("Illustration: "):
                found += [Command(page, words) for line in _lines(block) for words in simple(line)]
        for inline in _INLINE.findall(_BLOCK.sub("", text)):
            program = inline.split(" ", 1)[0]
            if " " in inline and program in (CHECKS.keys() | {"su", "sudo"}) and "…" not in inline:
                found += [Command(page, words) for words in simple(inline) if known(words)]
    return found


def _lines(block: Block) -> list[str]:
    """The commands of a block, without prompts and what they print."""
    text = re.sub(r"(\\\n|(?<=\|)\n)\s*", " ", block.body)
    if block.language == "console":
        return [line[2:] for line in text.splitlines() if line.startswith(("$ ", "# "))]
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


def simple(line: str) -> Iterator[tuple[str, ...]]:
    """The commands that a line joins by pipes and the like; of `su … -c "command"` the inner one."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    rest = iter([*lexer, ";"])
    for word in rest:
        if word in _REDIRECTIONS:
            next(rest)
            continue
        if word not in _JOINTS:
            words.append(word)
            continue
        while words and (words[0] in {"sudo", "while", "do", "!"} or _ASSIGNMENT.match(words[0])):
            words = words[3:] if words[:2] == ["sudo", "-u"] else words[1:]
        if words and words[0] == "su" and "-c" in words:
            yield from simple(words[words.index("-c") + 1])
        elif words:
            yield (Path(words[0]).name, *words[1:])
        words = []


def known(words: tuple[str, ...]) -> bool:
    """Whether something can be said of such a command."""
    return words[0] in CHECKS


def faults(command: Command) -> list[str]:
    """What a command names that is not there."""
    return list(CHECKS[command.words[0]](command.words[1:]))


def specs() -> set[str]:
    """Every setting of every role."""
    found: set[str] = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        found |= set(yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"]["options"])
    return found


def secrets() -> set[str]:
    """Every secret by its name in the secrets file."""
    return set(
        yaml.safe_load((ROOT / "roles/common/vars/main.yml").read_text(encoding="utf-8"))["_common_secret_names"]
    )


def said_at_a_playbook() -> set[str]:
    """What the playbooks' first lines let one say with -e."""
    texts = [path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/*.yml")]
    return {name for text in texts for name in re.findall(r"^#.*-e (\w+)=", text, re.MULTILINE)}


def _text(*patterns: str) -> str:
    paths = (path for pattern in patterns for path in sorted(ROOT.glob(pattern)) if path.is_file())
    return "\n".join(path.read_text(encoding="utf-8", errors="ignore") for path in paths)


def _missing(kind: str, names: set[str], there: set[str]) -> Iterator[str]:
    for name in sorted(names - there):
        if not _PLACEHOLDER.fullmatch(name):
            yield f"no {kind} {name}"


def _playbook(words: tuple[str, ...]) -> Iterator[str]:
    run_by_tests = _text(
        "molecule/**/*.yml", "molecule/**/*.py", "tests/integration/*.py", "tests/legacy/*.py", "tools/demo*.py"
    )
    arguments = iter(words)
    for word in arguments:
        if word in {"-i", "--limit"}:
            next(arguments)
        elif word == "-e":
            yield from _missing("variable", {next(arguments).partition("=")[0]}, specs() | said_at_a_playbook())
        elif word == "--tags":
            tags = set(re.findall(r"[a-z_]+", " ".join(re.findall(r"tags: (\[.*\])", _text("roles/*/tasks/main.yml")))))
            yield from _missing("tag", set(next(arguments).split(",")), tags)
        elif not word.startswith("-"):
            name = word.removeprefix("tradingsystem.telegram_stack.").removesuffix(".yml").removeprefix("playbooks/")
            if not (ROOT / "playbooks" / f"{name}.yml").is_file() or (
                word.endswith(".yml") and not (ROOT / word).is_file()
            ):
                yield f"no playbook {word}"
            elif f"{name}.yml" not in run_by_tests and f"'{name}'" not in run_by_tests:
                yield f"no test runs {word}"


def _make(words: tuple[str, ...]) -> Iterator[str]:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    yield from _missing("target", {word for word in words if "=" not in word}, targets)


def _pytest(words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        if word.startswith("tests/") and not list(ROOT.glob(word)):
            yield f"no test {word}"


def _python(words: tuple[str, ...]) -> Iterator[str]:
    if words[0].endswith(".py") and not (ROOT / words[0]).is_file():
        yield f"no file {words[0]}"
    if words[0] == "-m" and importlib.util.find_spec(words[1]) is None:
        yield f"no module {words[1]}"
    if words[0] == "-m" and words[1].split(".")[0] in {"tools", "benchmarks", "tests"}:
        source = _text(f"{words[1].replace('.', '/')}/*.py", f"{words[1].replace('.', '/')}.py")
        yield from _missing(
            "option", {word for word in words if re.match(r"--[a-z]", word)}, set(re.findall(r"--[a-z-]+", source))
        )


def _unit(words: tuple[str, ...]) -> Iterator[str]:
    stack = set(re.findall(r"unit: \"?([a-z@-]+)", _text("playbooks/vars/units.yml")))
    written = {path.name.removesuffix(".j2") for path in ROOT.glob("roles/*/templates/*.*.j2")}
    there = {name.rsplit(".", 1)[0] for name in stack | written}
    there |= {"telegram-legacy-feed", "systemd-timesyncd", "telegram-backup*"}
    there |= {f"postgresql@{version}-telegram" for version in ("*", "15", "17")}
    names = [one for word, one in zip(("", *words), words, strict=False) if word == "-u"]
    if words[0] in {"status", "start", "stop", "restart"}:
        names += words[1:]
    yield from _missing("unit", {name.removesuffix(".service") for name in names}, there)


def _curl(words: tuple[str, ...]) -> Iterator[str]:
    source = _text(
        *(f"services/src/telegram_stack/{part}/*.py" for part in ("gateway", "worker", "api", "observability"))
    )
    for url in (word for word in words if re.match(r"http://(127\.0\.0\.1|stack|10\.77\.1\.11):", word)):
        port, _, path = url.split(":", 2)[2].partition("/")
        if port not in {"4006", "4010", "4011"}:
            yield f"no port {port} of ours"
        first = path.partition("?")[0].removeprefix("api/").partition("/")[0]
        if f"/{first}" not in source:
            yield f"no path {url}"


def _program(words: tuple[str, ...]) -> Iterator[str]:
    source = _text("services/src/telegram_stack/**/*.py", "roles/backup/files/telegram_backup/*.py")
    for word in words:
        if (word.startswith("--") or re.fullmatch(r"[a-z]+(-[a-z]+)*", word)) and f'"{word}"' not in source:
            yield f"nothing takes {word}"


def _ansible_doc(words: tuple[str, ...]) -> Iterator[str]:
    if words[:2] == ("-t", "role"):
        yield from _missing("role", {words[2].rpartition(".")[2]}, {path.name for path in ROOT.glob("roles/*")})


def _scripts() -> dict[str, Any]:
    project = tomllib.loads((ROOT / "services/pyproject.toml").read_text(encoding="utf-8"))["project"]
    return dict.fromkeys([*project["scripts"], "telegram-backup"], _program)


def _files(words: tuple[str, ...]) -> Iterator[str]:
    for word in words:
        if word.startswith(("examples/", "docs/", "services/")) and not (ROOT / word).exists():
            yield f"no file {word}"


CHECKS: dict[str, Callable[[tuple[str, ...]], Iterator[str]]] = {
    "ansible-playbook": _playbook, "ansible-doc": _ansible_doc, "make": _make, "pytest": _pytest,
    "python": _python, "python3": _python, "systemctl": _unit, "journalctl": _unit, "curl": _curl, **_scripts(),
    # Of others only what they read of this repository is known.
    "pip": _files, "psql": _files, "ssh": _files, "cd": _files, "post()": _files, "post": _files,
}  # fmt: skip
