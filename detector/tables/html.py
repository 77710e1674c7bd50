"""Renders the comparison of published and measured rows as one self-contained page."""

import html
import time

from detector.tables.render import HEADER, NOT_MEASURED, TableRow, by_table

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --line: #d9dee3; --page: #f6f7f8; --card: #fff;
  --good: #1a7f4b; --bad: #b3261e; --open: #8a6100; --bar: #3b6fb6; --tint: #eef2f7; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --soft: #99a2ab; --line: #30363c; --page: #14171a;
  --card: #1c2024; --good: #5bc98d; --bad: #ff8a80; --open: #e3b341; --bar: #7fa9e0; --tint: #23282e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 108rem; padding: 2.5rem 2rem 4rem; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", "Noto Sans", "DejaVu Sans", sans-serif; }
h1 { margin: 0; font-size: 1.7rem; letter-spacing: -.01em; }
h2 { margin: 2.6rem 0 .7rem; font-size: 1.1rem; }
p { margin: .4rem 0; max-width: 56rem; color: var(--soft); }
.summary { display: flex; flex-wrap: wrap; gap: .6rem 2.4rem; margin: 1.4rem 0 0; }
.summary div { color: var(--soft); } .summary b { display: block; font-size: 1.5rem; color: var(--ink); }
.frame { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; min-width: 80rem; table-layout: fixed;
  font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .55rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; font-size: .8rem; color: var(--soft); cursor: pointer; }
th:hover { color: var(--ink); } th[data-by="up"]::after { content: " ↑"; } th[data-by="down"]::after { content: " ↓"; }
thead tr { border-bottom: 1px solid var(--line); }
tbody + tbody { border-top: 1px solid var(--line); }
td.name { text-align: left; font-weight: 600; vertical-align: top; white-space: normal; }
td.name small { display: block; font-weight: 400; line-height: 1.35; }
td.kind { text-align: left; color: var(--soft); font-size: .85rem; }
th:nth-child(-n+3), td.left { text-align: left; }
td.left { white-space: normal; overflow-wrap: anywhere; }
tr.printed td { padding-bottom: .15rem; } tr.measured td { padding-top: .15rem; }
tr.measured td.map { font-weight: 600; }
td.none { text-align: left; color: var(--soft); font-style: italic; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
small { color: var(--soft); } small.open { color: var(--open); }
.bar { display: block; height: 3px; margin-top: 2px; border-radius: 2px; background: var(--tint); }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--soft); }
tr.measured .bar i { background: var(--bar); }
"""
# Column widths in rem: row, printed or measured, the nine of HEADER, gap, speed-up, tolerance, seed.
WIDTHS = (16.5, 5, 7.5, 3.8, 3.2, 3.4, 5.2, 3.8, 6.5, 5.3, 6.3, 3.2, 4.5, 5.8, 4)
SCRIPT = """
for (const head of document.querySelectorAll("th")) head.onclick = () => {
  const table = head.closest("table"), column = head.dataset.column, down = head.dataset.by === "up";
  const value = body => { const cell = body.querySelector(`[data-column="${column}"]`);
    const text = cell ? cell.dataset.value : "", number = parseFloat(text);
    return Number.isNaN(number) ? text : number; };
  const rows = [...table.tBodies].sort((a, b) => { const x = value(a), y = value(b);
    return (x > y) - (x < y) || (typeof x < typeof y) - (typeof x > typeof y); });
  for (const other of table.querySelectorAll("th")) delete other.dataset.by;
  head.dataset.by = down ? "down" : "up";
  for (const row of down ? rows.reverse() : rows) table.append(row);
};
"""


def as_html(rows: list[TableRow]) -> str:
    """Returns the page."""
    counting = [row for row in rows if row.gap]
    within = sum(row.verdict.startswith("within") for row in counting)
    counts = [(len(rows), "rows"), (len(counting), "measured"), (within, "within their tolerance"),
              (len(rows) - len(counting), "not measured, or not finished")]
    summary = "".join(f"<div><b>{count}</b>{name}</div>" for count, name in counts)
    sections = "".join(render_table(title, members) for title, members in by_table(rows).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fleet R-CNN: published and measured results</title><style>{STYLE}</style></head><body>
<h1>Published and measured results</h1>
<p>Every row of the published tables, as printed and as measured with this package. Measured figures are read from the
files of the runs. The gap is measured minus printed mAP, in percent points. Written
{time.strftime("%Y-%m-%d %H:%M")}.</p>
<div class="summary">{summary}</div>
{sections}<script>{SCRIPT}</script></body></html>
"""


