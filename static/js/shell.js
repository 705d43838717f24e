// The keyboard, menus and dialogs of the portal; every page works without them.

const AFTER_G_MS = 1200;
let pressedG = 0;

const isTyping = (target) => target.closest("input, select, textarea, [contenteditable]");

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") for (const menu of document.querySelectorAll(".menu[open]")) menu.open = false;
  if (isTyping(event.target) || document.querySelector("dialog[open]")) return;
  if (pressedG && event.timeStamp - pressedG < AFTER_G_MS) {
    pressedG = 0;
    const link = document.querySelector(`a[data-go="${CSS.escape(event.key)}"]`);
    if (link) {
      event.preventDefault();
      link.click();
    }
    return;
  }
  if (event.key === "g") pressedG = event.timeStamp;
  if (event.key === "?") document.querySelector("#keys")?.showModal();
  const palette = document.querySelector("#palette");
  if (event.key === "/" && palette) {
    event.preventDefault();
    palette.showModal();
  }
});

// What the search found is walked through with the arrow keys.
document.querySelector("#palette")?.addEventListener("keydown", (event) => {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  const stops = [...event.currentTarget.querySelectorAll("input[type=search], a")];
  event.preventDefault();
  stops[(stops.indexOf(document.activeElement) + step + stops.length) % stops.length].focus();
});

document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll(".menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
  // Where dialogs work, a link to the page that asks opens that page's form on top of this one instead.
  const opener = event.target.closest("[data-dialog]");
  const dialog = opener && document.getElementById(opener.dataset.dialog);
  if (dialog) {
    event.preventDefault();
    dialog.showModal();
  }
});
