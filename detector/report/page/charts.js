"use strict";
// Elements, number formats and charts. All text is set as text, never as HTML: names may contain anything.

const root = document.documentElement;  // script errors are noted in data-failure, where a test can read them
for (const type of ["error", "unhandledrejection"])
  window.addEventListener(type, event => { root.dataset.failure = `${type}: ${event.message || event.reason}`; });
document.addEventListener("securitypolicyviolation", event => {
  root.dataset.failure = `policy: ${event.violatedDirective} ${event.sourceFile}`;
});

const SVG = "http://www.w3.org/2000/svg";
const data = JSON.parse(document.getElementById("data").textContent);

// Sets attributes and children of a node. An attribute "on..." is an event listener; null and false are left out.
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

// A value of -1 or NaN means that it is undefined; it is shown as "–".
const isKnown = value => typeof value === "number" && isFinite(value) && value >= 0;
const percent = (value, digits = 1) => isKnown(value) ? (100 * value).toFixed(digits) : "–";
const formatCount = value => value.toLocaleString("en").replaceAll(",", "\u202f");
function brief(value) {
  if (value >= 1e6) return (value / 1e6).toPrecision(3) + "M";
  if (value >= 1e4) return Math.round(value / 1e3) + "k";
  return value >= 100 ? String(Math.round(value)) : String(Number(value.toPrecision(2)));
}

function tile(value, label, small) {
  return h("div", {class: small ? "tile small" : "tile"}, h("b", {}, value), h("span", {}, label));
}
function section(title, note, ...content) {
  return h("section", {}, h("h2", {}, title), note ? h("p", {class: "note"}, note) : null, ...content);
}

// Horizontal bars; rows: [{name, value, text, kind}].
function bars(rows, maximum = Math.max(...rows.map(row => row.value), 1e-9)) {
  return h("div", {class: "rows"}, rows.map(row => [
    h("span", {class: "name"}, row.name),
    h("span", {class: "track"}, s("svg", {viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true"},
      s("rect", {class: "fill " + (row.kind || ""), width: Math.max(0, 100 * row.value / maximum), height: 10}))),
    h("span", {class: "value"}, row.text)]));
}

// Histograms of one or two data sets over the same bins, normalized; the second is an outline.
// parts: [{counts, edges}].
function histogram(title, caption, parts, names) {
  const width = 340, height = 150, foot = 20, bins = parts[0].counts.length, edges = parts[0].edges;
  const fractions = parts.map(part => {
    const total = part.counts.reduce((a, b) => a + b, 0) || 1;
    return part.counts.map(count => count / total);
  });
  const maximum = Math.max(...fractions.flat(), 1e-9);
  const x = bin => bin * width / bins, y = fraction => height - fraction / maximum * (height - 8);
  const chart = s("svg", {class: "chart", viewBox: `0 0 ${width} ${height + foot}`, role: "img", "aria-label": title});
  fractions[0].forEach((fraction, i) => {
    const lines = parts.map((part, n) =>
      `${names[n]}: ${formatCount(part.counts[i])} (${percent(fractions[n][i])} %)`);
    const tooltip = `${lines.join("\n")}\n${brief(edges[i])} to ${brief(edges[i + 1])}`;
    chart.append(s("rect", {class: "bar", x: x(i) + .5, width: Math.max(width / bins - 1, .5), y: y(fraction),
      height: height - y(fraction)}, s("title", {}, tooltip)));
  });
  if (fractions[1]) {
    const path = fractions[1].map((fraction, i) => `${i ? "L" : "M"}${x(i)},${y(fraction)}H${x(i + 1)}`).join("");
    chart.append(s("path", {class: "bar second", d: path}));
  }
  chart.append(s("path", {class: "axis", d: `M0,${height}H${width}`}));
  const tickStep = Math.max(1, Math.ceil(bins / 6));
  for (let i = 0; i <= bins; i += tickStep)
    chart.append(s("text", {x: x(i), y: height + 14, "text-anchor": i ? "middle" : "start"}, brief(edges[i])));
  return h("figure", {}, h("h3", {}, title), chart, h("figcaption", {}, caption));
}

// Curves over 0 ... 1; lines: [{name, x, y, kind}].
// options: diagonal: a dashed line y = x; tooltips: one for each point.
function curves(title, lines, xLabel, yLabel, options = {}) {
  const size = 470, left = 40, foot = 34, x = v => left + v * size, y = v => 8 + (1 - v) * size * .62, floor = y(0);
  const chart = s("svg", {class: lines.length > 24 ? "chart many" : "chart",
    viewBox: `0 0 ${left + size + 8} ${floor + foot}`, role: "img", "aria-label": title});
  for (const v of [0, .25, .5, .75, 1]) {
    chart.append(s("path", {class: "axis", d: `M${x(0)},${y(v)}H${x(1)}`}),
      s("text", {x: left - 6, y: y(v) + 4, "text-anchor": "end"}, v),
      s("text", {x: x(v), y: floor + 14, "text-anchor": "middle"}, v));
  }
  chart.append(s("text", {x: x(.5), y: floor + 29, "text-anchor": "middle"}, xLabel),
    s("text", {x: 10, y: y(.5), transform: `rotate(-90 10 ${y(.5)})`, "text-anchor": "middle"}, yLabel));
  if (options.diagonal) chart.append(s("path", {class: "diagonal", d: `M${x(0)},${y(0)}L${x(1)},${y(1)}`}));
  for (const line of lines) {
    const points = line.x.map((v, i) => [v, line.y[i]]).filter(([, v]) => isKnown(v));
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${x(a).toFixed(1)},${y(b).toFixed(1)}`).join("");
    chart.append(s("path", {class: "curve " + (line.kind || ""), d: path}, s("title", {}, line.name)));
    if (options.tooltips) points.forEach(([a, b], i) =>
      chart.append(s("circle", {class: "dot", cx: x(a), cy: y(b), r: 4}, s("title", {}, options.tooltips[i]))));
  }
  return chart;
}

// A table that a click on a column title sorts. columns: [{key, name, text(row), cell(row)}]; rows: objects, sorted by
// the column `sortKey` at first. Undefined values are always last.
function sortableTable(columns, rows, sortKey, descending = true) {
  const body = h("tbody"), head = h("tr");
  const show = () => {
    const isBlank = row => typeof row[sortKey] !== "string" && !isKnown(row[sortKey]);
    const sorted = [...rows].sort((a, b) => {
      const [p, q] = [a[sortKey], b[sortKey]], order = typeof p === "string" ? p.localeCompare(q) : p - q;
      return isBlank(a) - isBlank(b) || (descending ? -order : order) || 0;
    });
    body.replaceChildren(...sorted.map(row => h("tr", {}, columns.map(column => {
      const text = column.text ? column.text(row) : String(row[column.key]);
      return h("td", {class: text === "–" ? "none" : null}, column.cell ? column.cell(row) : text);
    }))));
    [...head.children].forEach((cell, i) => columns[i].key === sortKey ?
      cell.setAttribute("aria-sort", descending ? "descending" : "ascending") : cell.removeAttribute("aria-sort"));
  };
  head.append(...columns.map(column => h("th", {scope: "col"}, h("button", {type: "button", onclick: () => {
    descending = column.key === sortKey ? !descending : typeof (rows[0] || {})[column.key] !== "string";
    sortKey = column.key;
    show();
  }}, column.name))));
  show();
  return h("div", {class: "scroll"}, h("table", {class: "wide"}, h("thead", {}, head), body));
}
