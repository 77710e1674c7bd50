"use strict";
// The labels of the images: what this page shows, what is saved, and what has changed elsewhere.

const token = new URLSearchParams(location.search).get("token");
const RETRY_MS = 2500, POLL_MS = 1200;
const rowOf = new Map(data.images.map(row => [row.index, row]));
const labelsOf = new Map();  // index -> labels, see `take`
// The keys by which the server knows the texts of objects: of an object as it was read or saved, so that undo brings back
// its bytes; and the newest one of all that had an id.
const keyOf = new WeakMap(), keyOfId = new Map();
let lastId = 0, serial = data.serial;
const listeners = [];        // called with the index of an image whose labels, state or saving have changed
const notify = index => listeners.forEach(listener => listener(index));

const request = (path, options = {}) =>
  fetch(path, {cache: "no-store", ...options, headers: {"X-Token": token, ...options.headers}});

const reasonOf = error => error instanceof TypeError ? "no connection to the server" : error.message;

function newObject(name, box, key = "") {
  const object = {id: ++lastId, name, box};
  if (key) remember(object, key);
  return object;
}
function remember(object, key) {
  keyOf.set(object, key);
  keyOfId.set(object.id, key);
}

// Objects are never changed in place, so that undo and redo keep lists of them.
function take(index, answer) {
  const old = labelsOf.get(index);
  const labels = {version: answer.version, labelled: answer.labelled, suggestions: answer.suggestions,
    objects: answer.objects.map(object => newObject(object.name, object.box, object.key)),
    refused: old ? old.refused : new Set(), undo: [], redo: [], changes: 0,
    dirty: false, saving: false, error: "", isRefused: false,  // isRefused: saving again would give the same error
    sent: []};  // what may have been written, where no answer came
  labelsOf.set(index, labels);
  return labels;
}

// Returns the labels of an image as they are in the file; where they are those that the page has, undo stays possible.
async function load(index) {
  const labels = labelsOf.get(index);
  if (labels && (labels.dirty || labels.saving)) return labels;
  const changes = labels ? labels.changes : 0, answer = await request(`/labels/${index}`);
  if (!answer.ok) throw new Error(await answer.text());
  const content = await answer.json();
  const now = labelsOf.get(index);  // another call may have come first
  if (now && (now !== labels || now.changes !== changes || now.version === content.version)) {
    now.suggestions = content.suggestions;
    return now;
  }
  return take(index, content);
}

const stateOf = labels => labels.objects.length ? "labelled" : labels.labelled ? "empty" : "unlabelled";

// Sets the objects of an image, and saves them.
function change(index, objects, labelled = true) {
  const labels = labelsOf.get(index);
  labels.undo.push({objects: labels.objects, labelled: labels.labelled});
  labels.redo = [];
  put(index, {objects, labelled});
}

function put(index, snapshot) {
  const labels = labelsOf.get(index);
  Object.assign(labels, snapshot, {dirty: true, changes: labels.changes + 1});
  rowOf.get(index).state = stateOf(labels);
  notify(index);
  save(index);
}

// Takes back the last change of an image, or makes it again.
function step(index, from, to) {
  const labels = labelsOf.get(index);
  if (!labels || !labels[from].length) return false;
  labels[to].push({objects: labels.objects, labelled: labels.labelled});
  put(index, labels[from].pop());
  return true;
}

const textOf = ({labelled, objects}) => JSON.stringify([labelled, objects.map(({name, box}) => [name, box])]);

const toSend = object =>
  ({key: keyOf.get(object) ?? keyOfId.get(object.id) ?? "", name: object.name, box: object.box});

