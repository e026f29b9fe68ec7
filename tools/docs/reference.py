"""The reference: roles, modules and filters as ansible-doc tells them, playbooks as their first lines do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from antsibull_docs_parser import dom
from antsibull_docs_parser.parser import Context

from tools.docs import ROOT
from tools.docs.markup import COLLECTION, KINDS, Document, as_list, options, returned, short, table, text
from tools.docs.navigation import contents

_TITLES = {"roles": "Roles", "modules": "Modules", "filters": "Filters"}
_OPTION_LINES = re.compile(r"(?:^ {2,}-.*\n?)+", re.MULTILINE)
_OPTION = re.compile(r"^ +(-e \S+|--\S+) +(.+)$", re.MULTILINE)


def pages() -> dict[str, str]:
    """Every page of the reference, by its place in the site."""
    documents = _documents()
    found = {"reference/index.md": _index(documents), "reference/playbooks.md": _playbooks()}
    for kind, folder in KINDS.items():
        for name, document in sorted(documents[kind].items()):
            page = _role(name, document) if kind == "role" else _plugin(name, kind, document)
            found[f"reference/{folder}/{short(name)}.md"] = page
    return found


def playbooks() -> dict[str, str]:
    """First lines of the playbooks that people call: those that look for hosts themselves."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "playbooks").glob("*.yml"))}
    return {name: _first_comment(content) for name, content in texts.items() if "hosts_exist.yml" in content}


def _documents() -> dict[str, dict[str, Document]]:
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-doc"), "--metadata-dump", COLLECTION],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ansible-doc cannot read {COLLECTION}; mend what it names: {done.stderr.strip()}")
    documents: dict[str, dict[str, Document]] = json.loads(done.stdout)["all"]
    return documents


def _first_comment(playbook: str) -> str:
    lines = []
    for line in playbook.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[2:])
    return "\n".join(lines)


def _index(documents: Mapping[str, Mapping[str, Document]]) -> str:
    called = [
        (f"[{name}](playbooks.md#{name.replace('.', '')})", _linked(_sentence(about)))
        for name, about in playbooks().items()
    ]
    parts = [
        "# Reference",
        "Made of the code itself at each build: settings of the roles' argument specifications, modules and filters of "
        "their documentation, playbooks of their first lines. What is counted stands in [Metrics](../metrics.md).",
        f"## Playbooks\n\n{table(('playbook', 'what'), called)}",
    ]
    for kind, folder in KINDS.items():
        rows = [
            (f"[{short(name)}]({folder}/{short(name)}.md)", text(_main(document)["short_description"], Context()))
            for name, document in sorted(documents[kind].items())
        ]
        parts.append(f"## {_TITLES[folder]}\n\n{table((kind, 'what'), rows)}")
    names = [f"{folder}/{short(name)}" for kind, folder in KINDS.items() for name in sorted(documents[kind])]
    parts.append(contents(["playbooks", *names]))
    return "\n\n".join(parts) + "\n"


def _main(document: Document) -> Document:
    main: Document = document["entry_points"]["main"] if "entry_points" in document else document["doc"]
    return main


def _sentence(comment: str) -> str:
    return re.split(r"(?<=\.)\s", comment.replace("\n", " "), maxsplit=1)[0]


def _playbooks() -> str:
    parts = ["# Playbooks", "As their own first lines say. `migrate.yml` and `rollback.yml` stand at the root as well."]
    for name, comment in playbooks().items():
        parts.append(f"## {name}\n\n{_OPTION_LINES.sub(_option_table, _linked(comment))}")
    return "\n\n".join(parts) + "\n"


def _option_table(lines: re.Match[str]) -> str:
    rows = [(f"`{option}`", about) for option, about in _OPTION.findall(lines[0])]
    return table(("option", "what"), rows) + "\n"


def _linked(comment: str) -> str:
    """With links in place of the names of pages."""
    return re.sub(r"docs/(\w+\.md)", r"[\1](../\1)", comment)


def _role(name: str, document: Document) -> str:
    main = _main(document)
    context = Context(role_entrypoint="main")
    parts = [
        f"# Role {short(name)}",
        text([main["short_description"] + ".", *as_list(main.get("description"))], context, "\n\n"),
        f"## Settings\n\n{options(main.get('options') or {}, context)}",
    ]
    others = [
        (f"`{entry}`", text(about["short_description"], context))
        for entry, about in sorted(document["entry_points"].items())
        if entry != "main"
    ]
    if others:
        parts.append(f"## Further entry points\n\nBy `tasks_from`:\n\n{table(('entry point', 'what'), others)}")
    return "\n\n".join(parts) + "\n"


def _plugin(name: str, kind: str, document: Document) -> str:
    doc = _main(document)
    context = Context(current_plugin=dom.PluginIdentifier(fqcn=name, type=kind))
    parts = [
        f"# {short(name)}",
        text([doc["short_description"] + ".", *as_list(doc.get("description"))], context, "\n\n"),
        f"## Options\n\n{options(doc.get('options') or {}, context)}",
    ]
    attributes = [
        (f"`{attribute}`", about["support"], text([about["description"], *as_list(about.get("details"))], context))
        for attribute, about in (doc.get("attributes") or {}).items()
    ]
    if attributes:
        parts.append(f"## Attributes\n\n{table(('attribute', 'support', 'what'), attributes)}")
    if doc.get("notes"):
        parts.append("## Notes\n\n" + "\n".join(f"* {text(note, context)}" for note in as_list(doc["notes"])))
    if examples := (document.get("examples") or "").strip():
        parts.append(f"## Examples\n\n```yaml\n{examples}\n```")
    if document.get("return"):
        parts.append(f"## Returns\n\n{table(('name', 'type', 'what'), returned(document['return'], context))}")
    return "\n\n".join(parts) + "\n"
