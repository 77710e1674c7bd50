// Unpacks the boxes of the page's images, applies NMS, and matches detections to objects when a slider moves.

const UINT16_MAX = 65535, BACKGROUND_IOU = .1, MATCH_IOU = .5, MAX_PER_CLASS = 100;  // of a class in an image, for COCO

function unpackColumn(text, ArrayType) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  return new ArrayType(bytes.buffer);
}

// Numbers of detections matched both by this script and by the evaluation, and of results that differ.
const comparison = {compared: 0, mismatches: 0};

// Returns a list of images {number, name, width, height, jpeg, detections, objects, nms}; detections by falling score.
//   detection: at [x1, y1, x2, y2], score, label, evaluated (kind of error in the evaluation);
//              kept, kind, target (object), iou: set by updateImage
//   object: at, label, flags (1 crowd, 2 difficult), evaluated (its detection in the evaluation, or null);
//           detection: set by updateImage
function unpackImages() {
  const {images, error_kinds: kinds} = data, {detections: det, ground_truth: gt} = images;
  const [heights, widths, numDetections, numObjects] = ["heights", "widths", "num_detections", "num_objects"]
    .map(key => unpackColumn(images[key], Uint32Array));
  const [detBoxes, scores, detLabels] = ["boxes", "scores", "labels"].map(key => unpackColumn(det[key], Uint16Array));
  const [gtBoxes, gtLabels] = ["boxes", "labels"].map(key => unpackColumn(gt[key], Uint16Array));
  const errors = unpackColumn(det.errors, Uint8Array), flags = unpackColumn(gt.flags, Uint8Array);
  const gtDetections = unpackColumn(gt.detections, Int16Array);
  let detRow = 0, gtRow = 0;
  return images.names.map((name, number) => {
    const width = widths[number], height = heights[number], detections = [], objects = [];
    const corners = (boxes, row) => [0, 1, 2, 3].map(i => boxes[4 * row + i] / UINT16_MAX * (i % 2 ? height : width));
    for (const end = detRow + numDetections[number]; detRow < end; detRow++)
      detections.push({at: corners(detBoxes, detRow), score: scores[detRow] / UINT16_MAX, label: detLabels[detRow],
        evaluated: kinds[errors[detRow]], kept: true, kind: undefined, target: null, iou: 0});
    for (const end = gtRow + numObjects[number]; gtRow < end; gtRow++)
      objects.push({at: corners(gtBoxes, gtRow), label: gtLabels[gtRow], flags: flags[gtRow],
        evaluated: detections[gtDetections[gtRow]] || null, detection: null});
    return {number, name, width, height, jpeg: images.jpegs[number], detections, objects, nms: null};
  });
}

const boxArea = at => (at[2] - at[0]) * (at[3] - at[1]);
function intersection(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]), height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return width > 0 && height > 0 ? width * height : 0;
}
function boxIou(a, b) {
  const inter = intersection(a, b);
  return inter && inter / (boxArea(a) + boxArea(b) - inter);
}

// Applies NMS with this IoU threshold and matches the detections that are kept. With the threshold of the evaluation
// itself, the results of the evaluation are used, and compared with those of this script.
function updateImage(image, nms) {
  if (image.nms === nms) return;
  image.nms = nms;
  const unchanged = nms >= data.nms_thresh;
  applyNms(image.detections, unchanged ? 1 : nms);
  if (!data.has_ground_truth) return;
  matchDetections(image);
  if (!unchanged) return;
  for (const det of image.detections) {
    comparison.compared++;
    comparison.mismatches += det.kind !== det.evaluated;
    det.kind = det.evaluated;
  }
  for (const object of image.objects) {
    comparison.mismatches += object.detection !== object.evaluated;
    object.detection = object.evaluated;
  }
}

// Non-maximum suppression within each class; detections come by falling score.
function applyNms(detections, threshold) {
  const keptByClass = new Map();
  for (const det of detections) {
    const kept = keptByClass.get(det.label) || [];
    det.kept = threshold >= 1 || !kept.some(other => boxIou(other.at, det.at) > threshold);
    if (det.kept && kept.push(det) === 1) keptByClass.set(det.label, kept);
  }
}

