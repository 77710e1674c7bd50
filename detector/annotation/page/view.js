"use strict";
// The image with its boxes, drawn on a canvas; zoom, pan, and what lies under a point.

const stage = document.createElement("canvas"), paint = stage.getContext("2d", {alpha: false});
const view = {scale: 1, x: 0, y: 0};  // a point of the image lies at (x + scale * px, y + scale * py) on the stage
let levels = null;  // the shown image at full, half, quarter ... size; null until it is loaded
const MIN_SCALE = .02, MAX_SCALE = 64;
const colors = new Map(data.classes.map((name, i) => [name, classColor(i)]));
const colorOf = name => colors.get(name) || "#ffffff";

const toImage = ([x, y]) => [(x - view.x) / view.scale, (y - view.y) / view.scale];
const imageSize = () => levels ? [levels[0].width, levels[0].height] : [1, 1];

function zoomTo(scale, [x, y] = [stage.clientWidth / 2, stage.clientHeight / 2]) {
  const [px, py] = toImage([x, y]);
  view.scale = Math.min(MAX_SCALE, Math.max(MIN_SCALE, scale));
  view.x = x - px * view.scale;
  view.y = y - py * view.scale;
  keepInSight();
}
function pan(dx, dy) {
  view.x += dx;
  view.y += dy;
  keepInSight();
}
function keepInSight() {
  const [width, height] = imageSize(), edge = 48;
  view.x = Math.min(stage.clientWidth - edge, Math.max(edge - width * view.scale, view.x));
  view.y = Math.min(stage.clientHeight - edge, Math.max(edge - height * view.scale, view.y));
  redraw();
}
function zoomToFit() {
  const [width, height] = imageSize();
  view.scale = Math.min(MAX_SCALE, (stage.clientWidth - 24) / width, (stage.clientHeight - 24) / height);
  view.x = (stage.clientWidth - width * view.scale) / 2;
  view.y = (stage.clientHeight - height * view.scale) / 2;
  redraw();
}

// Returns a function that runs an action in the next frame: once, however often it is called until then.
function onceAFrame(action) {
  const request = () => {
    if (!request.isPending) requestAnimationFrame(() => {
      request.isPending = false;
      action();
    });
    request.isPending = true;
  };
  return request;
}
const redraw = onceAFrame(draw);

function draw() {
  const ratio = devicePixelRatio || 1, width = stage.clientWidth, height = stage.clientHeight;
  if (stage.width !== Math.round(width * ratio) || stage.height !== Math.round(height * ratio))
    [stage.width, stage.height] = [Math.round(width * ratio), Math.round(height * ratio)];
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
  paint.fillStyle = "#0d0f11";
  paint.fillRect(0, 0, width, height);
  if (!levels) return;
  drawImage(ratio, width, height);
  const scene = buildScene();
  const many = scene.boxes.length > 120;
  const inSight = scene.boxes.filter(({box}) => {
    const [x1, y1, x2, y2] = onStage(box);
    return x2 >= 0 && y2 >= 0 && x1 <= width && y1 <= height;
  });
  inSight.forEach(drawBox);
  for (const {box, name, tag, isSelected} of inSight)
    if (isSelected || !many && (box[2] - box[0]) * view.scale > 44) drawTag(tag, ...onStage(box), colorOf(name));
  if (scene.guide) {
    paint.strokeStyle = "rgb(255 255 255 / .45)";
    paint.lineWidth = 1;
    paint.beginPath();
    paint.moveTo(scene.guide[0], 0);
    paint.lineTo(scene.guide[0], height);
    paint.moveTo(0, scene.guide[1]);
    paint.lineTo(width, scene.guide[1]);
    paint.stroke();
  }
}

// Draws the part that is in sight, from the smallest copy that is sharp enough.
function drawImage(ratio, width, height) {
  const [fullWidth, fullHeight] = imageSize();
  const level = levels.findLast(copy => copy.width >= fullWidth * view.scale * ratio * .99) || levels[0];
  const [x1, y1] = toImage([0, 0]).map(value => Math.max(0, Math.floor(value)));
  const [right, bottom] = toImage([width, height]);
  const x2 = Math.min(fullWidth, Math.ceil(right)), y2 = Math.min(fullHeight, Math.ceil(bottom));
  if (x2 <= x1 || y2 <= y1) return;
  const fx = level.width / fullWidth, fy = level.height / fullHeight;
  paint.imageSmoothingEnabled = view.scale < 3;
  paint.drawImage(level, x1 * fx, y1 * fy, (x2 - x1) * fx, (y2 - y1) * fy,
    view.x + x1 * view.scale, view.y + y1 * view.scale, (x2 - x1) * view.scale, (y2 - y1) * view.scale);
}

