// allauth's script asks the device; what goes wrong there is said on the page.

document.addEventListener("allauth.error", (event) => {
  const shown = document.getElementById("passkey-problem");
  if (!shown) return;
  event.preventDefault();
  const unsafe = !isSecureContext || event.detail.exception?.name === "SecurityError";
  shown.textContent = unsafe ? shown.dataset.unsafe : shown.dataset.refused;
  shown.hidden = false;
});
