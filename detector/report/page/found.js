// What was found and what is there, from the packed columns of the page; and what the sliders make of it.

const FULL = 65535, NEAR = .1, HALF = .5, MOST = 100;  // MOST detections of a class in an image count

function column(text, Kind) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new Kind(bytes.buffer);
}

const judged = {all: 0, otherwise: 0};  // detections that were judged here and by the evaluation, and how many differ

// Image by image: {number, name, width, height, jpeg, weight, dets, objects}; detections come the best first.
//   detection: at [x1, y1, x2, y2], score, label, first (its error as evaluated); error, target, iou, alive: see settle
//   object: at, label, flags (1 crowd, 2 difficult), finder (as evaluated, or null); by: see settle
function unpack() {
  const {images, errors} = data, {found, truth} = images;
  const [heights, widths, counts, objects] = ["heights", "widths", "detections", "objects"].map(key => column(images[key], Uint32Array));
  const f = {at: column(found.boxes, Uint16Array), score: column(found.scores, Uint16Array), label: column(found.labels, Uint16Array),
    error: column(found.errors, Uint8Array)};
  const t = {at: column(truth.boxes, Uint16Array), label: column(truth.labels, Uint16Array), flags: column(truth.flags, Uint8Array),
    finder: column(truth.finders, Int16Array)};
  let row = 0, begin = 0;
  return images.names.map((name, number) => {
    const width = widths[number], height = heights[number], dets = [], own = [];
    const corners = (at, i) => [at[4 * i] / FULL * width, at[4 * i + 1] / FULL * height, at[4 * i + 2] / FULL * width, at[4 * i + 3] / FULL * height];
    for (const stop = row + counts[number]; row < stop; row++)
      dets.push({at: corners(f.at, row), score: f.score[row] / FULL, label: f.label[row], first: errors[f.error[row]], alive: true, target: null, iou: 0});
    for (const stop = begin + objects[number]; begin < stop; begin++)
      own.push({at: corners(t.at, begin), label: t.label[begin], flags: t.flags[begin], finder: dets[t.finder[begin]] || null, by: null});
    return {number, name, width, height, jpeg: images.jpegs[number], dets, objects: own, nms: null};
  });
}

const area = at => (at[2] - at[0]) * (at[3] - at[1]);
function common(a, b) {
  const wide = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), high = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return wide > 0 && high > 0 ? wide * high : 0;
}
function overlap(a, b) {
  const both = common(a, b);
  return both && both / (area(a) + area(b) - both);
}

// With this NMS overlap: who is left (alive), what each of them is (error, with the object it is about: target, iou) and
// who finds each object (by). With the overlap of the evaluation itself its own verdicts stand.
function settle(image, nms) {
  if (image.nms === nms) return;
  image.nms = nms;
  const unchanged = nms >= data.nms_iou;
  suppress(image.dets, unchanged ? 1 : nms);
  if (!data.analysed) return;
  judge(image);
  if (!unchanged) return;
  for (const det of image.dets) { judged.all++; judged.otherwise += det.error !== det.first; det.error = det.first; }
  for (const object of image.objects) { judged.otherwise += object.by !== object.finder; object.by = object.finder; }
}

// Non-maximum suppression of each class, over detections that come the best first.
function suppress(dets, most) {
  const kept = new Map();
  for (const det of dets) {
    const better = kept.get(det.label) || [];
    det.alive = most >= 1 || !better.some(other => overlap(other.at, det.at) > most);
    if (det.alive && better.push(det) === 1) kept.set(det.label, better);
  }
}

