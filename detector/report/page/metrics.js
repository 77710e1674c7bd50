// The parts of the report without images: metrics, costs of errors, curves, classes, confusions.

const ERROR_NOTES = {
  localization: "right class, IoU with the object from 0.1 to 0.5",
  classification: "wrong class, IoU with the object 0.5 or more",
  both: "wrong class, IoU with the object from 0.1 to 0.5",
  duplicate: "another detection with a higher score matches the object",
  background: "IoU with every object below 0.1",
  missed: "an object without a correct detection, and without a localization or classification error on it",
};
const METRIC_NAMES = {AP: "AP", AP50: "AP at IoU 0.50", AP75: "AP at IoU 0.75", APs: "AP, small", APm: "AP, medium",
  APl: "AP, large", AR1: "AR, 1 detection", AR10: "AR, 10 detections", AR100: "AR, 100 detections", ARs: "AR, small",
  ARm: "AR, medium", ARl: "AR, large", AP_11point: "AP, 11 points", AP_weighted: "AP, weighted by number of objects"};

function metricTiles() {
  const all = Object.entries(data.metrics), large = all.filter(([key]) => key.startsWith("AP")).slice(0, 3);
  const small = all.filter(entry => !large.includes(entry));
  const text = ([key, value]) => key.startsWith("AP") || key.startsWith("AR") ? percent(value) : value.toFixed(4);
  const name = ([key]) => METRIC_NAMES[key] || key.replaceAll("_", " ");
  return [h("div", {class: "tiles"}, large.map(entry => tile(text(entry), name(entry)))),
    small.length ? h("div", {class: "tiles"}, small.map(entry => tile(text(entry), name(entry), true))) : null];
}

function errorCosts() {
  const rows = Object.entries(data.cost).map(([kind, cost]) => ({
    name: h("span", {}, h("span", {class: "dot-key d-" + kind}), kind), value: Math.max(cost, 0), text: percent(cost),
    kind: "f-" + kind})).sort((a, b) => b.value - a.value);
  return section("Error types", `AP at IoU 0.5 is ${percent(data.ap50)}. The bars show by how many points it would ` +
    "rise if all errors of one type were fixed and the others left as they are (TIDE).",
  bars(rows, Math.max(...rows.map(row => row.value), .01)),
  h("p", {class: "note kinds"}, Object.entries(ERROR_NOTES).map(([kind, note]) => [h("b", {}, kind), `: ${note}. `])));
}

function sizeTable() {
  const percentColumn = (key, name = key) => ({key, name, text: row => percent(row[key])});
  const ar = data.sizes.some(row => isKnown(row.AR)) ? [percentColumn("AR")] : [];
  return h("figure", {}, h("h3", {}, "By size"), sortableTable([{key: "name", name: "size"},
    {key: "objects", name: "objects", text: row => formatCount(row.objects)}, percentColumn("AP"), ...ar,
    percentColumn("recall", "recall, %"), percentColumn("missed", "missed, %")], data.sizes, "objects"),
  h("figcaption", {}, "Small: area below 32², large: above 96² pixels. Recall: at IoU 0.5, with detections of any " +
    "score. Missed: neither detected, nor a localization or classification error on the object."));
}

let showClassCurve = () => {};  // (label): adds the curve of a class to the precision-recall curves
function precisionRecall() {
  const precision = unpackColumn(data.precision, Uint16Array), recalls = Array.from({length: 101}, (_, i) => i / 100);
  const ofClass = c => Array.from(precision.subarray(101 * c, 101 * c + 101), v => v / UINT16_MAX);
  const withObjects = data.per_class.map((row, c) => ({row, c})).filter(({row}) => row.objects > 0);
  const lines = [
    ...withObjects.slice(0, 100).map(({row, c}) => ({name: row.name, x: recalls, y: ofClass(c), kind: "thin"})),
    {name: "mean over classes", x: recalls, y: data.mean_precision}];
  const holder = h("div", {}), caption = h("figcaption", {});
  showClassCurve = label => {
    const selected = label && data.per_class[label - 1].objects > 0 ?
      [{name: data.classes[label - 1], x: recalls, y: ofClass(label - 1), kind: "second"}] : [];
    holder.replaceChildren(curves("precision over recall at IoU 0.5", [...lines, ...selected], "recall", "precision"));
    caption.replaceChildren(h("span", {class: "key"}, h("i"), "mean over classes"),
      selected.length ? h("span", {class: "key"}, h("i", {class: "second"}), selected[0].name) : "",
      "IoU 0.5; a thin line for each class.");
  };
  showClassCurve(0);
  return h("figure", {}, h("h3", {}, "Precision-recall curve"), holder, caption);
}

