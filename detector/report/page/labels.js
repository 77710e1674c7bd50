// The labels that are most likely wrong, each with the part of its image around it.

const LABEL_KINDS = {
  missing: ["missing label?", "a sure detection that no object explains"],
  wrong: ["wrong class?", "sure detections of another class lie on the object"],
  stray: ["stray or misplaced?", "no detection confirms the object; dashed: its box, solid: a detection beside it"],
};

// The part of an image around a row's boxes, at least 120 pixels wide; boxes keep their kinds of line.
function labelPicture(row) {
  const image = images[row.number], boxes = [row.object, row.detection].filter(Boolean), side = 148;
  const low = i => Math.min(...boxes.map(box => box.at[i])), high = i => Math.max(...boxes.map(box => box.at[i]));
  const length = Math.max(120, 1.7 * Math.max(high(2) - low(0), high(3) - low(1)));
  const x = (low(0) + high(2) - length) / 2, y = (low(1) + high(3) - length) / 2;
  const node = imageNode(image, side, `${LABEL_KINDS[row.kind][0]} ${image.name}`);
  fill(node, {viewBox: `${x} ${y} ${length} ${length}`, width: side, height: side}, []);
  drawBoxes(node, [row.object && {at: row.object.at, kind: "ground-truth c-missed"},
    row.detection && {at: row.detection.at, kind: "c-background"}].filter(Boolean));
  return h("button", {type: "button", class: "picture crop", "aria-label": `enlarge ${image.name}`,
    onclick: () => setState({open: row.number})}, node);
}

function labelsToReview() {
  const rows = data.labels.map(row => ({...row, file: images[row.number].name, title: LABEL_KINDS[row.kind][0],
    annotated: row.object ? className(row.object.label) : "–",
    detected: row.detection ? `${className(row.detection.label)} ${row.detection.score.toFixed(2)}` : "–"}));
  if (!rows.length) return null;
  const table = sortableTable([{key: "kind", name: "label", cell: row => [labelPicture(row)]},
    {key: "title", name: "doubt about it"}, {key: "doubt", name: "doubt", text: row => row.doubt.toFixed(2)},
    {key: "annotated", name: "annotated"}, {key: "detected", name: "detected"}, {key: "file", name: "file"}],
  rows, "doubt");
  table.classList.add("tall", "labels");
  return section("Labels to look at again", "Where annotations and detections disagree most; each may be an error of " +
    "the annotation or of the detector. Weighed by how often the detector is right about the class.",
  h("p", {class: "note kinds"}, Object.values(LABEL_KINDS).map(([name, note]) => [h("b", {}, name), ` ${note}. `])),
  h("p", {class: "note"}, "As a table: ", h("a", {href: data.labels_table}, data.labels_table), ", beside this page."),
  table);
}
