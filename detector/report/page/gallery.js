// The pictures: what the sliders and filters leave, page by page, and one of them large.

const EACH = 24;
const state = {score: 0, nms: data.nms_iou, class: 0, error: "all", sort: "worst", page: 1, open: -1, theme: ""};
const BEGIN = {score: data.analysed ? data.best_score : .5, ...Object.fromEntries(["nms", "class", "error", "sort", "page", "open", "theme"].map(key => [key, state[key]]))};
const ERRORS = ["all", "any", "right", ...Object.keys(KINDS)];
const images = unpack(), bound = [];
let list = [], cardsAt = null;

// The address tells the state, so that a view can be kept and sent: #score=0.5&nms=0.4&class=2&error=missed&page=3
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const number = (key, low, high) => { const value = Number(said.get(key)); if (said.get(key) && value >= low && value <= high) state[key] = value; };
  number("score", 0, 1);
  number("nms", 0, data.nms_iou);
  number("class", 0, data.classes.length);
  number("page", 1, 1e6);
  number("open", -1, images.length - 1);
  if (ERRORS.includes(said.get("error")) && data.analysed) state.error = said.get("error");
  if (["worst", "now", "name"].includes(said.get("sort")) && data.analysed) state.sort = said.get("sort");
  if (["light", "dark"].includes(said.get("theme"))) state.theme = said.get("theme");
}
let writing = 0;  // browsers refuse more than some twenty changes a second
function writeAddress() {
  clearTimeout(writing);
  writing = setTimeout(writeAddressNow, 120);
}
function writeAddressNow() {
  const said = Object.entries(state).filter(([key, value]) => value !== BEGIN[key]).map(([key, value]) => `${key}=${typeof value === "number" ? Number(value.toFixed(4)) : value}`);
  history.replaceState(null, "", said.length ? "#" + said.join("&") : location.pathname + location.search);
}
function set(changes) {
  Object.assign(state, "page" in changes || "open" in changes || "theme" in changes ? {} : {page: 1}, changes);
  writeAddress();
  render();
}

function slider(key, name, most, about) {
  const input = h("input", {type: "range", min: 0, max: most, step: .01, "aria-label": name, title: about, oninput: () => set({[key]: Number(input.value)})}), told = h("output");
  bound.push(() => { input.value = state[key]; told.textContent = state[key].toFixed(2); });
  return h("label", {title: about}, name, input, told);
}
function choice(key, name, options) {
  const input = h("select", {"aria-label": name, onchange: () => set({[key]: key === "class" ? Number(input.value) : input.value})}, options.map(([value, text]) => h("option", {value}, text)));
  bound.push(() => { input.value = String(state[key]); });
  return h("label", {}, name, input);
}
const overlapNote = `Overlap above which the weaker of two detections of a class is taken away; the evaluation itself used ${data.nms_iou}`;
const sliders = () => [slider("score", "score", 1, "Detections below this score are not shown"), slider("nms", "NMS overlap", data.nms_iou, overlapNote)];

const className = label => data.classes[label - 1];
const kindOf = det => data.analysed ? det.error : "";
function boxesOf(told, large) {
  const truth = told.objects.map(object => {
    const kind = object.flags ? "ignored" : isFound(object, state) ? "truth" : "missed", name = className(object.label);
    return {at: object.at, kind: `truth c-${kind}`, tag: kind === "missed" ? name : null, title: `${name}: ${kind === "truth" ? "found" : kind}${object.flags & 1 ? ", a crowd" : object.flags ? ", difficult" : ""}`};
  });
  const found = [...told.dets].reverse().map(det => ({at: det.at, kind: data.analysed ? "c-" + det.error : "", colour: data.analysed ? null : classColour(det.label),
    tag: large || det.error !== "right" ? `${className(det.label)} ${det.score.toFixed(2)}` : null, title: sentence(det)}));
  return [...truth, ...found];
}
function sentence(det) {
  const about = det.target && WRONG.has(det.error) ? ` (${className(det.target.label)}, overlap ${det.iou.toFixed(2)})` : det.target ? ` (overlap ${det.iou.toFixed(2)})` : "";
  return `${className(det.label)} ${det.score.toFixed(3)}${data.analysed ? ": " + det.error + about : ""}`;
}

