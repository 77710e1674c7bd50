"use strict";
// Elements, numbers and charts. All text is set as text: names may contain anything.

const root = document.documentElement;  // a fault of the page is told here, where a test sees it
for (const kind of ["error", "unhandledrejection"])
  window.addEventListener(kind, event => { root.dataset.fault = `${kind}: ${event.message || event.reason}`; });
document.addEventListener("securitypolicyviolation", event => { root.dataset.fault = `policy: ${event.violatedDirective} ${event.sourceFile}`; });

const SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("data").textContent);

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(9).filter(child => child !== null && child !== undefined));
  return node;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// -1 and NaN mean: there is nothing to be measured.
const known = value => typeof value === "number" && isFinite(value) && value >= 0;
const percent = (value, digits = 1) => known(value) ? (100 * value).toFixed(digits) : "–";
const count = value => value.toLocaleString("en").replaceAll(",", "\u202f");
const brief = value => value >= 1e6 ? (value / 1e6).toPrecision(3) + "M" : value >= 1e4 ? Math.round(value / 1e3) + "k" :
  value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));

function tile(value, label, small) {
  return h("div", {class: small ? "tile small" : "tile"}, h("b", {}, value), h("span", {}, label));
}
function section(title, about, ...content) {
  return h("section", {}, h("h2", {}, title), about ? h("p", {class: "note"}, about) : null, ...content);
}

// Horizontal bars: [{name, value, text}]
function bars(rows, most = Math.max(...rows.map(row => row.value), 1e-9)) {
  return h("div", {class: "rows"}, rows.map(row => [
    h("span", {class: "name"}, row.name),
    h("span", {class: "track"}, s("svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"},
      s("rect", {class: "fill " + (row.kind || ""), width: Math.max(0, 100 * row.value / most), height: 10}))),
    h("span", {class: "value"}, row.text)]));
}

// A histogram of one or two data sets over the same bins; the second is an outline.
function histogram(title, about, parts, names) {
  const width = 340, height = 150, foot = 20, bins = parts[0].counts.length;
  const shares = parts.map(part => { const all = part.counts.reduce((a, b) => a + b, 0) || 1; return part.counts.map(c => c / all); });
  const most = Math.max(...shares.flat(), 1e-9), x = i => i * width / bins, y = v => height - v / most * (height - 8);
  const chart = s("svg", {class: "chart", viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": title});
  shares[0].forEach((share, i) => chart.append(s("rect", {class: "bar", x: x(i) + .5, width: Math.max(width / bins - 1, .5), y: y(share),
    height: height - y(share)}, s("title", {}, parts.map((part, n) =>
      `${names[n]}: ${count(part.counts[i])} (${percent(shares[n][i])} %)`).join("\n") +
      `\n${brief(parts[0].edges[i])} to ${brief(parts[0].edges[i + 1])}`))));
  if (shares[1]) {
    const path = shares[1].map((share, i) => `${i ? "L" : "M"}${x(i)},${y(share)}H${x(i + 1)}`).join("");
    chart.append(s("path", {class: "bar second", d: path}));
  }
  chart.append(s("path", {class: "axis", d: `M0,${height}H${width}`}));
  const every = Math.max(1, Math.ceil(bins / 6));
  for (let i = 0; i <= bins; i += every) chart.append(s("text", {x: x(i), y: height + 14, "text-anchor": i ? "middle" : "start"}, brief(parts[0].edges[i])));
  return h("figure", {}, h("h3", {}, title), chart, h("figcaption", {}, about));
}

// Curves over 0 … 1: [{name, x, y, kind}], with names of the axes; options: a dashed ideal; dots, a title for each point.
function curves(title, lines, across, up, options = {}) {
  const size = 470, left = 40, foot = 34, x = v => left + v * size, y = v => 8 + (1 - v) * size * .62, floor = y(0);
  const chart = s("svg", {class: lines.length > 24 ? "chart many" : "chart", viewBox: `0 0 ${left + size + 8} ${floor + foot}`, role: "img", "aria-label": title});
  for (const v of [0, .25, .5, .75, 1]) {
    chart.append(s("path", {class: "axis", d: `M${x(0)},${y(v)}H${x(1)}`}), s("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, v),
      s("text", {x: x(v), y: floor + 14, "text-anchor": "middle"}, v));
  }
  chart.append(s("text", {x: x(.5), y: floor + 29, "text-anchor": "middle"}, across),
    s("text", {x: 10, y: y(.5), transform: `rotate(-90 10 ${y(.5)})`, "text-anchor": "middle"}, up));
  if (options.ideal) chart.append(s("path", {class: "ideal", d: `M${x(0)},${y(0)}L${x(1)},${y(1)}`}));
  for (const line of lines) {
    const points = line.x.map((v, i) => [v, line.y[i]]).filter(([, v]) => known(v));
    const node = s("path", {class: "curve " + (line.kind || ""), d: points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("")},
      s("title", {}, line.name));
    chart.append(node);
    if (options.dots) points.forEach(([a, b], i) => chart.append(s("circle", {class: "dot", cx: x(a), cy: y(b), r: 4}, s("title", {}, options.dots[i]))));
  }
  return chart;
}

// A table that sorts: columns [{key, name, text(row), cell(row)}], rows of objects; sorted by `first` to begin with. What is
// not known stands last.
function sortable(columns, rows, first, falling = true) {
  const body = h("tbody"), head = h("tr");
  let by = first;
  const show = () => {
    const blank = row => typeof row[by] !== "string" && !known(row[by]);
    const sorted = [...rows].sort((a, b) => {
      const [p, q] = [a[by], b[by]], order = typeof p === "string" ? p.localeCompare(q) : p - q;
      return blank(a) - blank(b) || (falling ? -order : order) || 0;
    });
    body.replaceChildren(...sorted.map(row => h("tr", {}, columns.map(column => {
      const text = column.text ? column.text(row) : String(row[column.key]);
      return h("td", {class: text === "–" ? "none" : null}, column.cell ? column.cell(row) : text);
    }))));
    [...head.children].forEach((cell, i) => columns[i].key === by ?
      cell.setAttribute("aria-sort", falling ? "descending" : "ascending") : cell.removeAttribute("aria-sort"));
  };
  head.append(...columns.map(column => h("th", {scope: "col"}, h("button", {type: "button", onclick: () => {
    falling = column.key === by ? !falling : typeof (rows[0] || {})[column.key] !== "string";
    by = column.key;
    show();
  }}, column.name))));
  show();
  return h("div", {class: "scroll"}, h("table", {class: "wide"}, h("thead", {}, head), body));
}
