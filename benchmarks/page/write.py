"""A page as one HTML file that needs no other, and as Markdown."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Mapping, Sequence
from itertools import count

from .sections import Section

Rows = Sequence[Mapping[str, str]]
NOT_RUN = "Not run"

CSS = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0; }
main { max-width: 60rem; margin: 0 auto; padding: 1.5rem; }
h1 { font-size: 1.7rem; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 2.5rem 0 0.3rem; border-bottom: 1px solid #ddd; }
figure { margin: 1rem 0; } figure svg, figure img { width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.88rem; margin: 0.8rem 0; }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top;
         border-bottom: 1px solid #eee; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
details { margin: 0.6rem 0; } summary { cursor: pointer; color: #555; }
pre { background: #f6f6f6; padding: 0.6rem; white-space: pre-wrap; overflow-wrap: anywhere;
      font-size: 0.82rem; margin: 0.3rem 0; }
.missing { color: #8a4b00; }
"""


def as_html(title: str, about: str, sections: Sequence[Section], facts: Mapping[str, str]) -> str:
    """about: a sentence below the title. facts: the conditions."""
    parts = [f"<h1>{_text(title)}</h1>", f"<p>{_text(about)}</p>"]
    numbers = count(1)
    for section in sections:
        parts += [f"<h2>{_text(section.title)}</h2>", f"<p>{_text(section.text)}</p>"]
        parts += [f"<figure>{_named(svg, next(numbers))}</figure>" for svg in section.drawn]
        if section.rows:
            parts.append(_table(section.rows))
        for caption, path in section.pictures:
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img alt="{_text(caption)}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{image}<figcaption>{_text(caption)}</figcaption></figure>")
        if section.commands:
            commands = "".join(f"<pre>{_text(command)}</pre>" for command in section.commands)
            several = len(section.commands)
            word = "the command" if several == 1 else f"the {several} commands"
            parts.append(f"<details><summary>{word} behind this</summary>{commands}</details>")
        if section.missing:
            listed = "; ".join(f"{of}: {reason}" for of, reason in section.missing)
            parts.append(f'<p class="missing">{NOT_RUN}: {_text(listed)}.</p>')
    parts += ["<h2>Conditions</h2>", _table(fact_rows(facts))]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{_text(title)}</title><style>{CSS}</style></head>\n"
        f"<body><main>\n{chr(10).join(parts)}\n</main></body></html>\n"
    )


def as_markdown(
    title: str, about: str, sections: Sequence[Section], facts: Mapping[str, str]
) -> str:
    """The same without figures and pictures, which are in the HTML."""
    parts = [f"# {title}", about]
    for section in sections:
        parts += [f"## {section.title}", section.text]
        if section.rows:
            parts.append(_markdown_table(section.rows))
        if section.commands:
            parts.append("```\n" + "\n".join(section.commands) + "\n```")
        if section.missing:
            listed = [f"- {of}: {reason}" for of, reason in section.missing]
            parts.append("\n".join([f"{NOT_RUN}:", "", *listed]))
    parts += ["## Conditions", _markdown_table(fact_rows(facts))]
    return "\n\n".join(parts) + "\n"


def fact_rows(facts: Mapping[str, str]) -> Rows:
    return [{"condition": name, "value": value} for name, value in facts.items()]


def _named(svg: str, number: int) -> str:
    """A figure whose ids are its own: matplotlib counts from 1 in every one."""
    prefix = f"f{number}-"
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href|href)="#', rf'\1="#{prefix}', svg)
    return re.sub(r"url\(#", f"url(#{prefix}", svg)


def _columns(rows: Rows) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _table(rows: Rows) -> str:
    columns = _columns(rows)
    right = {name for name in columns if all(_is_number(row.get(name, "")) for row in rows)}
    kinds = {name: ' class="number"' if name in right else "" for name in columns}
    head = "".join(f"<th{kinds[name]}>{_text(name)}</th>" for name in columns)
    body = "".join(
        f"<tr>{''.join(f'<td{kinds[n]}>{_text(row.get(n, str()))}</td>' for n in columns)}</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _is_number(text: str) -> bool:
    return re.fullmatch(r"([+-]?[\d.]+%?)?", text) is not None


def _markdown_table(rows: Rows) -> str:
    columns = _columns(rows)
    lines = [columns, ["---"] * len(columns)]
    lines += [[row.get(name, "") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(c.replace('|', '/') for c in line)} |" for line in lines)


def _text(text: str) -> str:
    return html.escape(text)
