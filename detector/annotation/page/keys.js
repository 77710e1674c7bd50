"use strict";
// The keys of the page, and the commands that they and the buttons run.

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
  const items = [...visibleObjects(), ...suggestions()], item = selectedItem();
  const at = item ? items.indexOf(item) + by : by > 0 ? 0 : -1;
  if (items.length) select(items[(at + items.length) % items.length]);
}
function acceptChosen() {
  const item = selectedItem();
  accept(item && !isObject(item) ? [item] : suggestions());
}
function acceptAndGo() {
  if (!page.wasLabelled) accept(suggestions());
  go(1);
}
function refuseChosen() {
  if (isObject(selectedItem()) || !selectedItem()) refuseAll();
  else remove();
}

// keys: the keys that run the command; text: its line in the help; label: of its button; anytime: works before the image is
// loaded, too.
const COMMANDS = [
  {keys: "b", label: "◀", text: "the image before", act: () => go(-1), anytime: true},
  {keys: "n", label: "▶", text: "the next image", act: () => go(1), anytime: true},
  {keys: "u", label: "first unlabelled", text: "first image that is not labelled; from there, the next one",
    act: goToUnlabelled, anytime: true},
  {keys: "z", label: "undo", text: "takes back the last change", act: () => undoOrRedo("undo", "redo")},
  {keys: "y", label: "redo", text: "repeats the change that was undone", act: () => undoOrRedo("redo", "undo")},
  {keys: "x Delete Backspace", label: "delete", text: "deletes the selected box", act: remove},
  {keys: "c", label: "copy from before", text: "copies the boxes of the image before", act: copyFromBefore},
  {keys: "e", label: "empty", text: "nothing to label here; with Shift, also where there are boxes", act: markEmpty},
  {keys: "-", label: "−", text: "zooms out", act: () => zoomTo(view.scale / 1.3)},
  {keys: "+ =", label: "+", text: "zooms in", act: () => zoomTo(view.scale * 1.3)},
  {keys: "f", label: "fit", text: "the whole image", act: zoomToFit},
  {keys: "d", text: "draws a box in the middle", act: drawInTheMiddle},
  {keys: ".", text: "selects the next box", act: () => selectNext(1)},
  {keys: ",", text: "selects the box before", act: () => selectNext(-1)},
  {keys: "a", text: "accepts the selected suggestion, or all", act: acceptChosen},
  {keys: "r", text: "refuses the selected suggestion, or all", act: refuseChosen},
  {keys: "Enter", text: "goes to the next image; accepts all suggestions before, if the image was not labelled",
    act: acceptAndGo},
  {keys: "h", text: "shows or hides the class of new boxes", act: () => toggleHidden(page.newClass), anytime: true},
  {keys: "Escape", text: "selects nothing", act: () => select(null), anytime: true},
  {keys: "?", text: "shows these keys", act: () => byId("help").showModal(), anytime: true}];
const GESTURES = [{keys: "drag", text: "draws; in the selected box moves it; with Shift always draws"},
  {keys: "click", text: "selects a box; again: the next one below"},
  {keys: "1 … 9 0", text: "class of new boxes and of the selected one"},
  {keys: "arrows", text: "move the selected box, with Shift by 10 pixels; without one, the image before or the next"},
  {keys: "Alt or Ctrl + arrows", text: "change its width and height"}, {keys: "wheel", text: "zoom"},
  {keys: "right button, two fingers, Shift + arrows", text: "move the image"}];
const commandOf = new Map(COMMANDS.flatMap(command => command.keys.split(" ").map(key => [key, command])));

document.addEventListener("keydown", event => {
  const isField = event.target.matches("select, input:not([type=checkbox])") ||
    event.key === "Enter" && event.target.matches("button, input");
  if (byId("help").open || isField && event.key !== "Escape" || event.metaKey || event.altKey && !ARROWS[event.key])
    return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (ARROWS[key]) {
    if (hasImage() || !event.shiftKey) arrow(event);
  } else if (/^[0-9]$/.test(key) && !event.ctrlKey) {
    const name = data.classes[(Number(key) + 9) % 10];
    if (name !== undefined) chooseClass(name);
  } else if (event.ctrlKey ? key === "z" || key === "y" : commandOf.has(key)) {
    const {act, anytime} = commandOf.get(event.ctrlKey && event.shiftKey ? "y" : key);
    if (!anytime && !hasImage()) return;
    act(event);
  } else return;
  event.preventDefault();
});
