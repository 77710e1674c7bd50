"use strict";
// The page: what is selected and changed, what pointers do, and the start.

const page = {index: -1, newClass: data.classes[0], selected: null, score: data.score, hidden: new Set(), isPanning: false,
  isCopying: false, wasLabelled: false, order: "name", filter: "all", cursor: null};
const current = () => labelsOf.get(page.index);
const byId = id => document.getElementById(id);
const hasImage = () => levels !== null && current() !== undefined;

// --- what is selected, and suggestions

const suggestionText = row => `${row.name} ${row.box}`;  // of a suggestion: the server sends new ones each time
// A suggestion is left out where it is refused, or an object of its class is already there.
function suggestions() {
  const labels = current();
  return !labels || !labels.suggestions ? [] : labels.suggestions.filter(row => row.score >= page.score &&
    !page.hidden.has(row.name) && !labels.refused.has(suggestionText(row)) &&
    !labels.objects.some(object => object.name === row.name && iou(object.box, row.box) >= .5));
}
const visibleObjects = () => current() ? current().objects.filter(object => !page.hidden.has(object.name)) : [];
const isObject = item => item !== null && item.id !== undefined;
function selectedItem() {
  const items = [...visibleObjects(), ...suggestions()];
  return items.find(item => isObject(item) ? item.id === page.selected?.id : item === page.selected) || null;
}
function select(item) {
  page.selected = item;
  if (isObject(item)) page.newClass = item.name;
  update();
}

// --- changes

function setObjects(objects) {
  tell("");
  change(page.index, objects);
}
function add(name, box) {
  const object = newObject(name, fitBox(box));
  page.hidden.delete(name);
  setObjects([...current().objects, object]);
  select(object);
}
// Gives the selected object another box or class; a suggestion becomes an object by that.
function edit(item, changes) {
  const object = {...item, ...changes};
  if (!isObject(item)) {
    current().refused.add(suggestionText(item));
    return add(object.name, object.box);
  }
  setObjects(current().objects.map(other => other.id === item.id ? object : other));
  select(object);
}
function remove() {
  const item = selectedItem();
  if (!item) return;
  if (isObject(item)) setObjects(current().objects.filter(other => other.id !== item.id));
  else current().refused.add(suggestionText(item));
  select(null);
}
function accept(items) {
  if (!items.length) return;
  setObjects([...current().objects, ...items.map(row => newObject(row.name, fitBox(row.box)))]);
  select(null);
}
function refuseAll() {
  for (const row of suggestions()) current().refused.add(suggestionText(row));
  select(null);
}
async function copyFromBefore() {
  const rows = ordered(), before = rows[rows.findIndex(row => row.index === page.index) - 1], target = page.index;
  if (!before || !hasImage() || page.isCopying) return;
  page.isCopying = true;
  let objects;
  try {
    objects = (await load(before.index)).objects;
  } catch (error) {
    return tell(`${before.name} cannot be read: ${reasonOf(error)}`);
  } finally {
    page.isCopying = false;
  }
  if (page.index !== target || !objects.length) return;
  const [width, height] = imageSize();
  const inside = objects.filter(({box}) => box[0] < width - 1 && box[1] < height - 1);
  setObjects([...current().objects, ...inside.map(object => newObject(object.name, fitBox(object.box)))]);
}
function markEmpty(event) {
  const {objects, labelled} = current();
  if (objects.length && !event?.shiftKey)
    return tell("This image has boxes. Shift + e deletes them all and marks it as empty; z takes that back.");
  if (objects.length || !labelled) setObjects([]);
  select(null);
}
function undoOrRedo(from, to) {
  if (step(page.index, from, to)) select(null);
}
function chooseClass(name) {
  page.newClass = name;
  const item = selectedItem();
  if (item && item.name !== name) edit(item, {name});
  update();
}
function drawInTheMiddle() {
  const [width, height] = imageSize(), [x, y] = toImage([stage.clientWidth / 2, stage.clientHeight / 2]);
  const side = Math.min(stage.clientWidth, stage.clientHeight) / 8 / view.scale;
  add(page.newClass, [Math.min(x, width) - side, Math.min(y, height) - side, x + side, y + side]);
}

