// f spreads a panel over the page: the one in focus or under the pointer, else the examples. f or Esc puts it back.
let spread = null;
let others = [];
let under = null;

document.addEventListener("pointerover", (event) => (under = event.target.closest(".panel")));

function fold() {
  spread.classList.remove("whole");
  for (const element of others) element.inert = false;
  document.body.style.removeProperty("overflow");
  spread.querySelector(".expand").textContent = "⤢";
  spread.scrollIntoView({ block: "nearest" });
  spread = null;
}

function unfold(panel) {
  spread = panel;
  others = [];
  for (let node = panel; node !== document.body; node = node.parentElement)
    for (const beside of node.parentElement.children)
      if (beside !== node && beside.id !== "help" && !beside.inert) others.push(beside);
  for (const element of others) element.inert = true;
  document.body.style.overflow = "hidden";
  panel.classList.add("whole");
  panel.scrollTop = 0;
  const button = panel.querySelector(".expand");
  button.textContent = "✕";
  button.focus();
}

for (const panel of document.querySelectorAll(".panel")) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "expand";
  button.textContent = "⤢";
  button.title = "Over the whole page (f)";
  button.setAttribute("aria-label", `${panel.querySelector("h2").textContent} over the whole page`);
  button.addEventListener("click", () => (spread ? fold() : unfold(panel)));
  panel.append(button);
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return;
  if (document.querySelector("dialog[open]")) return;
  if (spread && (event.key === "Escape" || event.key === "f")) fold();
  else if (event.key === "f") unfold(document.activeElement.closest(".panel") ?? under ?? document.getElementById("examples"));
});
