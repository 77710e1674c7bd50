// Puts the report of an evaluation, or of predictions alone, together.

const page = document.getElementById("page");
const showImagesOf = (label, kind = "all") => {
  setState({class: label, error: kind, score: state.score});
  document.getElementById("pictures").scrollIntoView();
};

Object.assign(state, DEFAULTS);
readAddress();
page.append(h("header", {class: "top"}, h("div", {class: "head"}, h("h1", {}, data.title), h("button", {type: "button",
  class: "plain", onclick: () => setState({theme: isDark(state.theme) ? "light" : "dark"})}, "light / dark")),
  h("div", {class: "soft"}, data.facts.map(fact => h("div", {}, fact)))));
if (data.has_ground_truth) page.append(...metricTiles().filter(Boolean), errorCosts(),
  h("section", {class: "two"}, precisionRecall(), calibrationCurve()), h("section", {}, sizeTable()),
  classTable(showImagesOf), confusions(showImagesOf));
if (data.has_ground_truth) page.append(labelsToReview() || "");
page.append(gallery(), h("footer", {}, data.command));
prepareDialog();
render();
document.querySelector(".skip").addEventListener("click", event => {
  event.preventDefault();
  document.getElementById("pictures").focus();
});
window.addEventListener("hashchange", () => { readAddress(); render(); });
root.dataset.ready = "yes";