// --- which image

const STATES = ["unlabelled", "suggested", "labelled", "empty"];
const stateOfRow = row =>
  row.state === "unlabelled" && row.top !== null && row.top >= page.score ? "suggested" : row.state;
function ordered() {
  const rows = data.images.filter(row =>
    page.filter === "all" || stateOfRow(row) === page.filter || row.index === page.index);
  return page.order === "name" ? rows : rows.sort((a, b) => (b.unsure ?? -1) - (a.unsure ?? -1) || a.index - b.index);
}
function go(by) {
  const rows = ordered(), row = rows[rows.findIndex(other => other.index === page.index) + by];
  if (row) show(row.index);
}
function goToUnlabelled() {
  const rows = ordered().filter(row => row.state === "unlabelled"), at = rows.findIndex(row => row.index === page.index);
  const row = rows[(at + 1) % rows.length];
  if (row && row.index !== page.index) show(row.index);
  else tell(rows.length ? "This is the only image that is not labelled." : "Every image is labelled.");
}
async function show(index) {
  Object.assign(page, {index, selected: null});
  levels = null;
  action = null;
  delete root.dataset.index;
  history.replaceState(null, "", `${location.search}#${index}`);
  tell(data.images.every(row => row.state === "unlabelled") ? "Drag to draw a box. ? shows all keys." : "");
  if (page.filter !== "all" || page.order !== "name") fillList();
  update();
  try {
    const [, pixels] = await Promise.all([load(index), loadPixels(index)]);
    if (page.index !== index) return;
    levels = pixels;
  } catch (error) {
    if (page.index === index) tell(reasonOf(error));
    return;
  }
  page.wasLabelled = current().labelled;
  zoomToFit();
  update();
  root.dataset.index = index;  // for tests
  const rows = ordered(), at = rows.findIndex(row => row.index === index);
  for (const row of [rows[at + 1], rows[at - 1]]) if (row) loadPixels(row.index).catch(() => {});
}

// --- pointers: a drag draws, or moves what is selected; a click selects; two fingers and the right button pan

const pointers = new Map();
let action = null;  // {kind, from, at, item, handle, box}
const place = event => [event.offsetX, event.offsetY];

stage.addEventListener("pointerdown", event => {
  if (!hasImage()) return;
  stage.focus({preventScroll: true});
  try { stage.setPointerCapture(event.pointerId); } catch { /* the pointer is gone already */ }
  pointers.set(event.pointerId, place(event));
  if (pointers.size === 2) action = {kind: "pinch"};
  if (pointers.size > 1) return;
  const at = place(event), item = selectedItem(), reach = event.pointerType === "touch" ? 18 : 7;
  const handle = item ? handleAt(item.box, at, reach) : -1;
  const kind = event.button > 0 || page.isPanning ? "pan" : event.shiftKey ? "draw" : handle >= 0 ? "resize" :
    item && contains(item.box, toImage(at)) ? "move" : "draw";
  action = {kind, from: at, at, item, handle, box: item ? item.box : null, moved: false};
});
stage.addEventListener("pointermove", event => {
  const at = place(event), before = pointers.get(event.pointerId);
  if (before) pointers.set(event.pointerId, at);
  if (action && action.kind === "pinch") return before ? pinch(event.pointerId, before, at) : undefined;
  page.cursor = event.pointerType === "mouse" ? at : null;
  if (action && before) drag(at);
  else stage.style.cursor = cursorAt(at);
  redraw();
});
for (const type of ["pointerup", "pointercancel"]) stage.addEventListener(type, event => {
  pointers.delete(event.pointerId);
  const done = action;
  if (pointers.size && done && done.kind === "pinch") return;
  action = null;
  if (done && type === "pointerup" && hasImage()) finish(done);
  update();
});
stage.addEventListener("pointerleave", () => { page.cursor = null; redraw(); });
stage.addEventListener("contextmenu", event => event.preventDefault());
stage.addEventListener("wheel", event => {
  event.preventDefault();
  const delta = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
  zoomTo(view.scale * Math.exp(-Math.max(-120, Math.min(120, delta)) / 400), place(event));
}, {passive: false});

