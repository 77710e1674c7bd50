// Light or dark: as the system has it, until the button is pressed.

const isDark = theme => theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;

// Returns a button that switches the page's theme; the report keeps the theme in its address instead.
function themeButton() {
  const root = document.documentElement, button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  button.textContent = "light / dark";
  button.addEventListener("click", () => { root.dataset.theme = isDark(root.dataset.theme) ? "light" : "dark"; });
  return button;
}
