"""The OpenAPI document as a page to read: plain HTML, without scripts and without other files."""

from __future__ import annotations

import json
from html import escape
from typing import Any

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }
section { border-top: 1px solid #8886; margin-top: 1.5rem }
code, pre { font: 14px/1.4 ui-monospace, monospace }
pre { overflow: auto; background: #8882; padding: 0.7rem }
dt { font-weight: 600 } dd { margin-left: 1.5rem }
:root { color-scheme: light dark }
"""


def documentation_page(document: dict[str, Any]) -> str:
    """The whole page."""
    info = document["info"]
    parts = [
        "<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        f"<title>{escape(info['title'])}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>",
        f"<p>{escape(info['description'])}</p>",
        "<p>For programs: <a href='openapi.json'>openapi.json</a></p>",
    ]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parts += _operation(method.upper(), path, operation)
    parts.append("<section><h2>Schemas</h2>")
    for name, schema in document["components"]["schemas"].items():
        parts.append(f"<h3 id='{escape(name)}'>{escape(name)}</h3>")
        parts.append(f"<pre>{escape(json.dumps(schema, indent=1))}</pre>")
    parts.append("</section></body></html>")
    return "".join(parts)


def _operation(method: str, path: str, operation: dict[str, Any]) -> list[str]:
    parts = [f"<section><h2><code>{method} {escape(path)}</code></h2>"]
    parts.append(
        f"<p>{escape(operation['summary'])}. {escape(operation.get('description', ''))}</p>"
    )
    body = operation.get("requestBody", {}).get("content", {})
    if body:
        parts.append(f"<p>Body: {_types(body)}</p>")
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "query":
            name = f"<code>?{escape(parameter['name'])}=</code>"
            parts.append(f"<p>{name} {escape(parameter['description'])}</p>")
    parts.append("<dl>")
    for status, response in operation["responses"].items():
        kinds = _types(response.get("content", {}))
        parts.append(f"<dt>{status}</dt><dd>{escape(response['description'])} {kinds}</dd>")
    parts.append("</dl></section>")
    return parts


def _types(content: dict[str, Any]) -> str:
    """The media types, each with a link to its schema."""
    found = []
    for kind, value in content.items():
        name = value["schema"].get("$ref", "").rpartition("/")[2]
        link = f" (<a href='#{escape(name)}'>{escape(name)}</a>)" if name else ""
        found.append(f"<code>{escape(kind)}</code>{link}")
    return ", ".join(found)