function pinch(id, before, at) {
  const other = [...pointers].find(([key]) => key !== id);
  if (!other) return;
  const length = point => Math.hypot(point[0] - other[1][0], point[1] - other[1][1]);
  pan((at[0] - before[0]) / 2, (at[1] - before[1]) / 2);
  const factor = Math.max(length(at), 1) / Math.max(length(before), 1);
  zoomTo(view.scale * factor, [0, 1].map(i => (at[i] + other[1][i]) / 2));
}
function drag(at) {
  const [dx, dy] = [at[0] - action.from[0], at[1] - action.from[1]];
  action.moved ||= Math.hypot(dx, dy) > 3;
  if (action.kind === "pan") pan(at[0] - action.at[0], at[1] - action.at[1]);
  else if (action.moved) action.box = dragged(action, at, dx / view.scale, dy / view.scale);
  action.at = at;
}
function dragged({kind, from, item, handle}, at, dx, dy) {
  if (kind === "move") return moveBox(item.box, dx, dy);
  if (kind === "draw") return drawn([...toImage(from), ...toImage(at)]);
  return fitBox(item.box.map((value, i) => EDGES[handle].includes(i) ? value + [dx, dy][i % 2] : value));
}
// Returns the part of a new box that lies in the image, or null where it lies in the margin.
function drawn(box) {
  const isInside = [0, 1].every(axis => Math.max(box[axis], box[axis + 2]) > 0 &&
    Math.min(box[axis], box[axis + 2]) < imageSize()[axis]);
  return isInside ? fitBox(box) : null;
}
function finish({kind, moved, at, item, box}) {
  if (kind === "pan" || kind === "pinch") return;
  if (!moved) return selectAt(at);
  if (!box) return;
  if (kind === "draw") add(page.newClass, box);
  else if (box.some((value, i) => value !== item.box[i])) edit(item, {box});
}
// Selects the smallest box at a point; the next larger one where that is selected already.
function selectAt(at) {
  const point = toImage(at), slack = 4 / view.scale;
  const items = [...visibleObjects(), ...suggestions()].filter(item => contains(item.box, point, slack))
    .sort((a, b) => area(a.box) - area(b.box));
  const selected = selectedItem();
  select(items[(items.indexOf(selected) + 1) % (items.length || 1)] || null);
}
function cursorAt(at) {
  if (page.isPanning) return "grab";
  const item = selectedItem(), handle = item ? handleAt(item.box, at, 7) : -1;
  return handle >= 0 ? CURSORS[handle] + "-resize" : item && contains(item.box, toImage(at)) ? "move" : "crosshair";
}

// --- seconds an image takes

const time = {seconds: new Map(), helped: new Set(), labelled: new Set(), last: performance.now(),
  active: performance.now()};
for (const type of ["pointerdown", "pointermove", "keydown", "wheel"])
  addEventListener(type, () => { time.active = performance.now(); }, {capture: true, passive: true});
function tick() {
  const now = performance.now(), passed = now - time.last;
  time.last = now;
  if (document.hidden || now - time.active > 30000 || !hasImage()) return;
  time.seconds.set(page.index, (time.seconds.get(page.index) || 0) + passed / 1000);
  if (suggestions().length) time.helped.add(page.index);
}
function meanSeconds(isHelped) {
  const indices = [...time.labelled].filter(index => time.helped.has(index) === isHelped);
  const total = indices.reduce((sum, index) => sum + (time.seconds.get(index) || 0), 0);
  return indices.length ? total / indices.length : null;
}

listeners.push(index => {
  const labels = labelsOf.get(index);
  if (labels && labels.undo.length) time.labelled.add(index);
  update();
});
buildPage();
new ResizeObserver(() => { if (hasImage()) keepInSight(); }).observe(stage);
setInterval(tick, 200);
setInterval(() => { if (!document.hidden) poll(page.index); }, POLL_MS);
setInterval(() => { if (page.order !== "name" && !action) fillList(); }, 5000);
const asked = Number(location.hash.slice(1));
const first = data.images.find(row => location.hash && row.index === asked) ||
  data.images.find(row => row.state === "unlabelled") || data.images[0];
if (first) show(first.index).then(() => { root.dataset.ready = "yes"; });
