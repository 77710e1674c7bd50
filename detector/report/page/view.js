"use strict";
// A data set before and after the transforms, its batches, or anchors over it.

const page = document.getElementById("page");

function classes() {
  const rows = data.classes.map(one => ({name: one.name, value: one.count, text: count(one.count)}));
  const columns = rows.length > 24 ? 3 : 1, each = Math.ceil(rows.length / columns), most = Math.max(...rows.map(row => row.value), 1);
  return h("div", {class: columns > 1 ? "grid" : ""}, Array.from({length: columns}, (_, i) => bars(rows.slice(i * each, (i + 1) * each), most)));
}

function canvasOf(image) {
  const most = data.kind === "anchors" ? 460 : 300;
  const node = picture(image, Math.min(most, most * image.width / image.height), image.name);
  const hatch = node.hatch(), [height, width] = image.inside;
  if (width < image.width) node.append(s("rect", {class: "pad", x: width, width: image.width - width, height: image.height, fill: hatch}));
  if (height < image.height) node.append(s("rect", {class: "pad", y: height, width, height: image.height - height, fill: hatch}));
  drawBoxes(node, image.boxes.map(box => box.label ? {...box, colour: classColour(box.label), title: box.tag} : box));
  return h("figure", {}, h("div", {class: "picture"}, node), h("figcaption", {}, image.name));
}

function batches() {
  return data.batches.map((batch, i) => h("div", {class: "batch"},
    h("h3", {}, `Batch ${i + 1}: ${batch.width} × ${batch.height} pixels, ${percent(batch.padding, 0)} % of it padding`),
    h("div", {class: "strip"}, batch.images.map(canvasOf))));
}

function viewData() {
  page.append(section("Objects of each class", `${count(data.objects)} objects of ${data.classes.length} classes.`, classes()),
    section("Sizes and shapes", data.sampled, h("div", {}, h("span", {class: "key"}, h("i"), data.names[0]), h("span", {class: "key"}, h("i", {class: "second"}), data.names[1])),
      h("div", {class: "grid"}, data.histograms.map(one => histogram(one.name, one.about, one.parts, data.names)))),
    section("Batches as the network sees them", "The first ones of training: augmented, resized and padded (hatched), with the boxes that the loss is computed on.", batches()));
}

function viewAnchors() {
  const now = data.now, next = data.proposal;
  page.append(h("div", {class: "tiles"}, tile(percent(now.half) + " %", "of objects are reached at IoU 0.5"), tile(percent(now.seven) + " %", "at IoU 0.7"),
    tile(now.mean.toFixed(2), "mean IoU with the best anchor")));
  page.append(section("By size", "The share of objects that some anchor reaches, by their side (the square root of the area) as the network sees it.",
    h("div", {class: "two"}, [["half", "at IoU 0.5"], ["seven", "at IoU 0.7"]].map(([key, name]) => h("figure", {}, h("h3", {}, name),
      bars(data.by_side.map(one => ({name: one.name, value: known(one[key]) ? one[key] : 0, text: `${percent(one[key], 0)} % of ${count(one.objects)}`})), 1))))));
  page.append(section("By level", null, sortable([{key: "level", name: "level"}, {key: "stride", name: "stride"}, {key: "sides", name: "sides"},
    {key: "objects", name: "objects whose best anchor is here", text: row => count(row.objects)}], data.levels, "level", false)));
  page.append(section("Proposal", next.better ? "As many sides and ratios as there are now, from the objects themselves: k-means on IoU, and whatever of it gives the highest mean." :
    "k-means on IoU finds nothing that reaches more than the present anchors.",
    sortable([{key: "name", name: "anchors"}, {key: "half", name: "reached at 0.5", text: row => percent(row.half) + " %"},
      {key: "seven", name: "reached at 0.7", text: row => percent(row.seven) + " %"}, {key: "mean", name: "mean IoU", text: row => row.mean.toFixed(3)}],
    [{name: "now", ...now}, {name: "proposed", ...next}], "mean"), h("pre", {}, next.yaml)));
  page.append(section("Anchors over the data", "White: one anchor of each kind, at the middle cell of its level. The others are objects, with their IoU with the best of all anchors.",
    legend([["c-right", "0.7 or more"], ["c-localisation", "0.5 to 0.7"], ["c-background", "below 0.5"], ["c-truth", "anchor"]]),
    h("div", {class: "batch"}, h("div", {class: "strip"}, data.pictures.map(canvasOf)))));
}

page.append(h("header", {class: "top"}, h("h1", {}, data.title), h("div", {class: "soft"}, data.facts.map(fact => h("div", {}, fact)))));
(data.kind === "anchors" ? viewAnchors : viewData)();
page.append(h("footer", {}, data.made));
