// Everything of the report that is not a picture: numbers, costs, curves, classes, confusions.

const KINDS = {
  localisation: "right class, but the box overlaps its object by 0.1 to 0.5 only",
  class: "the box fits, the class is another",
  both: "another class, and the box does not fit either",
  duplicate: "the object had been found by a better detection",
  background: "there is no object here",
  missed: "an object that nothing found",
};
const NAMES = {AP: "AP", AP50: "AP at IoU 0.50", AP75: "AP at IoU 0.75", APs: "AP, small", APm: "AP, medium", APl: "AP, large",
  AR1: "AR, 1 detection", AR10: "AR, 10 detections", AR100: "AR, 100 detections", ARs: "AR, small", ARm: "AR, medium", ARl: "AR, large",
  AP_11point: "AP, 11 points", AP_weighted: "AP, by number of objects"};

function headline() {
  const all = Object.entries(data.metrics), large = all.filter(([key]) => key.startsWith("AP")).slice(0, 3), small = all.filter(one => !large.includes(one));
  const text = ([key, value]) => key.startsWith("AP") || key.startsWith("AR") ? percent(value) : value.toFixed(4);
  return [h("div", {class: "tiles"}, large.map(one => tile(text(one), NAMES[one[0]] || one[0]))),
    small.length ? h("div", {class: "tiles"}, small.map(one => tile(text(one), NAMES[one[0]] || one[0].replaceAll("_", " "), true))) : null];
}

function costs() {
  const rows = Object.entries(data.cost).map(([name, value]) => ({name: h("span", {}, h("span", {class: "dot-key d-" + name}), name), value: Math.max(value, 0),
    text: percent(value), kind: "f-" + name, about: KINDS[name]})).sort((a, b) => b.value - a.value);
  return section("What each kind of error costs", `AP at IoU 0.5 is ${percent(data.ap50)}. So many points more it would be if all errors of one kind were mended, and the others left as they are.`,
    bars(rows, Math.max(...rows.map(row => row.value), .01)),
    h("p", {class: "note kinds"}, Object.entries(KINDS).map(([name, about]) => [h("b", {}, name), ` ${about}. `])));
}

function sizes() {
  const plain = key => ({key, name: key, text: row => percent(row[key])});
  const recall = data.sizes.some(row => known(row.AR)) ? [plain("AR")] : [];
  return h("figure", {}, h("h3", {}, "By size"), sortable([{key: "name", name: "size"}, {key: "objects", name: "objects", text: row => count(row.objects)}, plain("AP"), ...recall,
    {key: "found", name: "found, %", text: row => percent(row.found)}, {key: "missed", name: "nothing near, %", text: row => percent(row.missed)}], data.sizes, "objects"),
    h("figcaption", {}, "Small: area below 32², large: above 96² pixels. Found: at IoU 0.5 by a detection of any score; nothing near: not even with a wrong class or a loose box."));
}

let chosenCurve = () => {};
function precisionRecall() {
  const all = column(data.precision, Uint16Array), across = Array.from({length: 101}, (_, i) => i / 100);
  const known = data.per_class.map((row, c) => ({row, c})).filter(({row}) => row.objects > 0);
  const of = c => Array.from(all.subarray(101 * c, 101 * c + 101), v => v / FULL);
  const lines = [...known.slice(0, 100).map(({row, c}) => ({name: row.name, x: across, y: of(c), kind: "thin"})), {name: "mean of the classes", x: across, y: data.mean_precision}];
  const holder = h("div", {}), caption = h("figcaption", {});
  chosenCurve = label => {
    const own = label && data.per_class[label - 1].objects > 0 ? [{name: data.classes[label - 1], x: across, y: of(label - 1), kind: "second"}] : [];
    holder.replaceChildren(curves("precision over recall at IoU 0.5", [...lines, ...own], "recall", "precision"));
    caption.replaceChildren(h("span", {class: "key"}, h("i"), "mean of the classes"), own.length ? h("span", {class: "key"}, h("i", {class: "second"}), own[0].name) : "", "IoU 0.5; a thin line for each class.");
  };
  chosenCurve(0);
  return h("figure", {}, h("h3", {}, "Precision over recall"), holder, caption);
}

