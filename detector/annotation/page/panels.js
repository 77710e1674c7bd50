"use strict";
// The panels around the image: tools, the list of images, classes, suggestions, keys; and what is drawn.

const rowNodes = new Map();

function tell(text) { byId("notice").textContent = text; }
function toggleHidden(name) {
  if (!page.hidden.delete(name)) page.hidden.add(name);
  update();
}

// A button; one that changes labels does nothing until the image is there.
function button(text, act, title, attributes = {}, needsImage = true) {
  const press = () => {
    if (hasImage() || !needsImage) act();
    stage.focus({preventScroll: true});
  };
  return h("button", {type: "button", class: "plain", title, onclick: press, ...attributes}, text);
}

function buildPage() {
  stage.id = "stage";
  stage.tabIndex = 0;
  stage.setAttribute("aria-label", "image with boxes; press ? for the keys");
  byId("work").append(stage, h("p", {id: "notice", role: "status"}));
  byId("top").append(
    h("div", {class: "line"}, h("b", {id: "name"}), h("span", {id: "saved", role: "status"}),
      h("span", {class: "push"}), themeButton(),
      commandButton({...commandOf.get("?"), label: "keys ?"})),
    h("div", {class: "line tools"}, buildTools()));
  byId("help").append(h("h2", {}, "Keys"),
    h("dl", {}, [...GESTURES, ...COMMANDS].map(({keys, text}) => [h("dt", {}, keys), h("dd", {}, text)])),
    h("form", {method: "dialog"}, h("button", {class: "plain"}, "close")));
  buildList();
  buildSide();
}
function commandButton({keys, label, text, act, anytime}) {
  const attributes = label.length > 1 ? {id: label.replaceAll(" ", "-")} : {"aria-label": text};
  return button(label, act, `${text} (${keys})`, attributes, !anytime);
}
function buildTools() {
  const turnPan = () => {
    page.isPanning = !page.isPanning;
    update();
  };
  return [...COMMANDS.filter(({label}) => label).map(commandButton),
    button("pan", turnPan, "drags move the image", {id: "pan", "aria-pressed": "false"})];
}
function buildList() {
  const choose = key => event => {
    page[key] = event.target.value;
    fillList();
  };
  const chooser = (key, options, label) => h("select", {"aria-label": label, onchange: choose(key)},
    options.map(([value, text]) => h("option", {value}, text)));
  const states = ["all", ...STATES].map(state => [state, state]);
  const orders = [["name", "by name"], ["unsure", "most unsure first"]];
  byId("list").append(h("div", {class: "line"}, h("b", {id: "progress"})),
    h("progress", {id: "bar", max: data.images.length}), h("div", {class: "note", id: "clock"}),
    fill(h("div", {class: "line"}), {}, [chooser("filter", states, "which images"),
      data.suggests ? chooser("order", orders, "order of the images") : null]),
    h("ol", {id: "rows"}));
  for (const row of data.images) {
    const open = () => {
      show(row.index);
      stage.focus({preventScroll: true});
    };
    rowNodes.set(row.index, h("li", {}, h("button", {type: "button", class: "row", title: row.name, onclick: open},
      h("i", {role: "img"}), h("span", {class: "text"}, h("bdi", {dir: "ltr"}, row.name)))));
  }
  fillList();
}
function buildSide() {
  const setScore = event => {
    page.score = Number(event.target.value);
    update();
    fillList();
  };
  const acceptSelected = () => {
    const item = selectedItem();
    if (item && !isObject(item)) accept([item]);
  };
  fill(byId("side"), {}, [h("h2", {}, "Classes"), h("ol", {id: "classes"}, data.classes.map(buildClass)),
    data.suggests ? h("div", {id: "suggest"}, h("h2", {}, "Suggestions"),
      h("label", {class: "line"}, "score ≥",
        h("input", {type: "range", min: .05, max: 1, step: .01, value: page.score, oninput: setScore}),
        h("output", {id: "score"})),
      h("p", {class: "note", id: "waiting"}),
      h("div", {class: "line"}, button("accept all", () => accept(suggestions()), "accepts all suggestions (a)", {id: "accept-all"}),
        button("accept", acceptSelected, "accepts the selected suggestion (a)", {id: "accept"}),
        commandButton({...commandOf.get("r"), label: "refuse"}))) : null,
    h("p", {class: "note"}, `${data.folder}, written as ${data.layout}`)]);
}
function buildClass(name, i) {
  const choose = () => {
    chooseClass(name);
    stage.focus({preventScroll: true});
  };
  return h("li", {}, h("button", {type: "button", class: "row", "data-name": name, onclick: choose},
    h("kbd", {}, i < 10 ? String((i + 1) % 10) : ""),
    s("svg", {class: "dot", viewBox: "0 0 10 10", "aria-hidden": "true"},
      s("rect", {width: 10, height: 10, rx: 2, fill: colorOf(name)})),
    h("span", {class: "text"}, name), h("span", {class: "count soft"})),
  h("input", {type: "checkbox", checked: true, "aria-label": `show ${name}`, onchange: () => toggleHidden(name)}));
}
function fillList() {
  byId("rows").replaceChildren(...ordered().map(row => rowNodes.get(row.index)));
}

