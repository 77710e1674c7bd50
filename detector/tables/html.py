"""Renders the comparison of published and measured rows as one self-contained page."""

import html
import time

from detector.report.page.build import FOLDER
from detector.tables.render import HEADER, NOT_MEASURED, TableRow, by_table

# Beside page.css, the style of all pages.
STYLE = """
:root { --good: light-dark(#1a7f4b, #5bc98d); --bad: light-dark(#b3261e, #ff8a80);
  --open: light-dark(#8a6100, #e3b341); }
main { max-width: 108rem; }
h2 { margin: 2.2rem 0 .7rem; }
.frame { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.frame table { width: 100%; min-width: 80rem; table-layout: fixed; }
.frame th, .frame td { padding: .42rem .55rem; border: 0; min-width: 0; }
.frame th { font-weight: 600; font-size: .8rem; position: static; background: none; cursor: pointer; }
.frame th:hover { color: var(--ink); }
th[data-by="up"]::after { content: " ↑"; } th[data-by="down"]::after { content: " ↓"; }
thead tr { border-bottom: 1px solid var(--line); }
tbody + tbody { border-top: 1px solid var(--line); }
.frame tbody tr:hover td { background: var(--card); }
.frame td.name, .frame th:first-child { text-align: left; padding-left: .8rem; position: sticky; left: 0; z-index: 1;
  background: var(--card); }
.frame td.name { font-weight: 600; vertical-align: top; white-space: normal; }
td.name small { display: block; font-weight: 400; line-height: 1.35; }
.frame td.kind { text-align: left; color: var(--soft); font-size: .85rem; padding-left: .55rem; white-space: nowrap; }
.frame th:nth-child(-n+3), .frame td.left { text-align: left; }
td.left { white-space: normal; overflow-wrap: anywhere; }
tr.printed td { padding-bottom: .15rem; } tr.measured td { padding-top: .15rem; }
tr.measured td.map { font-weight: 600; }
.frame td.none { text-align: left; color: var(--soft); font-style: italic; }
.good { color: var(--good); } .bad { color: var(--bad); } .open { color: var(--open); }
small { color: var(--soft); } small.open { color: var(--open); }
.bar { display: block; height: 3px; margin-top: 2px; border-radius: 2px; background: var(--wash); }
.bar i { display: block; height: 100%; border-radius: 2px; background: var(--faint); }
tr.measured .bar i { background: var(--accent); }
@media (max-width: 40rem) { .frame col:first-child { width: 9rem !important; }
  .frame table { min-width: 66rem; font-size: .82rem; } }
"""
# Column widths in rem: row, printed or measured, the nine of HEADER, gap, speed-up, tolerance, seed.
WIDTHS = (16.5, 5, 7.5, 3.8, 3.2, 3.4, 5.2, 3.8, 6.5, 5.3, 6.3, 3.2, 4.5, 5.8, 4)
SCRIPT = """
document.querySelector(".head").append(themeButton());
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
    summary = "".join(f'<div class="tile small"><b>{count}</b><span>{name}</span></div>' for count, name in counts)
    style, theme = ((FOLDER / name).read_text(encoding="utf-8") for name in ("page.css", "theme.js"))
    sections = "".join(render_table(title, members) for title, members in by_table(rows).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fleet R-CNN: published and measured results</title><style>{style}{STYLE}</style></head><body><main>
<header class="top"><div class="head"><h1>Published and measured results</h1></div>
<p class="soft">Every row of the published tables, as printed and as measured with this package. Measured figures are
read from the files of the runs. The gap is measured minus printed mAP, in percent points. Written
{time.strftime("%Y-%m-%d %H:%M")}.</p></header>
<div class="tiles">{summary}</div>
{sections}</main><script>{theme}{SCRIPT}</script></body></html>
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
