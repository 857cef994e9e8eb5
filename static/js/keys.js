// j and k go to the next and previous feature, r to a random one, b to adding to a list, / to the jump box, ? lists the keys.
const help = document.getElementById("help");
const opener = document.getElementById("help-open");
opener.hidden = false;
opener.addEventListener("click", () => help.showModal());

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea")) {
    event.target.form?.requestSubmit();
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select")) return;
  if (help.open) return;
  if (event.key === "?") {
    help.showModal();
    return;
  }
  if (event.key === "/") {
    const box = document.querySelector("form#prompt #text, .home #text") ?? document.getElementById("jump") ?? document.getElementById("text");
    if (box) {
      event.preventDefault();
      box.focus();
      box.select();
    }
    return;
  }
  if (["j", "k", "r", "b"].includes(event.key)) document.querySelector(`[data-key="${event.key}"]`)?.click();
});

// Who leafs by j or k will go on: browsers that can fetch the next page and make it ready (leafing.speculationrules) do,
// the latter once the reader stays for a moment: to a hurried one it would only be in the way.
document.addEventListener("click", (event) => {
  const key = event.target.closest("a[data-key]")?.dataset.key;
  if (key === "j" || key === "k") sessionStorage.setItem("leafing", key);
});
const leaf = () => {
  const key = sessionStorage.getItem("leafing");
  sessionStorage.removeItem("leafing");
  if (!key) return;
  document.documentElement.dataset.leafing = key;
  setTimeout(() => (document.documentElement.dataset.settled = ""), 150);
};
if (document.prerendering) document.addEventListener("prerenderingchange", leaf, { once: true });
else leaf();
