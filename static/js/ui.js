// Small conveniences; every page works without them.

const COPIED_MS = 1600;
const BUSY_AFTER_MS = 300;
const SENT_MS = 3000;

async function copy(button) {
  const source = document.querySelector(button.dataset.copy);
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(source.dataset.value ?? source.textContent.trim());
    button.textContent = button.dataset.done ?? "Copied";
  } catch {
    // Without permission the text is selected, so that the keyboard can copy it.
    getSelection().selectAllChildren(source);
    return;
  }
  setTimeout(() => (button.textContent = label), COPIED_MS);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy]");
  if (button) copy(button);
});

// What was done is said again in the live region, so that screen readers hear it, and leaves when it is told to.
for (const done of document.querySelectorAll(".messages--done")) document.getElementById("toasts")?.append(done);

document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) event.target.closest("li").remove();
});

// A slow submit says so, and a second click does not send it twice.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button || event.defaultPrevented) return;
  // Closing a dialog sends nothing.
  if ((button.getAttribute("formmethod") ?? event.target.method) === "dialog") return;
  setTimeout(() => button.setAttribute("aria-busy", "true"), BUSY_AFTER_MS);
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "1";
  // A form that answers with a file leaves its page open.
  setTimeout(() => {
    delete event.target.dataset.sent;
    button.removeAttribute("aria-busy");
  }, SENT_MS);
});

// A page restored by the Back button may be sent again.
addEventListener("pageshow", () => {
  for (const form of document.querySelectorAll("form[data-sent]")) delete form.dataset.sent;
  for (const button of document.querySelectorAll("[aria-busy]")) button.removeAttribute("aria-busy");
});

// After a swap that changes what the page is about, the keyboard continues at its heading.
document.addEventListener("htmx:afterSwap", (event) => {
  event.detail.target.querySelector("[data-focus-after-swap]")?.focus();
});
