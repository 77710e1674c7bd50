// Precision, recall and confusion of the classes at the score and NMS thresholds that the sliders show.

// Returns [[true label, predicted label, count]], 0 is background, as errors_at_threshold of
// detector/metrics/operating_point.py: a false positive is confused with an object of another class that was not
// detected, each object at most once, by falling score. At the default thresholds these are the evaluation's counts.
function confusionCounts() {
  if (state.score === DEFAULTS.score && state.nms === DEFAULTS.nms) return data.confusion;
  const counts = new Map(), filter = currentFilter();
  const isMatch = iou => data.match_rule === "voc" ? iou > MATCH_IOU : iou >= MATCH_IOU;
  const add = (true_, predicted) => {
    const key = true_ * 65536 + predicted;
    counts.set(key, (counts.get(key) || 0) + 1);
  };
  for (const image of images) {
    const missed = new Set();
    for (const object of image.objects) {
      if (object.flags) continue;
      if (isDetected(object, filter)) add(object.label, object.label);
      else missed.add(object);
    }
    for (const det of image.detections) {
      if (!isShown(det, filter) || !FALSE_POSITIVE.has(det.kind)) continue;
      let best = null, bestIou = 0;
      for (const object of missed) {
        const iou = object.label === det.label ? 0 : boxIou(det.at, object.at);
        if (isMatch(iou) && iou >= bestIou) [best, bestIou] = [object, iou];
      }
      missed.delete(best);
      add(best ? best.label : 0, det.label);
    }
    for (const object of missed) add(object.label, 0);
  }
  return [...counts].map(([key, n]) => [Math.floor(key / 65536), key % 65536, n]).sort((a, b) => b[2] - a[2]);
}

const MATRIX_SIZE = 16;  // classes in the confusion matrix
let shownThresholds = "";
const confusionUpdates = [];  // functions of the counts that show them
function showConfusions() {
  const thresholds = `${state.score} ${state.nms}`;
  if (!confusionUpdates.length || thresholds === shownThresholds) return;
  shownThresholds = thresholds;
  const counts = confusionCounts();
  for (const update of confusionUpdates) update(counts);
}
const thresholdNote = () => `at score threshold ${state.score.toFixed(2)}` +
  (images.length < data.num_images && state.score !== DEFAULTS.score ?
    `, of the ${formatCount(images.length)} images on this page` : "");

function classTable(selectClass) {
  const countColumn = key => ({key, name: key, text: row => formatCount(row[key])});
  const percentColumn = (key, name = key) => ({key, name, text: row => percent(row[key])});
  const metrics = Object.keys(data.per_class[0] || {}).filter(key => /^A[PR]/.test(key));
  const nameCell = row => h("button", {type: "button", class: "link", onclick: () => selectClass(row.label)}, row.name);
  const holder = h("div", {}), note = h("p", {class: "note"});
  confusionUpdates.push(counts => {
    const diagonal = new Map(), predicted = new Map(), true_ = new Map();
    for (const [t, p, n] of counts) {
      if (t === p) diagonal.set(t, n);
      predicted.set(p, (predicted.get(p) || 0) + n);
      true_.set(t, (true_.get(t) || 0) + n);
    }
    const ratio = (label, sums) => sums.get(label) ? (diagonal.get(label) || 0) / sums.get(label) : -1;
    const rows = data.per_class.map((row, c) => ({...row, label: c + 1, precision: ratio(c + 1, predicted),
      recall: ratio(c + 1, true_)}));
    const table = sortableTable([{key: "name", name: "class", text: row => row.name, cell: nameCell},
      countColumn("objects"), countColumn("detections"),
      ...metrics.map(key => percentColumn(key, key.replace("_11point", ", 11 points"))), percentColumn("precision"),
      percentColumn("recall")], rows, metrics[0] || "objects", false);
    table.classList.add("tall");
    holder.replaceChildren(table);
    const best = data.f1 > 0 ? `highest (${percent(data.f1)} %) at ${data.best_score.toFixed(2)}` : "0 at any score";
    note.textContent = `${formatCount(rows.length)} classes. Precision and recall are ${thresholdNote()}; F1 over ` +
      `all classes is ${best}. A click on a name shows the images of the class.`;
  });
  return section("Classes", null, note, h("div", {class: "controls"}, sliders()), holder);
}

// Returns the labels that are confused most often, in their order. Correct detections and background count little.
function mostConfused(confusion) {
  const weights = new Map();
  for (const [true_, predicted, n] of confusion) {
    const weight = true_ === predicted ? 1e-3 : true_ && predicted ? 1 : 1e-2;
    for (const label of true_ === predicted ? [true_] : [true_, predicted])
      weights.set(label, (weights.get(label) || 0) + weight * n);
  }
  return [...weights.keys()].filter(label => label).sort((a, b) => weights.get(b) - weights.get(a))
    .slice(0, MATRIX_SIZE).sort((a, b) => a - b);
}

function confusionMatrix(confusion, selectClass) {
  const name = label => label ? data.classes[label - 1] : "background", counts = new Map(), rowSums = new Map();
  for (const [true_, predicted, n] of confusion) {
    counts.set(`${true_},${predicted}`, n);
    rowSums.set(true_, (rowSums.get(true_) || 0) + n);
  }
  const labels = [...mostConfused(confusion), 0];
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
  const rows = confusion.filter(([t, p]) => t && p && t !== p).slice(0, 200).map(([t, p, n]) =>
    ({true_: name(t), predicted: name(p), n, fraction: n / (rowSums.get(t) || 1), label: p}));
  const trueCell = row => h("button", {type: "button", class: "link",
    onclick: () => selectClass(row.label, "classification")}, row.true_);
  const list = sortableTable([{key: "true_", name: "true class", cell: trueCell},
    {key: "predicted", name: "detected as"}, {key: "n", name: "times", text: row => formatCount(row.n)},
    {key: "fraction", name: "%", text: row => percent(row.fraction)}], rows, "n");
  list.classList.add("tall");
  return [h("div", {class: "scroll"}, matrix),
    rows.length ? list : h("p", {class: "note"}, "No class is confused with another.")];
}

function confusions(selectClass) {
  const holder = h("div", {class: "beside"}), note = h("p", {class: "note"});
  confusionUpdates.push(counts => {
    holder.replaceChildren(...confusionMatrix(counts, selectClass));
    note.textContent = `IoU 0.5, ${thresholdNote()}. Rows: true class; columns: detected class. The column ` +
      "“background” holds missed objects, the row “background” false detections." +
      (data.classes.length > MATRIX_SIZE ? ` Shown are the ${MATRIX_SIZE} classes that are confused most often.` : "");
  });
  return section("Confusion matrix", null, note, h("div", {class: "controls"}, sliders()), holder);
}