const update = onceAFrame(() => {
  updatePanels();
  redraw();
});
function updatePanels() {
  const labels = current(), rows = data.images, item = selectedItem();
  const done = rows.filter(row => row.state !== "unlabelled").length, pending = unsaved();
  const broken = pending.map(index => labelsOf.get(index)).find(({error}) => error);
  byId("name").textContent = rowOf.get(page.index)?.name ?? "";
  byId("saved").textContent = broken ? notSaved(broken) : pending.length ? "saving …" :
    "✓ saved";
  byId("saved").dataset.state = broken ? "error" : pending.length ? "saving" : "saved";
  byId("progress").textContent = `${done} of ${rows.length} labelled`;
  byId("bar").value = done;
  const means = [["with suggestions", meanSeconds(true)], [data.suggests ? "without" : "", meanSeconds(false)]]
    .filter(([, mean]) => mean !== null).map(([text, mean]) => `${mean.toFixed(1)} ${text}`.trim());
  byId("clock").textContent = means.length ? "seconds an image: " + means.join(", ") : "";
  byId("pan").setAttribute("aria-pressed", page.isPanning);
  byId("undo").disabled = !labels?.undo.length;
  byId("redo").disabled = !labels?.redo.length;
  byId("delete").disabled = !item;
  for (const node of byId("classes").children) {
    const name = node.firstChild.dataset.name;
    const count = labels ? labels.objects.filter(object => object.name === name).length : 0;
    node.firstChild.setAttribute("aria-pressed", name === page.newClass);
    node.querySelector(".count").textContent = count || "";
    node.lastChild.checked = !page.hidden.has(name);
  }
  if (data.suggests) updateSuggestions(labels, item);
  rows.forEach(updateRow);
}
const notSaved = ({error, isRefused}) =>
  `not saved: ${error.replace(/\.$/, "")}. ${isRefused ? "Undo or change it" : "Saving is tried again"}`;
function updateSuggestions(labels, item) {
  const count = suggestions().length;
  byId("score").textContent = page.score.toFixed(2);
  const best = Math.max(0, ...(labels?.suggestions ?? []).map(row => row.score));
  byId("waiting").textContent = !labels?.suggestions ? "the detector has not come to this image yet" :
    `${count} in this image` + (best && best < page.score ? `; the best score is ${best.toFixed(2)}` : "");
  byId("accept-all").disabled = byId("refuse").disabled = !count;
  byId("accept").disabled = !item || isObject(item);
}
function updateRow(row) {
  const node = rowNodes.get(row.index).firstChild, state = stateOfRow(row);
  if (node.dataset.state !== state) {
    node.dataset.state = state;
    node.firstChild.title = state;
    node.firstChild.setAttribute("aria-label", state);
  }
  const isShown = row.index === page.index;
  if (node.hasAttribute("aria-current") === isShown) return;
  node.toggleAttribute("aria-current", isShown);
  if (isShown) byId("rows").scrollTop = node.parentNode.offsetTop - byId("rows").clientHeight / 2;
}

// Collects what is drawn: objects, suggestions, and the box that is being dragged in place of its old one.
function buildScene() {
  const selected = selectedItem(), isDragged = action?.moved && ["move", "resize"].includes(action.kind);
  const items = [...visibleObjects(), ...suggestions()].filter(item => item !== selected);
  const boxes = items.map(item => toDrawn(item, false));
  if (selected && !isDragged) boxes.push(toDrawn(selected, true));
  if (action?.moved && action.box && (isDragged || action.kind === "draw")) {
    const item = action.kind === "draw" ? {name: page.newClass, id: 0} : action.item;
    boxes.push({...toDrawn({...item, box: action.box}, true), tag: `${item.name}  ${sides(action.box)}`});
  }
  return {boxes, guide: action || page.isPanning ? null : page.cursor};
}
const sides = box => [0, 1].map(i => Math.round(box[i + 2] - box[i])).join(" × ");
const toDrawn = (item, isSelected) => ({box: item.box, name: item.name, isSelected, isSuggestion: !isObject(item),
  tag: isObject(item) ? item.name : `${item.name} ${item.score.toFixed(2)}`});