async function save(index) {
  const labels = labelsOf.get(index);
  if (labels.saving) return;
  labels.saving = true;
  while (labels.dirty) {
    const sent = {objects: labels.objects, labelled: labels.labelled};
    labels.dirty = false;
    try {
      const answer = await request(`/labels/${index}`, {method: "PUT", body: JSON.stringify({version: labels.version,
        labelled: sent.labelled, objects: sent.objects.map(toSend)})});
      if (!answer.ok && answer.status !== 409)
        throw Object.assign(new Error(await answer.text()), {isRefused: [400, 413].includes(answer.status)});
      const content = await answer.json();
      // An answer may have been lost: then the file has what was sent before.
      const written = answer.ok ? sent : [sent, ...labels.sent].find(other => textOf(other) === textOf(content));
      if (!written) {
        const mine = {objects: labels.objects, labelled: labels.labelled};
        take(index, content).redo = [mine];
        rowOf.get(index).state = stateOf(labelsOf.get(index));
        tell(`Another page has changed ${rowOf.get(index).name}: it is shown as it is now. Redo brings back yours.`);
        break;
      }
      labels.version = content.version;
      written.objects.forEach((object, i) => remember(object, content.objects[i].key));
      labels.dirty ||= written !== sent;
      Object.assign(labels, {error: "", isRefused: false, sent: []});
    } catch (error) {
      if (labels.sent.at(-1)?.objects !== sent.objects) labels.sent.push(sent);
      labels.dirty = true;
      Object.assign(labels, {error: reasonOf(error), isRefused: error.isRefused === true});
      break;
    }
  }
  labels.saving = false;
  notify(index);
}

const unsaved = () => [...labelsOf].filter(([, labels]) => labels.dirty || labels.saving).map(([index]) => index);
setInterval(() => unsaved().filter(index => !labelsOf.get(index).isRefused).forEach(save), RETRY_MS);
addEventListener("beforeunload", event => { if (unsaved().length) event.preventDefault(); });

// Learns what has changed: states, suggestions, and the labels of the image that is shown.
async function poll(index) {
  const labels = labelsOf.get(index), changes = labels && labels.changes;
  let content;
  try {
    const answer = await request(`/changes?since=${serial}&image=${index}`);
    if (!answer.ok) return;
    content = await answer.json();
  } catch { return; }  // the next save says that there is no connection
  serial = content.serial;
  for (const [key, summary] of Object.entries(content.images)) {
    const changed = Number(key), known = labelsOf.get(changed);
    const state = known && (known.dirty || known.saving) ? rowOf.get(changed).state : summary.state;
    Object.assign(rowOf.get(changed), summary, {state});
    notify(changed);
  }
  if (!labels || labels.dirty || labels.saving || labels.changes !== changes) return;
  const isOther = content.version && content.version !== labels.version;
  if (!isOther && (labels.suggestions || rowOf.get(index).top === null)) return;
  const {name} = rowOf.get(index);
  try {
    if (await load(index) !== labels) tell(`Another page has changed ${name}: it is shown as it is now.`);
  } catch (error) { tell(`${name} cannot be read again: ${reasonOf(error)}`); }
  notify(index);
}

// The pixels of an image at full, half, quarter ... size; those of the last few images are kept.
const pixelsOf = new Map();
function loadPixels(index) {
  if (!pixelsOf.has(index)) {
    const pixels = fetchPixels(index);
    pixels.catch(() => pixelsOf.delete(index));  // the next call asks again
    pixelsOf.set(index, pixels);
    for (const key of [...pixelsOf.keys()].slice(0, -6)) pixelsOf.delete(key);
  }
  return pixelsOf.get(index);
}
async function fetchPixels(index) {
  const answer = await request(`/image/${index}`);
  if (!answer.ok) throw new Error(await answer.text());
  const levels = [await createImageBitmap(await answer.blob(), {colorSpaceConversion: "none"})];
  for (let last = levels[0]; Math.max(last.width, last.height) > 1200; last = levels.at(-1))
    levels.push(await createImageBitmap(last, {resizeWidth: Math.ceil(last.width / 2),
      resizeHeight: Math.ceil(last.height / 2), resizeQuality: "medium"}));
  return levels;
}
