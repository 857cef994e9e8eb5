// Zooms and moves the graph: buttons, + - 0 where it is in focus, and dragging. Its box scrolls.
const box = document.querySelector(".graph");
const svg = box.querySelector("svg");
const [, , width, height] = svg.getAttribute("viewBox").split(" ").map(Number);
let scale = 1;

function show(next) {
  const middle = [box.scrollLeft + box.clientWidth / 2, box.scrollTop + box.clientHeight / 2];
  next = Math.min(6, Math.max(0.1, next));
  svg.setAttribute("width", width * next);
  svg.setAttribute("height", height * next);
  box.scrollLeft = (middle[0] * next) / scale - box.clientWidth / 2;
  box.scrollTop = (middle[1] * next) / scale - box.clientHeight / 2;
  scale = next;
}

const ways = {
  in: () => show(scale * 1.4),
  out: () => show(scale / 1.4),
  all: () => show(Math.min(box.clientWidth / width, box.clientHeight / height)),
};

const buttons = document.querySelector(".zoom");
buttons.hidden = false;
buttons.addEventListener("click", (event) => ways[event.target.dataset.zoom]?.());
box.addEventListener("keydown", (event) => {
  const way = { "+": "in", "=": "in", "-": "out", 0: "all" }[event.key];
  if (way && !event.ctrlKey && !event.metaKey) {
    event.preventDefault();
    ways[way]();
  }
});

let held = null;
box.addEventListener("pointerdown", (event) => {
  if (event.pointerType === "mouse" && event.button === 0 && !event.target.closest("a"))
    held = [event.clientX + box.scrollLeft, event.clientY + box.scrollTop];
});
addEventListener("pointermove", (event) => {
  if (!held) return;
  event.preventDefault();
  box.scrollLeft = held[0] - event.clientX;
  box.scrollTop = held[1] - event.clientY;
});
addEventListener("pointerup", () => (held = null));

svg.querySelector("a[aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
