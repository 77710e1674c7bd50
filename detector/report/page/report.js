// The report of an evaluation, or of predictions alone.

const page = document.getElementById("page");
const dark = () => state.theme ? state.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
const lead = (label, error = "all") => {
  set({class: label, error, score: state.score});
  document.getElementById("pictures").scrollIntoView();
};

Object.assign(state, BEGIN);
readAddress();
page.append(h("header", {class: "top"}, h("div", {class: "head"}, h("h1", {}, data.title),
  h("button", {type: "button", class: "plain", onclick: () => set({theme: dark() ? "light" : "dark"})}, "light / dark")),
h("div", {class: "soft"}, data.facts.map(fact => h("div", {}, fact)))));
if (data.analysed) page.append(...headline().filter(Boolean), costs(), h("section", {class: "two"}, precisionRecall(), calibrationOf()),
  h("section", {}, sizes()), classes(lead), confusions(lead));
page.append(gallery(), h("footer", {}, data.made));
prepareLarge();
render();
document.querySelector(".skip").addEventListener("click", event => { event.preventDefault(); document.getElementById("pictures").focus(); });
window.addEventListener("hashchange", () => { readAddress(); render(); });
root.dataset.ready = "yes";