function calibrationCurve() {
  const {count, score, precision, error} = data.calibration, bins = count.map((_, i) => i).filter(i => count[i]);
  const tooltips = bins.map(i => `${formatCount(count[i])} detections, mean score ${score[i].toFixed(2)}: ` +
    `${percent(precision[i])} % correct`);
  const line = {name: "precision", x: bins.map(i => score[i]), y: bins.map(i => precision[i]), kind: "second"};
  const chart = curves("precision over score", [line], "score", "precision", {diagonal: true, tooltips});
  return h("figure", {}, h("h3", {}, "Calibration of scores"), chart, h("figcaption", {},
    "On the dashed line, 80 % of the detections with a score of 0.8 are correct; below it, scores are overconfident. " +
    `Expected calibration error: ${error.toFixed(3)}.`));
}

function classTable(selectClass) {
  const countColumn = key => ({key, name: key, text: row => formatCount(row[key])});
  const percentColumn = (key, name = key) => ({key, name, text: row => percent(row[key])});
  const metrics = Object.keys(data.per_class[0] || {}).filter(key => /^A[PR]/.test(key));
  const rows = data.per_class.map((row, c) => ({...row, label: c + 1}));
  const nameCell = row => h("button", {type: "button", class: "link", onclick: () => selectClass(row.label)}, row.name);
  const table = sortableTable([{key: "name", name: "class", text: row => row.name, cell: nameCell},
    countColumn("objects"), countColumn("detections"),
    ...metrics.map(key => percentColumn(key, key.replace("_11point", ", 11 points"))), percentColumn("precision"),
    percentColumn("recall")], rows, metrics[0] || "objects", false);
  table.classList.add("tall");
  return section("Classes", `${formatCount(rows.length)} classes. Precision and recall are at the score threshold ` +
    `${data.best_score.toFixed(2)}, where F1 over all classes is highest (${percent(data.f1)} %). A click on a name ` +
    "shows the images of the class.", table);
}

const MATRIX_SIZE = 16;  // classes in the confusion matrix
// Returns the labels that are confused most often, in their order. Correct detections and background count little.
function mostConfused() {
  const weights = new Map();
  for (const [true_, predicted, n] of data.confusion) {
    const weight = true_ === predicted ? 1e-3 : true_ && predicted ? 1 : 1e-2;
    for (const label of true_ === predicted ? [true_] : [true_, predicted])
      weights.set(label, (weights.get(label) || 0) + weight * n);
  }
  return [...weights.keys()].filter(label => label).sort((a, b) => weights.get(b) - weights.get(a))
    .slice(0, MATRIX_SIZE).sort((a, b) => a - b);
}

function confusions(selectClass) {
  const name = label => label ? data.classes[label - 1] : "background", counts = new Map(), rowSums = new Map();
  for (const [true_, predicted, n] of data.confusion) {
    counts.set(`${true_},${predicted}`, n);
    rowSums.set(true_, (rowSums.get(true_) || 0) + n);
  }
  const labels = [...mostConfused(), 0];
  const matrixCell = (true_, predicted) => {
    const n = counts.get(`${true_},${predicted}`) || 0, fraction = n / (rowSums.get(true_) || 1);
    const isDefined = true_ || predicted;
    const node = h("td", {title: `${name(true_)}, detected as ${name(predicted)}: ${n}`, class: n ? null : "none"},
      isDefined ? (n ? brief(n) : "·") : "");
    const color = true_ === predicted ? "--accent" : "--second";
    if (n && isDefined)
      node.style.background = `color-mix(in srgb, var(${color}) ${Math.round(8 + 62 * fraction)}%, var(--wash))`;
    return node;
  };
  const matrix = h("table", {class: "matrix"},
    h("thead", {}, h("tr", {}, h("td"), labels.map(label => h("th", {scope: "col"}, name(label))))),
    h("tbody", {}, labels.map(t => h("tr", {}, h("th", {scope: "row", title: name(t)}, name(t)),
      labels.map(p => matrixCell(t, p))))));
  const rows = data.confusion.filter(([t, p]) => t && p && t !== p).slice(0, 200).map(([t, p, n]) =>
    ({true_: name(t), predicted: name(p), n, fraction: n / (rowSums.get(t) || 1), label: p}));
  const trueCell = row => h("button", {type: "button", class: "link",
    onclick: () => selectClass(row.label, "classification")}, row.true_);
  const list = sortableTable([{key: "true_", name: "true class", cell: trueCell},
    {key: "predicted", name: "detected as"}, {key: "n", name: "times", text: row => formatCount(row.n)},
    {key: "fraction", name: "%", text: row => percent(row.fraction)}], rows, "n");
  list.classList.add("tall");
  return section("Confusion matrix", `At score threshold ${data.best_score.toFixed(2)} and IoU 0.5. ` +
    "Rows: true class; columns: detected class. The column “background” holds missed objects, the row “background” " +
    "false detections." +
    (data.classes.length > MATRIX_SIZE ? ` Shown are the ${MATRIX_SIZE} classes that are confused most often.` : ""),
  h("div", {class: "beside"}, h("div", {class: "scroll"}, matrix),
    rows.length ? list : h("p", {class: "note"}, "No class is confused with another.")));
}
