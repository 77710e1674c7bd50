"""tables.html: the report as one page that needs nothing else, in light and dark."""

import html
import time

from detector.tables.render import HEADER, NOTHING, Line, by_table

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
# rem: row, printed or measured, the nine of HEADER, gap, speed-up, tolerance, seed
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


def as_html(found: list[Line]) -> str:
    """The whole page."""
    done = [one for one in found if one.gap]
    within = sum(one.verdict.startswith("within") for one in done)
    counts = [(len(found), "rows"), (len(done), "measured"), (within, "within their tolerance"),
              (len(found) - len(done), "not measured, or not finished")]
    summary = "".join(f"<div><b>{count}</b>{what}</div>" for count, what in counts)
    sections = "".join(section(title, members) for title, members in by_table(found).items())
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Fleet R-CNN: printed and measured</title><style>{STYLE}</style></head><body>
<h1>Printed and measured</h1>
<p>Every row of the published tables, as it was printed and as this program measured it. A measured figure is read from
the run's own files; where there is no run, it says so. A gap is in percent points of mAP. Written
{time.strftime("%Y-%m-%d %H:%M")}.</p>
<div class="summary">{summary}</div>
{sections}<script>{SCRIPT}</script></body></html>
"""


def section(title: str, members: list[Line]) -> str:
    columns = ["row", "", *HEADER.values(), "gap", "speed-up", "tolerance", "seed"]
    widths = "".join(f'<col style="width:{width}rem">' for width in WIDTHS)
    head = "".join(f'<th data-column="{n}">{html.escape(name)}</th>' for n, name in enumerate(columns))
    sources = dict.fromkeys(one.source for one in members)
    bodies = "".join(body(one, len(sources) > 1) for one in members)
    title += f", printed by {one}" if len(sources) == 1 and (one := next(iter(sources))) else ""
    return (f'<h2>{html.escape(title)}</h2><div class="frame"><table>{widths}<thead><tr>{head}</tr></thead>'
            f'{bodies}</table></div>\n')


def body(one: Line, with_source: bool) -> str:
    """The two lines of a row."""
    printed_by = f"<small>printed by {html.escape(one.source)}</small>" if with_source and one.source else ""
    where = printed_by + "".join(f"<small>{html.escape(text)}</small>" for text in (
        [one.hardware, f"commit {one.commit or 'unknown'}, {one.date}"] if one.measured else []))
    where += f'<small class="open">{html.escape(one.remark)}</small>' if one.remark else ""
    printed = "".join(cell(n, key, one.printed[key]) for n, key in enumerate(HEADER, start=2))
    first = (f'<td class="name" rowspan="2" data-column="0" data-value="{html.escape(one.row)}">{html.escape(one.row)}'
             f'{where}</td><td class="kind">printed</td>{printed}')
    if not one.measured:
        second = f'<td class="kind">measured</td><td class="none" colspan="{len(HEADER)}">{NOTHING}</td>'
    else:
        second = '<td class="kind">measured</td>' + "".join(cell(0, key, one.measured[key]) for key in HEADER)
    return (f'<tbody><tr class="printed">{first}{comparison(one)}</tr><tr class="measured">{second}</tr></tbody>')


def cell(column: int, key: str, text: str) -> str:
    """One cell; the column number, which sorting goes by, only where it is not 0."""
    attributes = f' data-column="{column}" data-value="{html.escape(text)}"' if column else ""
    classes = "value left" if key == "model" else f"value {key}"
    share = text.split(" ")[0] if key == "map" else ""
    bar = f'<span class="bar"><i style="width:{min(float(share), 100):.1f}%"></i></span>' if _is_number(share) else ""
    return f'<td class="{classes}"{attributes}>{html.escape(text)}{bar}</td>'


def comparison(one: Line) -> str:
    """Gap, speed-up, tolerance and seeds, over both lines."""
    start = 2 + len(HEADER)
    kind = {"within": "good", "outside": "bad"}.get(one.verdict.split(" ")[0], "")
    values = [(one.gap, one.gap, kind), (one.speed_up, one.speed_up, ""),
              (one.verdict or one.tolerance, one.tolerance, kind), (one.seeds, one.seeds, "")]
    return "".join(f'<td rowspan="2" class="{kind}" data-column="{start + n}" data-value="{html.escape(value)}">'
                   f'{html.escape(text)}</td>' for n, (text, value, kind) in enumerate(values))


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
