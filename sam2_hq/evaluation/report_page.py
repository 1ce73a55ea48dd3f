"""The look of a report: one HTML page, its tables and its style. Needs no network, and no script.

With a script allowed, a click on a column's head sorts a table. Texts are escaped here; what is
called `html` is not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from sam2_hq.evaluation.tables import Column, Value

SERIES = ("#3987e5", "#d95926", "#199e70", "#c98500", "#d55181", "#9085e9", "#2ba3b4", "#7f9c3b")
"""Colours of objects 1, 2, ..., legible on light and dark ground; then they repeat."""


class Html(str):
    """A cell that is html already."""


def page(title: str, lead: str, sections: Sequence[str]) -> str:
    """A whole page. `lead` is the line below the title, sections are html."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<header><h1>{escape(title)}</h1><p>{escape(lead)}</p></header>\n"
        + "\n".join(sections)
        + f"\n</main>\n<script>{SORT_SCRIPT}</script>\n</body>\n</html>\n"
    )


def section(title: str, caption: str, *parts: str) -> str:
    """A heading, one paragraph on what is to be seen, and html."""
    return "\n".join(
        [f"<section><h2>{escape(title)}</h2>", f"<p>{escape(caption)}</p>", *parts, "</section>"]
    )


def tiles(numbers: Mapping[Column, Value]) -> str:
    """The few numbers that matter, large."""
    cells = [
        f'<div class="tile" title="{escape(column.tip)}"><dt>{escape(column.title)}</dt>'
        f"<dd>{escape(column.show(value))}</dd></div>"
        for column, value in numbers.items()
    ]
    return f'<dl class="tiles">{"".join(cells)}</dl>'


def data_table(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> str:
    """A table that scrolls inside itself on a narrow screen."""
    heads = "".join(
        f'<th scope="col" title="{escape(c.tip)}"{_class(c)}>{escape(c.title)}</th>'
        for c in columns
    )
    body = "".join(
        f"<tr>{''.join(_cell(c, v) for c, v in zip(columns, row, strict=True))}</tr>\n"
        for row in rows
    )
    return (
        f'<div class="scroll"><table><thead><tr>{heads}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def figure(title: str, caption: str, *content: str, is_wide: bool = False) -> str:
    """A card. `caption` and `content` are html."""
    kind = ' class="wide"' if is_wide else ""
    return (
        f"<figure{kind}><figcaption><b>{escape(title)}</b>{caption}</figcaption>"
        f"{''.join(content)}</figure>"
    )


def legend(color: str, text: str) -> str:
    """A patch of colour and what it stands for, for a caption."""
    return f'<span><i style="background:{color}"></i>{escape(text)}</span>'


def note(text: str) -> str:
    """A few words for a caption."""
    return f"<span>{escape(text)}</span>"


def facts(pairs: Mapping[str, str]) -> str:
    """Names and what they are, small."""
    rows = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in pairs.items()
    )
    return f'<dl class="facts">{rows}</dl>'


def _cell(column: Column, value: Value) -> str:
    key = "" if value is None or isinstance(value, str) else f' data-key="{value:.9g}"'
    bar = ""
    if column.kind == "bar" and isinstance(value, int | float):
        bar = f' style="--share:{100 * max(0.0, min(1.0, value)):.1f}%"'
    shown = value if isinstance(value, Html) else escape(column.show(value))
    return f"<td{_class(column)}{key}{bar}>{shown}</td>"


def _class(column: Column) -> str:
    if column.kind == "text":
        return ""
    return ' class="n bar"' if column.kind == "bar" else ' class="n"'


STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --card: #ffffff; --ink: #17181a;
  --soft: #5f646b; --line: #e2e3e1; --bar: #d6e5f8; --accent: #2a6fc9; }
@media (prefers-color-scheme: dark) { :root { --paper: #141517; --card: #1c1d20; --ink: #e9eaec;
  --soft: #a0a5ad; --line: #303237; --bar: #23405f; --accent: #7fb2f0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 6px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 48px 0 4px; }
header p, section > p { margin: 0 0 16px; color: var(--soft); max-width: 75ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  margin: 24px 0 0; border: 1px solid var(--line); border-radius: 8px; overflow: hidden;
  background: var(--card); }
.tile { padding: 12px 16px; box-shadow: 1px 1px var(--line); }
.tile dt { color: var(--soft); font-size: 13px; }
.tile dd { margin: 0; font-size: 24px; font-weight: 600; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px;
  background: var(--card); max-height: 640px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 10px; text-align: left; white-space: nowrap; }
th { position: sticky; top: 0; z-index: 1; background: var(--card); color: var(--soft);
  font-weight: 600; font-size: 13px; box-shadow: inset 0 -1px var(--line); cursor: pointer; }
th[aria-sort=ascending]::after { content: " ↑"; } th[aria-sort=descending]::after { content: " ↓"; }
tbody tr + tr td { border-top: 1px solid var(--line); }
.n { text-align: right; }
td.bar { min-width: 110px;
  background: linear-gradient(to right, var(--bar) var(--share), transparent 0)
  no-repeat 8px center / calc(100% - 16px) 22px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(310px, 1fr)); gap: 16px; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 12px 14px; content-visibility: auto; contain-intrinsic-size: auto 220px; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; align-items: baseline;
  font-size: 13px; color: var(--soft); font-variant-numeric: tabular-nums; }
figcaption b { color: var(--ink); font-size: 14px; overflow-wrap: anywhere; }
figcaption i { display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin-right: 5px; }
figure + figure.wide { margin-top: 16px; }
.panels { display: grid; gap: 8px; margin-top: 8px;
  grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); }
.panels div { font-size: 12px; color: var(--soft); }
.panels img { display: block; max-width: 100%; max-height: 320px; width: auto; height: auto;
  border-radius: 4px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font: 10px system-ui, sans-serif; }
svg .rule { stroke: var(--line); stroke-width: 1; } svg .zero { stroke: var(--soft); }
svg .series { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
svg .mark { fill: var(--accent); stroke: var(--accent); }
.facts { margin: 0; font-size: 13px; } .facts div { display: flex; gap: 12px; padding: 3px 0; }
.facts dt { flex: 0 0 180px; color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 600px) { main { padding: 24px 14px 48px; } .facts dt { flex-basis: 110px; } }
@media print { .scroll { max-height: none; } figure { break-inside: avoid; } }
"""

SORT_SCRIPT = """
for (const head of document.querySelectorAll("th")) head.addEventListener("click", () => {
  const up = head.ariaSort === "descending", body = head.closest("table").tBodies[0];
  const key = row => row.cells[head.cellIndex].dataset.key ?? row.cells[head.cellIndex].textContent;
  const order = (a, b) => key(a).localeCompare(key(b), "en", {numeric: true});
  const isNumber = head.classList.contains("n");
  const byNumber = (a, b) => (parseFloat(key(a)) || 0) - (parseFloat(key(b)) || 0);
  const rows = [...body.rows].sort(isNumber ? byNumber : order);
  for (const other of head.parentNode.cells) other.ariaSort = null;
  head.ariaSort = up ? "ascending" : "descending";
  body.append(...(up ? rows : rows.reverse()));
});
"""