function card(entry) {
  const {image, told} = entry, shown = Math.min(300, 200 * image.width / image.height), node = picture(image, shown, image.name);
  drawBoxes(node, boxesOf(told, false));
  const counts = data.analysed ? [told.right ? `${told.right} right` : "", told.wrong ? `${told.wrong} wrong` : "", told.missed ? `${told.missed} missed` : ""].filter(Boolean).join(", ") || "nothing" : `${told.dets.length} found`;
  return h("button", {type: "button", class: "card", onclick: () => set({open: image.number})}, h("span", {class: "picture"}, node),
    h("span", {class: "under"}, h("span", {class: "name", title: image.name}, image.name), h("span", {class: "told"}, counts)));
}

const ORDERS = {worst: (a, b) => a.image.number - b.image.number, now: (a, b) => b.told.weight - a.told.weight || a.image.number - b.image.number,
  name: (a, b) => a.image.name.localeCompare(b.image.name)};
function render() {
  for (const show of bound) show();
  if (state.theme) root.dataset.theme = state.theme;
  const seen = {...state, label: state.class}, sum = {right: 0, wrong: 0, missed: 0};
  let alive = 0;
  list = [];
  for (const image of images) {
    settle(image, state.nms);
    const told = look(image, seen);
    alive += image.dets.reduce((n, det) => n + isSeen(det, seen), 0);
    for (const key in sum) sum[key] += told[key];
    if (told.listed) list.push({image, told});
  }
  list.sort(ORDERS[state.sort]);
  const pages = Math.max(1, Math.ceil(list.length / EACH));
  state.page = Math.min(state.page, pages);
  const shown = list.slice((state.page - 1) * EACH, state.page * EACH);
  cardsAt.cards.replaceChildren(...shown.map(card));
  if (!shown.length) cardsAt.cards.append(h("p", {class: "note"}, "No image has what is asked for. A lower score, or another class or kind of error, shows more."));
  cardsAt.tell(sum, pages);
  chosenCurve(state.class);
  showLarge();
  Object.assign(root.dataset, {listed: list.length, page: state.page, boxes: shown.reduce((n, one) => n + one.told.dets.length, 0), objects: shown.reduce((n, one) => n + one.told.objects.length, 0),
    ...sum, alive, judged: judged.all, otherwise: judged.otherwise, theme: state.theme || ""});
}

function gallery() {
  const live = h("div", {class: "live", "aria-live": "polite"}), cards = h("div", {class: "cards"}), where = h("span"), turn = by => () => set({page: state.page + by});
  const [back, on] = [h("button", {type: "button", class: "plain", onclick: turn(-1)}, "← back"), h("button", {type: "button", class: "plain", onclick: turn(1)}, "on →")];
  const names = data.classes.map((name, c) => [c + 1, name]).sort((a, b) => a[1].localeCompare(b[1]));
  const controls = h("div", {class: "controls"}, sliders(), choice("class", "class", [[0, "all"], ...names]),
    data.analysed ? [choice("error", "show", [["all", "everything"], ["any", "any error"], ["right", "right"], ...Object.keys(KINDS).map(kind => [kind, kind])]),
      choice("sort", "first", [["worst", "worst images"], ["now", "most errors now"], ["name", "by name"]])] : null,
    h("button", {type: "button", class: "plain", onclick: () => set({...BEGIN, theme: state.theme})}, "reset"));
  cardsAt = {cards, tell(sum, pages) {
    const precision = sum.right / (sum.right + sum.wrong), recall = sum.right / (sum.right + sum.missed);
    live.replaceChildren(...(data.analysed ? [[percent(precision) + " %", "precision"], [percent(recall) + " %", "recall"], [count(sum.right), "right"], [count(sum.wrong), "wrong"], [count(sum.missed), "missed"]] :
      [[count(list.reduce((n, one) => n + one.told.dets.length, 0)), "objects found"]]).map(([value, name]) => h("span", {}, h("b", {}, value), " ", name)));
    where.textContent = `${count(list.length)} of ${count(images.length)} images, page ${state.page} of ${pages}`;
    [back.disabled, on.disabled] = [state.page <= 1, state.page >= pages];
  }};
  document.addEventListener("keydown", event => {
    if (event.altKey || event.ctrlKey || event.metaKey || /INPUT|SELECT/.test(event.target.tagName)) return;
    const by = event.key === "ArrowLeft" ? -1 : event.key === "ArrowRight" ? 1 : 0;
    if (!by) return;
    event.preventDefault();
    state.open >= 0 ? step(by) : !(by < 0 ? back : on).disabled && turn(by)();
  });
  return h("section", {id: "pictures", tabindex: -1}, h("h2", {}, "Pictures"), h("p", {class: "note"}, `Shown: ${data.shown}. Arrow keys turn the page; a picture opens with Enter or a click.`),
    data.analysed ? legend([["c-right", "right"], ["truth c-truth", "object, found"], ["truth c-missed", "object, missed"], ["c-localisation", "localisation"], ["c-class", "class"],
      ["c-both", "both"], ["c-duplicate", "duplicate"], ["c-background", "background"], ["c-ignored", "ignored: crowd or difficult"]]) : null,
    h("div", {class: "bar-top"}, controls, h("div", {class: "status"}, live, h("div", {class: "pager"}, back, where, on))), cards);
}

