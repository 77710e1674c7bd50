// The images that the sliders and filters select, page by page, and one of them enlarged.

const PAGE_SIZE = 24;
const state = {score: 0, nms: data.nms_thresh, class: 0, error: "all", sort: "worst", page: 1, open: -1, theme: ""};
// Of a detector that finds nothing right, no score is the best one: then all of its detections are shown.
const DEFAULTS = {...state, score: !data.has_ground_truth ? data.score : data.f1 > 0 ? data.best_score : 0};
const FILTERS = ["all", "any", "correct", ...Object.keys(ERROR_NOTES)];
const images = unpackImages(), controlUpdates = [];  // controlUpdates: functions that show the state in the controls
let list = [], cards = null, showStatus = null;      // list: [{image, result of filterImage}]

// The address holds the state, so that a view can be bookmarked: #score=0.5&nms=0.4&class=2&error=missed&page=3
function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const readNumber = (key, low, high) => {
    const value = Number(address.get(key));
    if (address.get(key) && value >= low && value <= high) state[key] = value;
  };
  const readChoice = (key, choices) => { if (choices.includes(address.get(key))) state[key] = address.get(key); };
  readNumber("score", 0, 1);
  readNumber("nms", 0, data.nms_thresh);
  readNumber("class", 0, data.classes.length);
  readNumber("page", 1, 1e6);
  readNumber("open", -1, images.length - 1);
  if (data.has_ground_truth) {
    readChoice("error", FILTERS);
    readChoice("sort", Object.keys(ORDERS));
  }
  readChoice("theme", ["light", "dark"]);
}
let addressTimer = 0;  // browsers allow about twenty changes of the address a second
function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => {
    const parts = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key])
      .map(([key, value]) => `${key}=${typeof value === "number" ? Number(value.toFixed(4)) : value}`);
    history.replaceState(null, "", parts.length ? "#" + parts.join("&") : location.pathname + location.search);
  }, 120);
}
function setState(changes) {
  const keepsPage = "page" in changes || "open" in changes || "theme" in changes;
  Object.assign(state, keepsPage ? {} : {page: 1}, changes);
  writeAddress();
  render();
}

function slider(key, name, maximum, tooltip) {
  const output = h("output");
  const input = h("input", {type: "range", min: 0, max: maximum, step: .01, "aria-label": name, title: tooltip,
    oninput: () => setState({[key]: Number(input.value)})});
  controlUpdates.push(() => { input.value = state[key]; output.textContent = state[key].toFixed(2); });
  return h("label", {title: tooltip}, name, input, output);
}
function choice(key, name, options) {
  const input = h("select", {"aria-label": name,
    onchange: () => setState({[key]: key === "class" ? Number(input.value) : input.value})},
  options.map(([value, text]) => h("option", {value}, text)));
  controlUpdates.push(() => { input.value = String(state[key]); });
  return h("label", {}, name, input);
}
const sliders = () => [slider("score", "score", 1, "Score threshold: detections with a lower score are not shown"),
  slider("nms", "NMS IoU", data.nms_thresh, "NMS threshold: of two detections of a class with a higher IoU, the one " +
    `with the lower score is dropped. The evaluation used ${data.nms_thresh}`)];

const className = label => data.classes[label - 1];
function boxesToDraw(result, large) {
  const objects = result.objects.map(object => {
    const kind = object.flags ? "ignored" : isDetected(object, state) ? "detected" : "missed";
    const name = className(object.label), flag = object.flags & 1 ? ", crowd" : object.flags ? ", difficult" : "";
    return {at: object.at, kind: `ground-truth c-${kind}`, tag: kind === "missed" ? name : null,
      title: `${name}: ${kind}${flag}`};
  });
  const detections = [...result.detections].reverse().map(det => ({at: det.at,
    kind: data.has_ground_truth ? "c-" + det.kind : "", color: data.has_ground_truth ? null : classColor(det.label),
    tag: large || det.kind !== "correct" ? `${className(det.label)} ${det.score.toFixed(2)}` : null,
    title: describeDetection(det)}));
  return [...objects, ...detections];
}
function describeDetection(det) {
  const text = `${className(det.label)} ${det.score.toFixed(3)}`;
  if (!data.has_ground_truth) return text;
  if (!det.target) return `${text}: ${det.kind}`;
  const name = FALSE_POSITIVE.has(det.kind) ? className(det.target.label) + ", " : "";
  return `${text}: ${det.kind} (${name}IoU ${det.iou.toFixed(2)})`;
}