def render_table(title: str, rows: list[TableRow]) -> str:
    columns = ["row", "", *HEADER.values(), "gap", "speed-up", "tolerance", "seed"]
    widths = "".join(f'<col style="width:{width}rem">' for width in WIDTHS)
    head = "".join(f'<th data-column="{n}">{html.escape(name)}</th>' for n, name in enumerate(columns))
    sources = list(dict.fromkeys(row.source for row in rows))
    tbodies = "".join(render_row(row, len(sources) > 1) for row in rows)
    if len(sources) == 1 and sources[0]:
        title += f", printed by {sources[0]}"
    return (f'<h2>{html.escape(title)}</h2><div class="frame"><table>{widths}<thead><tr>{head}</tr></thead>'
            f'{tbodies}</table></div>\n')


def render_row(row: TableRow, with_source: bool) -> str:
    """Returns the printed and the measured line of a row, as one <tbody>."""
    notes = []
    if with_source and row.source:
        notes.append(f"printed by {row.source}")
    if row.measured:
        notes += [row.hardware, f"commit {row.commit or 'unknown'}, {row.date}"]
    name = html.escape(row.row)
    name_cell = name + "".join(f"<small>{html.escape(note)}</small>" for note in notes)
    if row.remark:
        name_cell += f'<small class="open">{html.escape(row.remark)}</small>'
    printed = "".join(render_cell(n, key, row.printed[key]) for n, key in enumerate(HEADER, start=2))
    if row.measured:
        measured = "".join(render_cell(None, key, row.measured[key]) for key in HEADER)
    else:
        measured = f'<td class="none" colspan="{len(HEADER)}">{NOT_MEASURED}</td>'
    return (f'<tbody><tr class="printed"><td class="name" rowspan="2" data-column="0" data-value="{name}">'
            f'{name_cell}</td><td class="kind">printed</td>{printed}{comparison_cells(row)}</tr>'
            f'<tr class="measured"><td class="kind">measured</td>{measured}</tr></tbody>')


def render_cell(column: int | None, key: str, text: str) -> str:
    """Returns one cell. `column`: the number by which the script sorts; None for cells that it does not sort by."""
    attributes = "" if column is None else f' data-column="{column}" data-value="{html.escape(text)}"'
    css_class = "value left" if key == "model" else f"value {key}"
    bar, percent = "", text.split(" ")[0]
    if key == "map" and percent.replace(".", "", 1).isdigit():
        bar = f'<span class="bar"><i style="width:{min(float(percent), 100):.1f}%"></i></span>'
    return f'<td class="{css_class}"{attributes}>{html.escape(text)}{bar}</td>'


def comparison_cells(row: TableRow) -> str:
    """Returns the cells gap, speed-up, tolerance and seeds, which span both lines."""
    start = 2 + len(HEADER)
    kind = {"within": "good", "outside": "bad"}.get(row.verdict.split(" ")[0], "")
    cells = [(row.gap, row.gap, kind), (row.speed_up, row.speed_up, ""),
             (row.verdict or row.tolerance, row.tolerance, kind), (row.seeds, row.seeds, "")]
    return "".join(f'<td rowspan="2" class="{kind}" data-column="{start + n}" data-value="{html.escape(value)}">'
                   f'{html.escape(text)}</td>' for n, (text, value, kind) in enumerate(cells))
