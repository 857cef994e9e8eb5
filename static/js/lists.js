// "Add to a list" in a dialog over the page; without this script it is a page of its own.
const dialog = document.createElement("dialog");
dialog.id = "add";
dialog.setAttribute("aria-label", "Add to a list");
document.body.append(dialog);

async function show(asked) {
  const answer = await asked;
  dialog.innerHTML = await answer.text();
  const form = dialog.querySelector("form:not([method=dialog])");
  if (form) {
    const cancel = Object.assign(document.createElement("button"), { type: "button", textContent: "Cancel" });
    cancel.addEventListener("click", () => dialog.close());
    form.append(" ", cancel);
  }
  dialog.querySelector("[autofocus]")?.focus();
}

document.addEventListener("click", async (event) => {
  const link = event.target instanceof Element ? event.target.closest("a[data-add]") : null;
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  try {
    await show(fetch(link.href, { headers: { "HX-Request": "true" } }));
  } catch {
    location.href = link.href;
    return;
  }
  if (!dialog.open) dialog.showModal();
});

dialog.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.getAttribute("method") === "dialog") return;
  event.preventDefault();
  try {
    await show(fetch(form.action, { method: "POST", headers: { "HX-Request": "true" }, body: new URLSearchParams(new FormData(form)) }));
  } catch {
    form.submit();
  }
});
