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
  const all = Object.entries(data.metrics).filter(([key]) => /^A[PR]/.test(key));
  const large = all.filter(([key]) => key.startsWith("AP")).slice(0, 3);
  const small = all.filter(entry => !large.includes(entry));
  const losses = Object.entries(data.metrics).filter(([key]) => key.startsWith("loss"));
  const name = key => METRIC_NAMES[key] || key.replaceAll("_", " ");
  const tiles = (entries, isSmall) => h("div", {class: "tiles"},
    entries.map(([key, value]) => tile(percent(value), name(key), isSmall)));
  return [tiles(large), small.length ? tiles(small, true) : null, losses.length ? h("p", {class: "note"},
    losses.map(([key, value]) => `${name(key)} ${value.toFixed(4)}`).join(", ")) : null];
}

function errorCosts() {
  const rows = Object.entries(data.cost).map(([kind, cost]) => ({
    name: h("span", {}, h("span", {class: "dot-key d-" + kind}), kind), value: Math.max(cost, 0), text: percent(cost),
    kind: "f-" + kind})).sort((a, b) => b.value - a.value);
  return section("Error types", `AP at IoU 0.5 is ${percent(data.ap50)}. The bars show by how many points it would ` +
    "rise if all errors of one type were fixed and the others left as they are (TIDE); a full bar would be all " +
    "that is missing to 100.",
  bars(rows, Math.max(...rows.map(row => row.value), 1 - data.ap50, .01)),
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