// The rules of detector/metrics/matching.py and errors.py, for one image. Plain loops: at 10,000 images this runs millions
// of times while a slider moves.
function judge(image) {
  const voc = data.rule === "voc", taken = new Set(), ranks = new Map(), objects = image.objects;
  const enough = iou => voc ? iou > HALF : iou >= HALF;
  for (const object of objects) object.by = null;
  for (const det of image.dets) {
    if (!det.alive) continue;
    const rank = ranks.get(det.label) || 0, counts = voc || rank < MOST;
    ranks.set(det.label, rank + 1);
    // hit: what it may take, hitIgnored: the same where only ignored ones are left; same, other: the nearest by class
    let hit = null, hitIou = 0, hitIgnored = null, ignoredIou = 0, same = null, sameIou = 0, other = null, otherIou = 0;
    for (const object of objects) {
      const both = common(det.at, object.at);
      if (!both) continue;
      const crowd = (object.flags & 1) && !voc, iou = both / (crowd ? area(det.at) : area(det.at) + area(object.at) - both);
      if (iou < NEAR) continue;
      const alike = object.label === det.label, ignored = object.flags > 0;
      if (!ignored && alike && iou > sameIou) [same, sameIou] = [object, iou];
      if (!ignored && !alike && iou > otherIou) [other, otherIou] = [object, iou];
      if (!alike || !enough(iou) || !counts) continue;
      if (voc) { if (iou > hitIou) [hit, hitIou] = [object, iou]; continue; }  // whether it is free or not
      if (taken.has(object) && !crowd) continue;
      if (ignored ? iou >= ignoredIou : iou >= hitIou) ignored ? [hitIgnored, ignoredIou] = [object, iou] : [hit, hitIou] = [object, iou];
    }
    if (voc && hit && hit.flags) [hitIgnored, ignoredIou, hit] = [hit, hitIou, null];
    if (voc && hit && taken.has(hit)) hit = null;
    if (hit) {
      taken.add(hit);
      hit.by = det;
      [det.error, det.target, det.iou] = ["right", hit, hitIou];
    } else if (hitIgnored) {
      taken.add(hitIgnored);
      [det.error, det.target, det.iou] = ["ignored", hitIgnored, ignoredIou];
    } else if (!counts) [det.error, det.target, det.iou] = ["ignored", null, 0];
    else if (same && !enough(sameIou)) [det.error, det.target, det.iou] = ["localisation", same, sameIou];
    else if (other && enough(otherIou)) [det.error, det.target, det.iou] = ["class", other, otherIou];
    else if (same) [det.error, det.target, det.iou] = ["duplicate", same, sameIou];
    else [det.error, det.target, det.iou] = other ? ["both", other, otherIou] : ["background", null, 0];
  }
}

const WRONG = new Set(["localisation", "class", "both", "duplicate", "background"]);
const isSeen = (det, state) => det.alive && det.score >= state.score;
const isFound = (object, state) => object.by !== null && isSeen(object.by, state);

// What is to be seen of a settled image: {dets, objects, listed (is there what the filters ask for?), right, wrong, missed,
// weight (scores of wrong detections, and 1 for each missed object)}. Counts obey the class, not the kind of error.
function look(image, state) {
  const {label, error} = state, told = {dets: [], objects: [], right: 0, wrong: 0, missed: 0, weight: 0, listed: false};
  const about = new Set();
  for (const det of image.dets) {
    if (!isSeen(det, state)) continue;
    const mine = !label || det.label === label;
    if (mine && det.error === "right") told.right++;
    if (mine && WRONG.has(det.error)) { told.wrong++; told.weight += det.score; }
    const confused = label && det.error === "class" && det.target && det.target.label === label;  // an object of the class is taken for another
    if (!(mine || confused)) continue;
    if (error === "all" || error === det.error || (error === "any" && WRONG.has(det.error))) {
      told.dets.push(det);
      if (det.target) about.add(det.target);
    }
  }
  for (const object of image.objects) {
    const mine = !label || object.label === label, missed = !object.flags && !isFound(object, state);
    if (mine && missed) { told.missed++; told.weight++; }
    const asked = mine && (error === "all" || (missed && (error === "missed" || error === "any")));
    if (asked) told.listed = true;
    if (asked || about.has(object)) told.objects.push(object);
  }
  told.listed = told.listed || told.dets.length > 0 || (error === "all" && !label);
  return told;
}