function card({image, result}) {
  const node = imageNode(image, Math.min(300, 200 * image.width / image.height), image.name);
  drawBoxes(node, boxesToDraw(result, false));
  let counts = `${result.detections.length} detections`;
  if (data.has_ground_truth)
    counts = ["correct", "wrong", "missed"].filter(key => result[key]).map(key => `${result[key]} ${key}`).join(", ") ||
      "no objects, no detections";
  return h("button", {type: "button", class: "card", onclick: () => setState({open: image.number})},
    h("span", {class: "picture"}, node),
    h("span", {class: "under"}, h("span", {class: "name", title: image.name}, image.name),
      h("span", {class: "counts"}, counts)));
}

const ORDERS = {
  worst: (a, b) => a.image.number - b.image.number,
  now: (a, b) => b.result.weight - a.result.weight || a.image.number - b.image.number,
  name: (a, b) => a.image.name.localeCompare(b.image.name),
};
const currentFilter = () => ({score: state.score, label: state.class, kind: state.error});
function render() {
  for (const update of controlUpdates) update();
  if (state.theme) root.dataset.theme = state.theme;
  const filter = currentFilter(), total = {correct: 0, wrong: 0, missed: 0};
  let numShown = 0;
  list = [];
  for (const image of images) {
    updateImage(image, state.nms);
    const result = filterImage(image, filter);
    numShown += image.detections.reduce((n, det) => n + isShown(det, filter), 0);
    for (const key in total) total[key] += result[key];
    if (result.listed) list.push({image, result});
  }
  list.sort(ORDERS[state.sort]);
  const numPages = Math.max(1, Math.ceil(list.length / PAGE_SIZE));
  state.page = Math.min(state.page, numPages);
  const onPage = list.slice((state.page - 1) * PAGE_SIZE, state.page * PAGE_SIZE);
  cards.replaceChildren(...onPage.map(card));
  if (!onPage.length)
    cards.append(h("p", {class: "note"},
      "No image matches the filters. A lower score threshold, another class or another kind of error shows more."));
  showStatus(total, numPages);
  showClassCurve(state.class);
  showConfusions();
  showEnlarged();
  const sum = key => onPage.reduce((n, {result}) => n + result[key].length, 0);
  Object.assign(root.dataset, {listed: list.length, page: state.page, boxes: sum("detections"), objects: sum("objects"),
    ...total, shown: numShown, ...comparison, theme: state.theme || ""});
}

function classAndErrorFilters() {
  const names = data.classes.map((name, c) => [c + 1, name]).sort((a, b) => a[1].localeCompare(b[1]));
  const byClass = choice("class", "class", [[0, "all"], ...names]);
  if (!data.has_ground_truth) return [byClass];
  const kinds = ["correct", ...Object.keys(ERROR_NOTES)].map(kind => [kind, kind]);
  return [byClass, choice("error", "show", [["all", "everything"], ["any", "all errors"], ...kinds]),
    choice("sort", "order", [["worst", "errors (evaluation)"], ["now", "errors (as shown)"], ["name", "name"]])];
}
function statusCounts(total) {
  if (!data.has_ground_truth)
    return [[formatCount(list.reduce((n, {result}) => n + result.detections.length, 0)), "detections"]];
  const precision = total.correct / (total.correct + total.wrong);
  const recall = total.correct / (total.correct + total.missed);
  return [[percent(precision) + " %", "precision"], [percent(recall) + " %", "recall"],
    ...Object.entries(total).map(([key, n]) => [formatCount(n), key])];
}

