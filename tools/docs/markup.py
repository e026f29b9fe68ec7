"""Ansible's markup and documented options as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from antsibull_docs_parser import dom
from antsibull_docs_parser.format import LinkProvider
from antsibull_docs_parser.md import md_escape, to_md
from antsibull_docs_parser.parser import Context, parse

Document = Mapping[str, Any]

COLLECTION = "tradingsystem.telegram_stack"
KINDS = {"role": "roles", "module": "modules", "filter": "filters"}
"""What ansible-doc calls a thing, and the folder of its pages."""


class _Links(LinkProvider):
    """To the pages of this collection; the documents of others are not part of the site."""

    def plugin_link(self, plugin: dom.PluginIdentifier) -> str | None:
        if not plugin.fqcn.startswith(COLLECTION) or plugin.type not in KINDS:
            return None
        return f"../{KINDS[plugin.type]}/{short(plugin.fqcn)}.md"


def short(full_name: str) -> str:
    """The name without its collection."""
    return full_name.rpartition(".")[2]


def text(paragraphs: object, context: Context, between: str = "<br>") -> str:
    """Markdown of a paragraph or a list of them; in one line, for cells and lists, unless `between` breaks it."""
    given = [str(paragraph) for paragraph in as_list(paragraphs)]
    return to_md(parse(given, context, errors="exception"), link_provider=_Links(), par_sep=between)


def as_list(value: object) -> list[object]:
    """`value`, which may be missing or stand alone, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table; cells have no line breaks."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cell.replace(chr(10), ' ') for cell in line)} |" for line in lines)


def value(given: object) -> str:
    """A default, a choice or a sample as code."""
    shown = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    return f"<code>{md_escape(shown.strip() or chr(34) * 2)}</code>"


def options(documented: Mapping[str, Document], context: Context) -> str:
    """The table of options, those first that have to be given."""
    if not documented:
        return "None."
    return table(("name", "type, default", "what"), _options(documented, context, ""))


def _options(documented: Mapping[str, Document], context: Context, above: str) -> Iterator[tuple[str, str, str]]:
    for name, option in sorted(documented.items(), key=lambda item: (not item[1].get("required"), item[0])):
        path = f"{above}{name}"
        elements = option.get("elements")
        kind = option.get("type", "str") + (f" of {elements}" if elements else "")
        about = text(option["description"], context)
        if choices := option.get("choices"):
            about += f"<br>One of {', '.join(map(value, choices))}."
        yield f'<span id="{path}"></span>`{path}`', f"{kind}<br>{_default(option)}".removesuffix("<br>"), about
        nested = option.get("options") or option.get("suboptions") or {}
        yield from _options(nested, context, f"{path}{'[]' if elements else ''}.")


def _default(option: Document) -> str:
    if option.get("required"):
        return "**required**"
    return "" if option.get("default") is None else value(option["default"])


def returned(values: Mapping[str, Document], context: Context, above: str = "") -> Iterator[tuple[str, str, str]]:
    """Rows of what a module or filter returns: name, type, what."""
    for name, one in values.items():
        about = text(one["description"], context)
        if one.get("returned"):
            about += f"<br>Returned: {text(one['returned'], context)}."
        if one.get("sample") is not None:
            about += f"<br>Like {value(one['sample'])}"
        yield f"`{above}{name}`", one.get("type", ""), about
        yield from returned(one.get("contains") or {}, context, f"{above}{name}.")