function calibrationOf() {
  const {count: counts, score, right, error} = data.calibration, some = counts.map((c, i) => i).filter(i => counts[i]);
  const chart = curves("share of right detections over score", [{name: "share that is right", x: some.map(i => score[i]), y: some.map(i => right[i]), kind: "second"}],
    "score", "share that is right", {ideal: true, dots: some.map(i => `${count(counts[i])} detections of score ${score[i].toFixed(2)}: ${percent(right[i])} % right`)});
  return h("figure", {}, h("h3", {}, "Do scores mean what they say?"), chart, h("figcaption", {},
    `On the dashed line a score of 0.8 is right eight times of ten; below it scores are too sure. Expected calibration error: ${error.toFixed(3)}.`));
}

function classes(choose) {
  const number = key => ({key, name: key, text: row => count(row[key])}), part = (key, name = key) => ({key, name, text: row => percent(row[key])});
  const numbers = Object.keys(data.per_class[0] || {}).filter(key => /^A[PR]/.test(key));
  const rows = data.per_class.map((row, c) => ({...row, label: c + 1}));
  const table = sortable([{key: "name", name: "class", text: row => row.name, cell: row => h("button", {type: "button", class: "link", onclick: () => choose(row.label)}, row.name)},
    number("objects"), number("detections"), ...numbers.map(key => part(key, key.replace("_11point", ", 11 points"))), part("precision"), part("recall")], rows, numbers[0] || "objects", false);
  table.classList.add("tall");
  return section("Classes", `${count(rows.length)} classes. Precision and recall at score ${data.best_score.toFixed(2)}, where F1 over all classes is best (${percent(data.f1)} %). A name leads to its pictures.`, table);
}

const MATRIX = 16;  // classes that are shown beside each other
function confusions(choose) {
  const name = number => number ? data.classes[number - 1] : "nothing", weight = new Map(), cells = new Map();
  for (const [t, p, n] of data.confusion) {
    cells.set(`${t},${p}`, n);
    for (const label of t === p ? [t] : [t, p]) weight.set(label, (weight.get(label) || 0) + (t === p ? 1e-3 : t && p ? 1 : 1e-2) * n);
  }
  const shown = [...weight.keys()].filter(label => label).sort((a, b) => weight.get(b) - weight.get(a)).slice(0, MATRIX).sort((a, b) => a - b), all = [...shown, 0];
  const sum = new Map(); for (const [t, , n] of data.confusion) sum.set(t, (sum.get(t) || 0) + n);
  const cell = (t, p) => {
    const n = cells.get(`${t},${p}`) || 0, part = n / (sum.get(t) || 1), node = h("td", {title: `${name(t)}, taken for ${name(p)}: ${n}`, class: n ? null : "none"}, t || p ? (n ? brief(n) : "·") : "");
    if (n && (t || p)) node.style.background = `color-mix(in srgb, var(${t === p ? "--accent" : "--second"}) ${Math.round(8 + 62 * part)}%, var(--wash))`;
    return node;
  };
  const matrix = h("table", {class: "matrix"}, h("thead", {}, h("tr", {}, h("td"), all.map(p => h("th", {scope: "col"}, name(p))))),
    h("tbody", {}, all.map(t => h("tr", {}, h("th", {scope: "row", title: name(t)}, name(t)), all.map(p => cell(t, p))))));
  const rows = data.confusion.filter(([t, p]) => t && p && t !== p).slice(0, 200).map(([t, p, n]) => ({truth: name(t), found: name(p), n, share: n / (sum.get(t) || 1), p}));
  const list = sortable([{key: "truth", name: "is", cell: row => h("button", {type: "button", class: "link", onclick: () => choose(row.p, "class")}, row.truth)}, {key: "found", name: "taken for"},
    {key: "n", name: "times", text: row => count(row.n)}, {key: "share", name: "%", text: row => percent(row.share)}], rows, "n");
  list.classList.add("tall");
  return section("Confusions", `At score ${data.best_score.toFixed(2)} and IoU 0.5. Rows: what is there; columns: what it was taken for; “nothing”: a missed object, or a detection of none.` +
    (data.classes.length > MATRIX ? ` The ${MATRIX} classes most often confused.` : ""),
    h("div", {class: "beside"}, h("div", {class: "scroll"}, matrix), rows.length ? list : h("p", {class: "note"}, "No class was taken for another.")));
}
