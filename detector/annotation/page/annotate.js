"use strict";
// The page: what pointers and keys do, and the panels around the image.

const page = {shown: -1, name: data.classes[0], selected: null, score: data.score, hidden: new Set(), isPanning: false, isCopying: false,
  order: "name", filter: "all", cursor: null};
const current = () => labelsOf.get(page.shown);
const byId = id => document.getElementById(id);
const shown = () => levels !== null && current() !== undefined;

// --- what is selected, and suggestions

// A suggestion is left out where it is refused, or an object of its class is already there.
function suggestions() {
  const labels = current();
  return !labels || !labels.suggestions ? [] : labels.suggestions.filter(row => row.score >= page.score &&
    !page.hidden.has(row.name) && !labels.refused.has(row) &&
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
  if (isObject(item)) page.name = item.name;
  update();
}

// --- changes

const setObjects = objects => change(page.shown, objects);
function add(name, box) {
  const object = newObject(name, fitBox(box));
  setObjects([...current().objects, object]);
  select(object);
}
// Gives the selected object another box or class; a suggestion becomes an object by that.
function edit(item, changes) {
  const object = {...item, ...changes};
  if (!isObject(item)) {
    current().refused.add(item);
    return add(object.name, object.box);
  }
  setObjects(current().objects.map(other => other.id === item.id ? object : other));
  select(object);
}
function remove() {
  const item = selectedItem();
  if (!item) return;
  if (isObject(item)) setObjects(current().objects.filter(other => other.id !== item.id));
  else current().refused.add(item);
  select(null);
}
function accept(items) {
  if (!items.length) return;
  setObjects([...current().objects, ...items.map(row => newObject(row.name, fitBox(row.box)))]);
  select(null);
}
function refuseAll() {
  for (const row of suggestions()) current().refused.add(row);
  select(null);
}
async function copyFromBefore() {
  const rows = ordered(), before = rows[rows.findIndex(row => row.index === page.shown) - 1], target = page.shown;
  if (!before || !shown() || page.isCopying) return;
  page.isCopying = true;
  const {objects} = await load(before.index).finally(() => { page.isCopying = false; });
  if (page.shown !== target || !objects.length) return;
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
  if (step(page.shown, from, to)) select(null);
}
function chooseClass(name) {
  page.name = name;
  const item = selectedItem();
  if (item && item.name !== name) edit(item, {name});
  update();
}
function drawInTheMiddle() {
  const [width, height] = imageSize(), [x, y] = toImage([stage.clientWidth / 2, stage.clientHeight / 2]);
  const side = Math.min(stage.clientWidth, stage.clientHeight) / 8 / view.scale;
  add(page.name, fitBox([Math.min(x, width) - side, Math.min(y, height) - side, x + side, y + side]));
}

// --- which image

const STATES = ["unlabelled", "suggested", "labelled", "empty"];
const stateOfRow = row => row.state === "unlabelled" && row.top !== null && row.top >= page.score ? "suggested" : row.state;
function ordered() {
  const rows = data.images.filter(row => page.filter === "all" || stateOfRow(row) === page.filter || row.index === page.shown);
  return page.order === "name" ? rows : rows.sort((a, b) => (b.unsure ?? -1) - (a.unsure ?? -1) || a.index - b.index);
}
function go(by) {
  const rows = ordered(), row = rows[rows.findIndex(other => other.index === page.shown) + by];
  if (row) show(row.index);
}
function goToUnlabelled() {
  const rows = ordered(), at = rows.findIndex(row => row.index === page.shown);
  const row = [...rows.slice(at + 1), ...rows.slice(0, at + 1)].find(other => other.state === "unlabelled");
  if (row) show(row.index);
  else tell("Every image is labelled.");
}
async function show(index) {
  Object.assign(page, {shown: index, selected: null});
  levels = null;
  action = null;
  delete root.dataset.shown;
  history.replaceState(null, "", `${location.search}#${index}`);
  tell("");
  update();
  try {
    const [, pixels] = await Promise.all([load(index), loadPixels(index)]);
    if (page.shown !== index) return;
    levels = pixels;
  } catch (error) {
    if (page.shown === index) tell(error instanceof TypeError ? "no connection to the server" : error.message);
    return;
  }
  zoomToFit();
  update();
  root.dataset.shown = index;  // for tests
  const rows = ordered(), at = rows.findIndex(row => row.index === index);
  for (const row of [rows[at + 1], rows[at - 1]]) if (row) loadPixels(row.index).catch(() => {});
}

// --- pointers: a drag draws, or moves what is selected; a click selects; two fingers, the wheel and the right button pan

const pointers = new Map();
let action = null;  // {kind, from, at, item, handle, box}
const place = event => [event.offsetX, event.offsetY];

stage.addEventListener("pointerdown", event => {
  if (!shown()) return;
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
  if (done && type === "pointerup" && shown()) finish(done);
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
  zoomTo(view.scale * Math.max(length(at), 1) / Math.max(length(before), 1), [0, 1].map(i => (at[i] + other[1][i]) / 2));
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
  if (kind === "draw") return fitBox([...toImage(from), ...toImage(at)]);
  return fitBox(item.box.map((value, i) => EDGES[handle].includes(i) ? value + [dx, dy][i % 2] : value));
}
function finish({kind, moved, at, item, box}) {
  if (kind === "pan" || kind === "pinch") return;
  if (!moved) return selectAt(at);
  if (kind === "draw") add(page.name, box);
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

// --- keys

const ARROWS = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
function arrow(event) {
  const [x, y] = ARROWS[event.key], item = selectedItem(), far = event.shiftKey ? 10 : 1;
  if (item && (event.altKey || event.ctrlKey))
    edit(item, {box: fitBox([item.box[0], item.box[1], Math.max(item.box[2] + x * far, item.box[0] + 1),
      Math.max(item.box[3] + y * far, item.box[1] + 1)])});
  else if (item) edit(item, {box: moveBox(item.box, x * far, y * far)});
  else if (event.shiftKey) pan(-x * 80, -y * 80);
  else if (x) go(x);
}
function selectNext(by) {
  const items = [...visibleObjects(), ...suggestions()];
  if (items.length) select(items[(items.indexOf(selectedItem()) + by + items.length + (by < 0 && !selectedItem() ? 1 : 0)) % items.length]);
}
function acceptChosen() {
  const item = selectedItem();
  accept(item && !isObject(item) ? [item] : suggestions());
}
const KEYS = {n: () => go(1), b: () => go(-1), u: goToUnlabelled, e: markEmpty, c: copyFromBefore, d: drawInTheMiddle,
  a: acceptChosen, r: () => isObject(selectedItem()) || !selectedItem() ? refuseAll() : remove(), x: remove,
  Enter: () => { accept(suggestions()); go(1); }, Delete: remove, Backspace: remove, z: () => undoOrRedo("undo", "redo"), y: () => undoOrRedo("redo", "undo"),
  ".": () => selectNext(1), ",": () => selectNext(-1), "+": () => zoomTo(view.scale * 1.3), "=": () => zoomTo(view.scale * 1.3),
  "-": () => zoomTo(view.scale / 1.3), f: zoomToFit, h: () => hide(page.name), Escape: () => select(null),
  "?": () => byId("help").showModal()};
const NEEDS_IMAGE = "ecdarxzy.,+=-fDeleteBackspaceEnter";

document.addEventListener("keydown", event => {
  const isField = event.target.matches("select, input:not([type=checkbox])") ||
    event.key === "Enter" && event.target.matches("button, input");
  if (byId("help").open || isField && event.key !== "Escape" || event.metaKey) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (ARROWS[key] || ARROWS[event.key]) {
    if (shown() || !event.shiftKey) arrow(event);
  } else if (/^[0-9]$/.test(key) && !event.ctrlKey) {
    const name = data.classes[(Number(key) + 9) % 10];
    if (name !== undefined) chooseClass(name);
  } else if (event.ctrlKey ? key === "z" || key === "y" : KEYS[key]) {
    if (NEEDS_IMAGE.includes(key) && !shown()) return;
    if (event.ctrlKey && key === "z" && event.shiftKey) KEYS.y();
    else KEYS[key](event);
  } else return;
  event.preventDefault();
});

// --- seconds an image takes

const time = {seconds: new Map(), helped: new Set(), labelled: new Set(), last: performance.now(), active: performance.now()};
for (const type of ["pointerdown", "pointermove", "keydown", "wheel"])
  addEventListener(type, () => { time.active = performance.now(); }, {capture: true, passive: true});
function tick() {
  const now = performance.now(), passed = now - time.last;
  time.last = now;
  if (document.hidden || now - time.active > 30000 || !shown()) return;
  time.seconds.set(page.shown, (time.seconds.get(page.shown) || 0) + passed / 1000);
  if (suggestions().length) time.helped.add(page.shown);
}
function meanSeconds(isHelped) {
  const indices = [...time.labelled].filter(index => time.helped.has(index) === isHelped);
  return indices.length ? indices.reduce((sum, index) => sum + (time.seconds.get(index) || 0), 0) / indices.length : null;
}

// --- panels

const button = (text, act, title, attributes) => h("button", {type: "button", class: "plain", title,
  onclick: () => { if (shown() || attributes?.always) act(); stage.focus({preventScroll: true}); }, ...attributes}, text);
function hide(name) {
  if (!page.hidden.delete(name)) page.hidden.add(name);
  update();
}
function tell(text) { byId("notice").textContent = text; }

const rowNodes = new Map();
function buildPage() {
  byId("top").append(
    h("div", {class: "line"}, h("b", {id: "name"}), h("span", {id: "saved", role: "status"}),
      h("span", {class: "push"}), themeButton(), button("keys ?", KEYS["?"], "all keys", {always: true})),
    h("div", {class: "line tools"},
      button("◀", () => go(-1), "the image before (b)", {"aria-label": "the image before", always: true}),
      button("▶", () => go(1), "the next image (n)", {"aria-label": "the next image", always: true}),
      button("next unlabelled", goToUnlabelled, "u", {always: true}),
      button("undo", KEYS.z, "z", {id: "undo"}), button("redo", KEYS.y, "y", {id: "redo"}),
      button("delete", remove, "x", {id: "delete"}), button("copy from before", copyFromBefore, "c"),
      button("empty", markEmpty, "nothing to label in this image (e)"),
      button("−", KEYS["-"], "smaller (-)", {"aria-label": "zoom out"}), button("+", KEYS["+"], "larger (+)", {"aria-label": "zoom in"}),
      button("fit", zoomToFit, "f"),
      button("pan", () => { page.isPanning = !page.isPanning; update(); }, "drags move the image", {id: "pan", "aria-pressed": "false"})));
  byId("work").append(stage, h("p", {id: "notice", role: "status"}));
  stage.id = "stage";
  stage.tabIndex = 0;
  stage.setAttribute("aria-label", "image with boxes; press ? for the keys");
  const chooser = (key, options, label) => h("select", {"aria-label": label, onchange: event => {
    page[key] = event.target.value;
    fillList();
  }}, options.map(([value, text]) => h("option", {value}, text)));
  byId("list").append(h("div", {class: "line"}, h("b", {id: "progress"})), h("progress", {id: "bar", max: data.images.length}), h("div", {class: "note", id: "clock"}),
    h("div", {class: "line"}, chooser("filter", [["all", "all"], ...STATES.map(state => [state, state])], "which images"),
      data.suggests ? chooser("order", [["name", "by name"], ["unsure", "most unsure first"]], "order of the images") : null),
    h("ol", {id: "rows"}));
  for (const row of data.images) rowNodes.set(row.index, h("li", {}, h("button", {type: "button", class: "row",
    onclick: () => { show(row.index); stage.focus({preventScroll: true}); }},
  h("i", {}), h("span", {class: "text"}, row.name), h("span", {class: "state soft"}))));
  fill(byId("side"), {}, [h("h2", {}, "Classes"), h("ol", {id: "classes"}), data.suggests ? h("div", {id: "suggest"},
    h("h2", {}, "Suggestions"), h("label", {class: "line"}, "score ≥", h("input", {type: "range", min: .05, max: 1, step: .01, value: page.score,
      oninput: event => { page.score = Number(event.target.value); update(); fillList(); }}), h("output", {id: "score"})),
    h("p", {class: "note", id: "waiting"}),
    h("div", {class: "line"}, button("accept all", () => accept(suggestions()), "a", {id: "accept-all"}),
      button("accept", () => isObject(selectedItem()) || accept([selectedItem()].filter(Boolean)), "a, where one is selected", {id: "accept"}),
      button("refuse", KEYS.r, "r", {id: "refuse"}))) : null,
  h("p", {class: "note"}, `${data.folder}, written as ${data.layout}`)]);
  byId("classes").append(...data.classes.map((name, i) => h("li", {},
    h("button", {type: "button", class: "row", "data-name": name, onclick: () => { chooseClass(name); stage.focus(); }},
      h("kbd", {}, i < 10 ? String((i + 1) % 10) : ""), s("svg", {class: "dot", viewBox: "0 0 10 10", "aria-hidden": "true"},
        s("rect", {width: 10, height: 10, rx: 2, fill: colorOf(name)})), h("span", {class: "text"}, name), h("span", {class: "count soft"})),
    h("input", {type: "checkbox", checked: true, "aria-label": `show ${name}`, onchange: () => hide(name)}))));
  byId("help").append(h("h2", {}, "Keys"), h("dl", {}, [["n b → ←", "next image, image before"], ["u", "next unlabelled image"],
    ["1 … 9 0", "class of new boxes and of the selected one"], ["drag", "draws; in the selected box moves it; with Shift always draws"],
    ["click . ,", "selects a box; again: the next one below"], ["d", "draws a box in the middle"],
    ["arrows", "move the selected box, with Shift by 10 pixels"], ["Alt or Ctrl + arrows", "change its width and height"],
    ["x Delete", "deletes the selected box"], ["z y", "undo, redo"], ["c", "copies the boxes of the image before"],
    ["e", "nothing to label here; with Shift, also where there are boxes"], ["a", "accepts the selected suggestion, or all"],
    ["Enter", "accepts all suggestions, and goes to the next image"], ["r", "refuses it, or all"],
    ["wheel + - f", "zoom; the whole image"], ["right button, two fingers, Shift + arrows", "move the image"], ["h", "shows or hides the class"],
    ["Esc", "selects nothing"]].map(([keys, text]) => [h("dt", {}, keys), h("dd", {}, text)])),
  h("form", {method: "dialog"}, h("button", {class: "plain"}, "close")));
  fillList();
}
function fillList() {
  byId("rows").replaceChildren(...ordered().map(row => rowNodes.get(row.index)));
}
function updateRow(row) {
  const node = rowNodes.get(row.index).firstChild, state = stateOfRow(row);
  if (node.dataset.state !== state) {
    node.dataset.state = state;
    node.querySelector(".state").textContent = state;
  }
  const isShown = row.index === page.shown;
  if (node.hasAttribute("aria-current") === isShown) return;
  node.toggleAttribute("aria-current", isShown);
  if (isShown) byId("rows").scrollTop = node.parentNode.offsetTop - byId("rows").clientHeight / 2;
}

let isUpdating = false;
function update() {
  if (isUpdating) return;
  isUpdating = true;
  requestAnimationFrame(() => {
    isUpdating = false;
    updatePanels();
    redraw();
  });
}
function updatePanels() {
  const labels = current(), rows = data.images, item = selectedItem();
  const done = rows.filter(row => row.state !== "unlabelled").length, pending = unsaved();
  const broken = pending.map(index => labelsOf.get(index).error).find(Boolean);
  byId("name").textContent = rowOf.get(page.shown)?.name ?? "";
  byId("saved").textContent = broken ? `not saved: ${broken}. It is tried again` : pending.length ? "saving …" : "✓ saved";
  byId("saved").dataset.state = broken ? "error" : pending.length ? "saving" : "saved";
  byId("progress").textContent = `${done} of ${rows.length} labelled`;
  byId("bar").value = done;
  const means = [["with suggestions", meanSeconds(true)], ["without", meanSeconds(false)]].filter(([, mean]) => mean !== null);
  byId("clock").textContent = means.length ? "seconds an image: " + means.map(([text, mean]) => `${mean.toFixed(1)} ${text}`).join(", ") : "";
  byId("pan").setAttribute("aria-pressed", page.isPanning);
  for (const [id, isOff] of [["undo", !labels?.undo.length], ["redo", !labels?.redo.length], ["delete", !item]]) byId(id).disabled = isOff;
  for (const node of byId("classes").children) {
    const name = node.firstChild.dataset.name, count = labels ? labels.objects.filter(object => object.name === name).length : 0;
    node.firstChild.setAttribute("aria-pressed", name === page.name);
    node.querySelector(".count").textContent = count || "";
    node.lastChild.checked = !page.hidden.has(name);
  }
  if (data.suggests) {
    const count = suggestions().length;
    byId("score").textContent = page.score.toFixed(2);
    byId("waiting").textContent = labels?.suggestions ? `${count} in this image` : "the detector has not come to this image yet";
    byId("accept-all").disabled = byId("refuse").disabled = !count;
    byId("accept").disabled = !item || isObject(item);
  }
  for (const row of rows) updateRow(row);
}

// Collects what is drawn: objects, suggestions, and the box that is being dragged in place of its old one.
function buildScene() {
  const selected = selectedItem();
  const items = [...visibleObjects(), ...suggestions()].filter(item => !(action?.moved && action.item === item && action.kind !== "pan" && action.kind !== "draw"));
  const boxes = items.filter(item => item !== selected).map(item => toDrawn(item, false));
  if (selected && items.includes(selected)) boxes.push(toDrawn(selected, true));
  if (action?.moved && action.box && ["draw", "move", "resize"].includes(action.kind)) {
    const item = action.kind === "draw" ? {name: page.name, id: 0} : action.item;
    boxes.push({...toDrawn({...item, box: action.box}, true), tag: `${item.name}  ${sides(action.box)}`});
  }
  return {boxes, guide: action || page.isPanning ? null : page.cursor};
}
const sides = box => [0, 1].map(i => Math.round(box[i + 2] - box[i])).join(" × ");
const toDrawn = (item, isSelected) => ({box: item.box, name: item.name, isSelected, isSuggestion: !isObject(item),
  tag: isObject(item) ? item.name : `${item.name} ${item.score.toFixed(2)}`});

listeners.push(index => {
  const labels = labelsOf.get(index);
  if (labels && labels.undo.length) time.labelled.add(index);
  update();
});
buildPage();
new ResizeObserver(() => { if (shown()) keepInSight(); }).observe(stage);
setInterval(tick, 200);
setInterval(() => { if (!document.hidden) poll(page.shown); }, POLL_MS);
setInterval(() => { if (page.order !== "name" && !action) fillList(); }, 5000);
const asked = Number(location.hash.slice(1));
const first = data.images.find(row => location.hash && row.index === asked) || data.images.find(row => row.state === "unlabelled") || data.images[0];
if (first) show(first.index).then(() => { root.dataset.ready = "yes"; });
