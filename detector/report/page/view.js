"use strict";
// A data set before and after the transforms with its first training batches; or anchors compared with its objects.

const page = document.getElementById("page");

function classBars() {
  const rows = data.classes.map(entry => ({name: entry.name, value: entry.count, text: formatCount(entry.count)}));
  const columns = rows.length > 24 ? 3 : 1, perColumn = Math.ceil(rows.length / columns);
  const maximum = Math.max(...rows.map(row => row.value), 1);
  return h("div", {class: columns > 1 ? "grid" : ""}, Array.from({length: columns},
    (_, i) => bars(rows.slice(i * perColumn, (i + 1) * perColumn), maximum)));
}

// An image of a padded batch; image: {name, jpeg, width, height, image_size [height, width] without padding, boxes}.
function paddedImage(image) {
  const maxWidth = data.kind === "anchors" ? 460 : 288;
  const node = imageNode(image, Math.min(maxWidth, maxWidth * image.width / image.height), image.name);
  const hatch = node.addHatch(), [height, width] = image.image_size;
  if (width < image.width)
    node.append(s("rect", {x: width, width: image.width - width, height: image.height, fill: hatch}));
  if (height < image.height)
    node.append(s("rect", {y: height, width, height: image.height - height, fill: hatch}));
  drawBoxes(node, image.boxes.map(box => box.label ? {...box, color: classColor(box.label), title: box.tag} : box));
  return h("figure", {}, h("div", {class: "picture"}, node), h("figcaption", {}, image.name));
}

function batches() {
  return data.batches.map((batch, i) => h("div", {class: "batch"},
    h("h3", {}, `Batch ${i + 1}: ${batch.width} × ${batch.height} pixels, ${percent(batch.padding, 0)} % padding`),
    h("div", {class: "strip"}, batch.images.map(paddedImage))));
}

function viewData() {
  const keys = h("div", {}, h("span", {class: "key"}, h("i"), data.names[0]),
    h("span", {class: "key"}, h("i", {class: "second"}), data.names[1]));
  page.append(
    section("Objects per class", `${formatCount(data.objects)} objects, ${data.classes.length} classes.`, classBars()),
    section("Image and object sizes", data.sampled, keys, h("div", {class: "grid"}, data.histograms.map(measure =>
      histogram(measure.name, measure.unit, measure.parts, data.names)))),
    section("Training batches", "The first batches of training: augmented, resized and padded (hatched), with the " +
      "ground-truth boxes.", batches()));
}

function recallBars(key, title) {
  const rows = data.by_size.map(row => ({name: row.name, value: row[key],
    text: `${percent(row[key], 0)} % of ${formatCount(row.objects)}`}));
  return h("figure", {}, h("h3", {}, title), bars(rows, 1));
}

function viewAnchors() {
  const current = data.current, proposed = data.proposed;
  page.append(h("div", {class: "tiles"}, tile(percent(current.recall50) + " %", "recall of objects at IoU 0.5"),
    tile(percent(current.recall70) + " %", "recall at IoU 0.7"),
    tile(current.mean_iou.toFixed(2), "mean IoU with the best anchor")));
  page.append(section("By size", "Recall: the fraction of objects that have an anchor of this IoU or more. Size: the " +
    "square root of the object's area in the resized image, in pixels.",
  h("div", {class: "two"}, recallBars("recall50", "Recall at IoU 0.5"), recallBars("recall70", "Recall at IoU 0.7"))));
  page.append(section("By level", null, sortableTable([{key: "level", name: "level"}, {key: "stride", name: "stride"},
    {key: "sizes", name: "anchor sizes"}, {key: "objects", name: "objects whose best anchor is of this level",
      text: row => formatCount(row.objects)}], data.levels, "level", false)));
  page.append(section("Proposal", proposed.is_better ?
    "As many sizes and ratios as now, computed from the objects: candidates by k-means on IoU and by scaling the " +
    "current sizes; the one with the highest mean IoU is shown." :
    "No candidate (k-means on IoU, scaled current sizes) has a higher mean IoU than the current anchors.",
  sortableTable([{key: "name", name: "anchors"},
    {key: "recall50", name: "recall at IoU 0.5", text: row => percent(row.recall50) + " %"},
    {key: "recall70", name: "recall at IoU 0.7", text: row => percent(row.recall70) + " %"},
    {key: "mean_iou", name: "mean IoU", text: row => row.mean_iou.toFixed(3)}],
  [{name: "current", ...current}, {name: "proposed", ...proposed}], "mean_iou"), h("pre", {}, proposed.yaml)));
  page.append(section("Anchors and objects", "White: one anchor of each size and ratio, at the middle cell of its " +
    "level. Colored: objects, with their IoU with the best of all anchors.",
  legend([["iou-high", "IoU 0.7 or more"], ["iou-medium", "0.5 to 0.7"], ["iou-low", "below 0.5"],
    ["anchor", "anchor"]]),
  h("div", {class: "batch"}, h("div", {class: "strip"}, data.images.map(paddedImage)))));
}

page.append(h("header", {class: "top"}, h("div", {class: "head"}, h("h1", {}, data.title), themeButton()),
  h("div", {class: "soft"}, data.facts.map(fact => h("div", {}, fact)))));
if (data.kind === "anchors") viewAnchors();
else viewData();
page.append(h("footer", {}, data.command));
root.dataset.ready = "yes";