function gallery() {
  const counts = h("div", {class: "live", "aria-live": "polite"}), position = h("span");
  const turnPage = by => () => setState({page: state.page + by});
  const pageButton = (by, text) => h("button", {type: "button", class: "plain", onclick: turnPage(by)}, text);
  const previous = pageButton(-1, "← previous"), next = pageButton(1, "next →");
  cards = h("div", {class: "cards"});
  showStatus = (total, numPages) => {
    counts.replaceChildren(...statusCounts(total).map(([value, name]) => h("span", {}, h("b", {}, value), " ", name)));
    position.textContent = `${formatCount(list.length)} of ${formatCount(images.length)} images, ` +
      `page ${state.page} of ${numPages}`;
    [previous.disabled, next.disabled] = [state.page <= 1, state.page >= numPages];
  };
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey || /INPUT|SELECT/.test(event.target.tagName)) return;
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (!by) return;
    event.preventDefault();
    if (state.open >= 0) openNeighbor(by);
    else if (!(by < 0 ? previous : next).disabled) turnPage(by)();
  });
  const controls = h("div", {class: "controls"}, sliders(), classAndErrorFilters(), h("button", {type: "button",
    class: "plain", onclick: () => setState({...DEFAULTS, theme: state.theme})}, "reset"));
  const note = `Shown: ${data.shown}. Arrow keys turn the page; Enter or a click enlarges an image.`;
  return h("section", {id: "pictures", tabindex: -1}, h("h2", {}, "Images"), h("p", {class: "note"}, note),
    data.has_ground_truth ? legend([["c-correct", "correct"], ["ground-truth c-detected", "object, detected"],
      ["ground-truth c-missed", "object, missed"], ["c-localization", "localization"],
      ["c-classification", "classification"], ["c-both", "both"], ["c-duplicate", "duplicate"],
      ["c-background", "background"], ["c-ignored", "ignored: crowd or difficult"]]) : null,
    h("div", {class: "bar-top"}, controls, h("div", {class: "status"}, counts,
      h("div", {class: "pager"}, previous, position, next))), cards);
}

// The enlarged image.
const dialog = document.getElementById("enlarged");
const parts = {picture: h("div", {class: "picture"}), name: h("h3"), summary: h("p", {class: "note"}),
  boxes: h("ol", {class: "box-list"})};
function openNeighbor(by) {
  const index = list.findIndex(({image}) => image.number === state.open) + by;
  if (list[index]) setState({open: list[index].image.number, page: Math.floor(index / PAGE_SIZE) + 1});
}
function prepareDialog() {
  const button = (text, onclick) => h("button", {type: "button", class: "plain", onclick}, text);
  const close = () => setState({open: -1});
  dialog.append(h("div", {class: "frame"}, parts.picture, h("aside", {},
    h("div", {class: "head"}, parts.name, button("close", close)), parts.summary,
    h("div", {class: "controls"}, sliders(), button("← previous", () => openNeighbor(-1)),
      button("next →", () => openNeighbor(1))), parts.boxes)));
  dialog.addEventListener("close", () => { if (state.open >= 0) close(); });
  dialog.addEventListener("click", event => { if (event.target === dialog) close(); });
}
function showEnlarged() {
  if (state.open < 0) { if (dialog.open) dialog.close(); return; }
  const image = images[state.open], result = filterImage(image, currentFilter());
  const maxWidth = Math.max(280, innerWidth * .96 - (innerWidth > 960 ? 336 : 0)), maxHeight = innerHeight * .92;
  const node = imageNode(image, Math.min(maxWidth, maxHeight * image.width / image.height, 1008), image.name);
  drawBoxes(node, boxesToDraw(result, true));
  parts.picture.replaceChildren(node);
  parts.name.textContent = image.name;
  parts.summary.textContent = `${image.width} × ${image.height} pixels` + (data.has_ground_truth ?
    `; ${result.correct} correct, ${result.wrong} wrong, ${result.missed} missed` : "") +
    (image.jpeg ? "" : "; the page does not hold this image");
  parts.boxes.replaceChildren(...boxRows(result));
  if (!dialog.open) dialog.showModal();
}
function boxRows(result) {
  const row = (kind, name, note, value) => h("li", {}, swatch(kind),
    h("span", {}, name, note ? h("small", {}, " " + note) : ""), h("span", {}, value));
  const detections = result.detections.map(det => {
    const trueClass = det.target && det.target.label !== det.label ? `: true class ${className(det.target.label)}` : "";
    return row(data.has_ground_truth ? "c-" + det.kind : "c-detected", className(det.label),
      data.has_ground_truth ? det.kind + trueClass : "", det.score.toFixed(3));
  });
  const undetected = result.objects.filter(object => !isDetected(object, state)).map(object => {
    const kind = object.flags ? "ignored" : "missed";
    return row("ground-truth c-" + kind, className(object.label), kind, "");
  });
  return [...detections, ...undetected];
}