// One picture, large.
const dialog = document.getElementById("large"), frame = {picture: h("div", {class: "picture"}), name: h("h3"), told: h("p", {class: "note"}), found: h("ol", {class: "found"})};
function step(by) {
  const at = list.findIndex(one => one.image.number === state.open), next = list[at + by];
  if (next) set({open: next.image.number, page: Math.floor((at + by) / EACH) + 1});
}
function prepareLarge() {
  const close = () => set({open: -1});
  dialog.append(h("div", {class: "frame"}, frame.picture, h("aside", {}, h("div", {class: "head"}, frame.name, h("button", {type: "button", class: "plain", onclick: close}, "close")),
    frame.told, h("div", {class: "controls"}, sliders(), h("button", {type: "button", class: "plain", onclick: () => step(-1)}, "← back"), h("button", {type: "button", class: "plain", onclick: () => step(1)}, "on →")), frame.found)));
  dialog.addEventListener("close", () => { if (state.open >= 0) close(); });
  dialog.addEventListener("click", event => { if (event.target === dialog) close(); });
}
function showLarge() {
  if (state.open < 0) { if (dialog.open) dialog.close(); return; }
  const image = images[state.open], told = look(image, {...state, label: state.class});
  const room = [Math.max(280, innerWidth * .96 - (innerWidth > 960 ? 336 : 0)), innerHeight * .92];
  const node = picture(image, Math.min(room[0], room[1] * image.width / image.height, 1008), image.name);
  drawBoxes(node, boxesOf(told, true));
  frame.picture.replaceChildren(node);
  frame.name.textContent = image.name;
  frame.told.textContent = `${image.width} × ${image.height} pixels` + (data.analysed ? `; ${told.right} right, ${told.wrong} wrong, ${told.missed} missed` : "") +
    (image.jpeg ? "" : "; no room for its picture in this page");
  const row = (kind, name, value) => h("li", {}, swatch(kind), h("span", {}, name), h("span", {}, value));
  frame.found.replaceChildren(...told.dets.map(det => row(data.analysed ? "c-" + det.error : "c-truth", h("span", {}, className(det.label), data.analysed ? h("small", {}, " " + det.error + (det.target && det.target.label !== det.label ? `: is ${className(det.target.label)}` : "")) : ""), det.score.toFixed(3))),
    ...told.objects.filter(object => !isFound(object, state)).map(object => row("truth c-" + (object.flags ? "ignored" : "missed"), h("span", {}, className(object.label), h("small", {}, object.flags ? " ignored" : " missed")), "")));
  if (!dialog.open) dialog.showModal();
}
