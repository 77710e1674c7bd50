"use strict";
// Images with boxes: SVG over a JPEG, in the pixels of the image.

let numHatches = 0;
const pen = document.createElement("canvas").getContext("2d");  // measures the width of tags
pen.font = "600 100px system-ui, sans-serif";                   // as the style sheet's .tag

// image: {jpeg, width, height}; shownWidth: width on the page in CSS pixels, null: as the style sheet says.
function imageNode(image, shownWidth, label) {
  const scale = image.width / (shownWidth || image.width), id = "hatch" + numHatches++;
  const node = s("svg", {viewBox: `0 0 ${image.width} ${image.height}`, role: "img", "aria-label": label || "",
    width: shownWidth || null, height: shownWidth ? shownWidth * image.height / image.width : null});
  node.append(image.jpeg ?
    s("image", {href: "data:image/jpeg;base64," + image.jpeg, width: image.width, height: image.height,
      preserveAspectRatio: "none"}) :
    s("rect", {width: image.width, height: image.height, fill: "#777"}));
  node.pixelSize = scale;  // pixels of the image for one CSS pixel
  node.addHatch = () => {
    node.append(s("defs", {}, s("pattern", {id, width: 8 * scale, height: 8 * scale, patternUnits: "userSpaceOnUse",
      patternTransform: "rotate(45)"},
    s("rect", {width: 8 * scale, height: 8 * scale, fill: "#000"}),
    s("rect", {width: 3.2 * scale, height: 8 * scale, fill: "#333a40"}))));
    return `url(#${id})`;
  };
  return node;
}

// boxes: [{at: [x1, y1, x2, y2], kind, color, tag, title}], drawn as a bright line on a dark one. A tag is placed above
// its box, and left out where it would cover another tag; the title is a tooltip.
function drawBoxes(node, boxes) {
  const fontSize = 11 * node.pixelSize, plateHeight = fontSize * 1.35, tags = s("g", {class: "tags"}), plates = [];
  for (const box of boxes) {
    const [x1, y1, x2, y2] = box.at;
    const rect = {x: x1, y: y1, width: Math.max(x2 - x1, .5), height: Math.max(y2 - y1, .5)};
    node.append(s("g", {}, s("rect", {class: "under-box", ...rect}),
      s("rect", {class: "box " + (box.kind || ""), stroke: box.color, ...rect}),
      box.title ? s("title", {}, box.title) : null));
    if (!box.tag) continue;
    const width = (pen.measureText(box.tag).width / 100 + .8) * fontSize, y = y1 > plateHeight ? y1 - plateHeight : y1;
    const x = Math.max(0, Math.min(x1, node.viewBox.baseVal.width - width));
    if (plates.some(([a, b, w]) => x < a + w && a < x + width && Math.abs(y - b) < plateHeight)) continue;
    plates.push([x, y, width]);
    tags.append(s("rect", {class: "plate", x, y, width, height: plateHeight, rx: fontSize * .2}),
      s("text", {class: "tag", x: x + fontSize * .4, y: y + fontSize, "font-size": fontSize,
        textLength: width - .8 * fontSize, lengthAdjust: "spacingAndGlyphs"}, box.tag));
  }
  node.append(tags);
}

// The color of a class; hues of neighboring labels differ by the golden angle, as in visualization/draw_boxes.py.
const classColor = label => `hsl(${(label * 137.508) % 360} 100% 70%)`;

function swatch(kind) {
  return s("svg", {class: "swatch", viewBox: "0 0 26 16", "aria-hidden": "true"},
    s("rect", {class: "ground", width: 26, height: 16, rx: 3}),
    s("rect", {class: kind, x: 3.5, y: 3.5, width: 19, height: 9}));
}
// entries: [[kind, name]].
function legend(entries) {
  return h("div", {class: "legend"}, entries.map(([kind, name]) => h("span", {}, swatch(kind), name)));
}
