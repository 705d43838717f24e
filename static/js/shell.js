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
  if (event.key === "/") {
    const field = document.querySelector("main input[type=search], main form:not([method=dialog]) input:not([type=hidden])");
    if (field) {
      event.preventDefault();
      field.focus();
    }
  }
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