const onStage = box => [view.x + box[0] * view.scale, view.y + box[1] * view.scale, view.x + box[2] * view.scale,
  view.y + box[3] * view.scale];

// item: {box, name, tag, isSelected, isSuggestion}.
function drawBox(item) {
  const [x1, y1, x2, y2] = onStage(item.box);
  const color = colorOf(item.name);
  paint.setLineDash(item.isSuggestion ? [7, 5] : []);
  paint.strokeStyle = "rgb(0 0 0 / .6)";
  paint.lineWidth = item.isSelected ? 5 : 3.5;
  paint.strokeRect(x1, y1, x2 - x1, y2 - y1);
  paint.strokeStyle = color;
  paint.lineWidth = item.isSelected ? 3 : 1.6;
  paint.strokeRect(x1, y1, x2 - x1, y2 - y1);
  paint.setLineDash([]);
  if (item.isSelected) {
    paint.globalAlpha = .16;
    paint.fillStyle = color;
    paint.fillRect(x1, y1, x2 - x1, y2 - y1);
    paint.globalAlpha = 1;
    paint.fillStyle = "#fff";
    paint.strokeStyle = "#000";
    paint.lineWidth = 1;
    for (const [x, y] of handlePoints([x1, y1, x2, y2])) {
      paint.fillRect(x - 4, y - 4, 8, 8);
      paint.strokeRect(x - 4, y - 4, 8, 8);
    }
  }
}
function drawTag(text, x, y, right, bottom, color) {
  paint.font = "600 12px system-ui, sans-serif";
  const width = paint.measureText(text).width + 10, top = y > 18 ? y - 18 : y;
  paint.fillStyle = "rgb(0 0 0 / .74)";
  paint.fillRect(x, top, width, 18);
  paint.fillStyle = color;
  paint.fillText(text, x + 5, top + 13);
}

// Handles: 0 1 2 above, 3 4 beside, 5 6 7 below; EDGES has the sides of the box that each one moves.
const EDGES = [[0, 1], [1], [2, 1], [0], [2], [0, 3], [3], [2, 3]];
const CURSORS = ["nwse", "ns", "nesw", "ew", "ew", "nesw", "ns", "nwse"];
function handlePoints([x1, y1, x2, y2]) {
  const x = (x1 + x2) / 2, y = (y1 + y2) / 2;
  return [[x1, y1], [x, y1], [x2, y1], [x1, y], [x2, y], [x1, y2], [x, y2], [x2, y2]];
}
// Returns the handle of a box at a point, or -1; of a small box, corners come before sides.
function handleAt(box, [x, y], reach) {
  const points = handlePoints(onStage(box)), order = [7, 5, 2, 0, 1, 3, 4, 6];
  return order.find(i => Math.abs(points[i][0] - x) <= reach && Math.abs(points[i][1] - y) <= reach) ?? -1;
}

const contains = ([x1, y1, x2, y2], [x, y], slack = 0) =>
  x >= x1 - slack && x <= x2 + slack && y >= y1 - slack && y <= y2 + slack;
const area = box => (box[2] - box[0]) * (box[3] - box[1]);
function iou(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return width <= 0 || height <= 0 ? 0 : width * height / (area(a) + area(b) - width * height);
}

// Rounds to the grid of the layout; keeps corners in order, in the image, and a pixel apart.
const toGrid = value => Math.round(Math.round(value / data.grid) * data.grid * 100) / 100;
function fitBox(box) {
  const size = imageSize(), fitted = [0, 0, 0, 0];
  for (const axis of [0, 1]) {
    const least = Math.min(1, size[axis]);
    const [a, b] = [box[axis], box[axis + 2]].sort((p, q) => p - q).map(value => toGrid(value));
    fitted[axis] = Math.min(Math.max(a, 0), size[axis] - least);
    fitted[axis + 2] = Math.min(Math.max(b, fitted[axis] + least), size[axis]);
  }
  return fitted;
}
function moveBox(box, dx, dy) {
  const size = imageSize();
  const shift = [dx, dy].map((delta, axis) =>
    Math.max(Math.min(0, -box[axis]), Math.min(Math.max(0, size[axis] - box[axis + 2]), delta)));
  const moved = box.map((value, i) => Math.round((value + toGrid(shift[i % 2])) * 100) / 100);
  const isInside = moved[0] >= 0 && moved[1] >= 0 && moved[2] <= size[0] && moved[3] <= size[1];
  return isInside ? moved : fitBox(moved);  // on no grid where the box was on none: its size stays
}
