"use strict";
// Pictures with boxes: SVG over a JPEG, in the picture's own pixels.

let pictures = 0;

// picture: {jpeg, width, height}; shown: how wide it will be on the page, in CSS pixels; null leaves that to the sheet.
function picture(image, shown, label) {
  const scale = image.width / (shown || image.width), id = "hatch" + pictures++;
  const node = s("svg", {viewBox: `0 0 ${image.width} ${image.height}`, role: "img", "aria-label": label || "",
    width: shown || null, height: shown ? shown * image.height / image.width : null});
  node.append(image.jpeg ? s("image", {href: "data:image/jpeg;base64," + image.jpeg, width: image.width, height: image.height,
    preserveAspectRatio: "none"}) : s("rect", {width: image.width, height: image.height, fill: "#777"}));
  node.pixels = scale;  // of the picture for one CSS pixel
  node.hatch = () => {
    node.append(s("defs", {}, s("pattern", {id, width: 8 * scale, height: 8 * scale, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
      s("rect", {width: 8 * scale, height: 8 * scale, fill: "#000"}), s("rect", {width: 3.2 * scale, height: 8 * scale, fill: "#333a40"}))));
    return `url(#${id})`;
  };
  return node;
}

// Boxes {at: [x1, y1, x2, y2], kind, colour, tag, title}: bright lines on dark ones, readable on any ground. A tag stands
// above its box unless another one is there already; the title shows on hovering.
function drawBoxes(node, boxes) {
  const size = 11 * node.pixels, high = size * 1.35, tags = s("g", {class: "tags"}), taken = [];
  for (const box of boxes) {
    const [x1, y1, x2, y2] = box.at, place = {x: x1, y: y1, width: Math.max(x2 - x1, .5), height: Math.max(y2 - y1, .5)};
    node.append(s("g", {class: "one"}, s("rect", {class: "under-box", ...place}),
      s("rect", {class: "box " + (box.kind || ""), stroke: box.colour, ...place}), box.title ? s("title", {}, box.title) : null));
    if (!box.tag) continue;
    const width = ([...box.tag].length * .6 + .8) * size, y = y1 > high ? y1 - high : y1;
    const x = Math.max(0, Math.min(x1, node.viewBox.baseVal.width - width));
    if (taken.some(([a, b, w]) => x < a + w && a < x + width && Math.abs(y - b) < high)) continue;
    taken.push([x, y, width]);
    tags.append(s("rect", {class: "plate", x, y, width, height: high, rx: size * .2}),
      s("text", {class: "tag", x: x + size * .4, y: y + size, "font-size": size}, box.tag));
  }
  node.append(tags);
}

// A colour of its own for each class, as in the pictures that are drawn elsewhere: hues by the golden angle.
const classColour = label => `hsl(${(label * 137.508) % 360} 100% 70%)`;

function swatch(kind) {
  return s("svg", {class: "swatch", viewBox: "0 0 26 16", "aria-hidden": "true"}, s("rect", {class: "ground", width: 26, height: 16, rx: 3}),
    s("rect", {class: kind, x: 3.5, y: 3.5, width: 19, height: 9}));
}
function legend(entries) {
  return h("div", {class: "legend"}, entries.map(([kind, name]) => h("span", {}, swatch(kind), name)));
}