// The rules of detector/metrics/matching.py and tide.py, for one image. Plain loops, for speed: with 10,000 images, a
// moving slider runs them millions of times.
function matchDetections(image) {
  const voc = data.match_rule === "voc", matched = new Set(), ranks = new Map(), objects = image.objects;
  const isMatch = iou => voc ? iou > MATCH_IOU : iou >= MATCH_IOU;
  const assign = (det, kind, target, iou) => { [det.kind, det.target, det.iou] = [kind, target, iou]; };
  for (const object of objects) object.detection = null;
  for (const det of image.detections) {
    if (!det.kept) continue;
    const rank = ranks.get(det.label) || 0, counts = voc || rank < MAX_PER_CLASS;
    ranks.set(det.label, rank + 1);
    // hit: the object it matches; ignoredHit: the same among ignored objects, used only if there is no hit;
    // same, other: the object of highest IoU of the same class, and of other classes
    let hit = null, hitIou = 0, ignoredHit = null, ignoredIou = 0, same = null, sameIou = 0, other = null, otherIou = 0;
    for (const object of objects) {
      const inter = intersection(det.at, object.at);
      if (!inter) continue;
      const crowd = (object.flags & 1) && !voc;
      const iou = inter / (crowd ? boxArea(det.at) : boxArea(det.at) + boxArea(object.at) - inter);
      if (iou < BACKGROUND_IOU) continue;
      const sameClass = object.label === det.label, ignored = object.flags > 0;
      if (!ignored && sameClass && iou > sameIou) [same, sameIou] = [object, iou];
      if (!ignored && !sameClass && iou > otherIou) [other, otherIou] = [object, iou];
      if (!sameClass || !isMatch(iou) || !counts) continue;
      if (voc) {  // the object of highest IoU, even if it is matched already
        if (iou > hitIou) [hit, hitIou] = [object, iou];
        continue;
      }
      if (matched.has(object) && !crowd) continue;
      if (ignored) { if (iou >= ignoredIou) [ignoredHit, ignoredIou] = [object, iou]; }
      else if (iou >= hitIou) [hit, hitIou] = [object, iou];
    }
    if (voc && hit && hit.flags) [ignoredHit, ignoredIou, hit] = [hit, hitIou, null];
    if (voc && hit && matched.has(hit)) hit = null;
    if (hit) {
      matched.add(hit);
      hit.detection = det;
      assign(det, "correct", hit, hitIou);
    } else if (ignoredHit) {
      matched.add(ignoredHit);
      assign(det, "ignored", ignoredHit, ignoredIou);
    } else if (!counts) assign(det, "ignored", null, 0);
    else if (same && !isMatch(sameIou)) assign(det, "localization", same, sameIou);
    else if (other && isMatch(otherIou)) assign(det, "classification", other, otherIou);
    else if (same) assign(det, "duplicate", same, sameIou);
    else if (other) assign(det, "both", other, otherIou);
    else assign(det, "background", null, 0);
  }
}

const FALSE_POSITIVE = new Set(["localization", "classification", "both", "duplicate", "background"]);
const isShown = (det, filter) => det.kept && det.score >= filter.score;
const isDetected = (object, filter) => object.detection !== null && isShown(object.detection, filter);

// Applies the filters {score, label, kind} to an updated image. Returns {detections, objects, listed (the image has
// something that the filters select), correct, wrong, missed, weight (scores of false positives, plus 1 for each missed
// object)}. The counts depend on score and class, not on the kind of error.
function filterImage(image, filter) {
  const {label, kind} = filter;
  const result = {detections: [], objects: [], correct: 0, wrong: 0, missed: 0, weight: 0, listed: false};
  const targets = new Set();
  for (const det of image.detections) {
    if (!isShown(det, filter)) continue;
    const ofClass = !label || det.label === label;
    if (ofClass && det.kind === "correct") result.correct++;
    if (ofClass && FALSE_POSITIVE.has(det.kind)) { result.wrong++; result.weight += det.score; }
    // an object of the class was detected as another class
    const confused = label && det.kind === "classification" && det.target && det.target.label === label;
    if (!(ofClass || confused)) continue;
    if (kind === "all" || kind === det.kind || (kind === "any" && FALSE_POSITIVE.has(det.kind))) {
      result.detections.push(det);
      if (det.target) targets.add(det.target);
    }
  }
  for (const object of image.objects) {
    const ofClass = !label || object.label === label, missed = !object.flags && !isDetected(object, filter);
    if (ofClass && missed) { result.missed++; result.weight++; }
    const selected = ofClass && (kind === "all" || (missed && (kind === "missed" || kind === "any")));
    if (selected) result.listed = true;
    if (selected || targets.has(object)) result.objects.push(object);
  }
  result.listed = result.listed || result.detections.length > 0 || (kind === "all" && !label);
  return result;
}
