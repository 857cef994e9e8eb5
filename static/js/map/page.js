// The map's page: what is marked and held, in the URL and beside the map.
import { legend, hue, css, theme } from "./colours.js";
import { Map } from "./map.js";
import { png, vector } from "./save.js";
import { corners, MARKS, outline, read, write } from "./state.js";
import { SIDE } from "./view.js";

const { map: shown, links, features } = JSON.parse(document.getElementById("map-data").textContent);
const [frame, beside, tools, form, texts] = ["map", "beside", "map-tools", "map-form", "map-text"].map((id) => document.getElementById(id));
const status = document.getElementById("map-shown");
const groups = ["region", "cluster"];
let { state, seen } = read(location.search);
let lit = false;
let asked = 0;

const map = new Map(frame, shown, links, state.color, seen, {
  shown: (text) => status.textContent !== text && (status.textContent = text),
  moved: (view) => {
    history.replaceState(history.state, "", write(links.page, state, view));
    const b = view.bounds;
    const [left, bottom, right, top] = [b.left, b.bottom, b.right, b.top].map((one) => Math.min(Math.max(Math.round(one), 0), SIDE));
    tools.querySelector("[data-do=csv]").href = `${links.csv}?map=${shown.version}&within=${left},${bottom}+${right},${top}`;
  },
  ranged: () => explain(),
  held: (latent) => set({ feature: latent }),
  grouped: (level, id) => {
    const one = (level ? shown.regions.flatMap((region) => region.clusters) : shown.regions).find((group) => group.id === id);
    map.view.go(one.x, one.y, Math.max(map.view.z, level ? 3 : 1.6));
    only({ [groups[level]]: String(id) });
  },
  outlined: (points) => {
    lasso(false);
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const wide = (all) => (Math.max(...all) - Math.min(...all)) * map.view.scale;
    if (points.length > 2 && wide(xs) > 6 && wide(ys) > 6) only({ within: corners(points) });
    else map.hold(map.spot, outline(state.within));
  },
});

// Marks of one kind take the place of another's.
const only = (kept) => set({ ...Object.fromEntries(MARKS.map((name) => [name, name === "text" ? null : ""])), feature: null, ...kept });

async function set(changes, { seek = false, push = true } = {}) {
  state = { ...state, ...changes };
  if (push) history.pushState(null, "", write(links.page, state, map.view));
  const mine = ++asked;
  beside.setAttribute("aria-busy", "true");
  let text;
  try {
    const answer = await fetch(write(links.page, state), { headers: { "HX-Request": "true" } });
    text = await answer.text();
  } catch {
    text = '<p role="alert" class="error">The server does not answer; try again in a moment.</p>';
  }
  if (mine !== asked) return;
  beside.innerHTML = text;
  beside.removeAttribute("aria-busy");
  take(seek);
}

// What the server has put beside the map, drawn on it.
function take(seek = false) {
  const data = (kind) => JSON.parse(beside.querySelector(kind)?.textContent ?? "null");
  const [found, spot] = [data(".map-marks"), data(".map-spot-data")];
  const { latents = [], x = [], y = [], values } = found ?? {};
  const marks = { latents, x, y, colour: values ? values.map((share) => 1 + 254 * Math.min(share, 1)) : latents.map(() => 0) };
  map.mark(marks);
  map.hold(spot, outline(state.within));
  lit = Boolean(values);
  explain();
  if (spot && seek) map.seek(spot);
  const card = beside.querySelector("[data-map-card]");
  if (card)
    fetch(card.dataset.mapCard).then(async (answer) => {
      if (answer.ok) card.innerHTML = await answer.text();
      card.querySelector("h2")?.remove();
    }, () => {});
}

function explain() {
  legend(document.getElementById("map-legend"), state.color, { lit, marked: map.marks.x.length > 0, range: map.range });
  for (const box of document.querySelectorAll("[data-region]")) {
    box.style.background = css(hue(Number(box.dataset.region) % 255, theme()));
    box.hidden = state.color !== "region";
  }
}

function lasso(on) {
  map.lasso = on;
  tools.querySelector("[data-do=lasso]").setAttribute("aria-pressed", String(on));
  frame.classList.toggle("lassoing", on);
}

const doing = {
  in: () => map.zoom(0.5),
  out: () => map.zoom(-0.5),
  home: () => map.home(),
  lasso: () => lasso(!map.lasso),
  png: () => {
    map.frameNow();
    png(map, `map-${shown.version}`);
  },
  svg: () => vector(map, `map-${shown.version}`),
};

tools.hidden = false;
tools.addEventListener("click", (event) => doing[event.target.closest("button")?.dataset.do]?.());

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = form.elements.q.value.trim();
  if (/^\d{1,9}$/.test(wanted) && Number(wanted) < features) set({ feature: Number(wanted) }, { seek: true });
  else only({ q: wanted });
});
form.elements.color.addEventListener("change", () => {
  state.color = form.elements.color.value;
  map.paint(state.color);
  take();
});
form.elements.map.addEventListener("change", () => location.assign(write(links.page, { ...state, region: "", cluster: "", within: "", map: form.elements.map.value })));
texts.addEventListener("submit", (event) => {
  event.preventDefault();
  only({ text: texts.elements.text.value.trim() ? texts.elements.text.value : null });
});

beside.addEventListener("click", (event) => {
  const released = event.target.closest("[data-map-release]");
  if (!released && !event.target.closest("[data-map-clear]")) return;
  event.preventDefault();
  if (released) set({ feature: null });
  else only({ feature: state.feature });
});
// A feature of the list, under the pointer or in focus, is ringed on the map.
for (const kind of ["pointerover", "focusin"])
  beside.addEventListener(kind, (event) => {
    const latent = Number(event.target.closest("li")?.querySelector("[data-latent]")?.dataset.latent ?? -1);
    const i = map.marks.latents.indexOf(latent);
    const place = i >= 0 ? { x: map.marks.x[i], y: map.marks.y[i] } : map.spot?.company.find((one) => one.index === latent);
    map.overlay.ring(place ?? null, map.view);
  });

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]") || event.target.closest("input, textarea, select")) return;
  if (map.lasso) lasso(false);
  else if (state.feature !== null) set({ feature: null });
});
addEventListener("popstate", () => {
  const now = read(location.search);
  const repaint = now.state.color !== state.color;
  if (now.state.map !== state.map) return location.reload();
  state = now.state;
  form.elements.color.value = state.color;
  if (repaint) map.paint(state.color);
  form.elements.q.value = state.q;
  texts.elements.text.value = state.text ?? "";
  const [x, y, z] = now.seen;
  map.view.go(x ?? SIDE / 2, y ?? SIDE / 2, z ?? 0);
  set({}, { push: false });
});
for (const [target, kind] of [[document, "themechange"], [matchMedia("(prefers-color-scheme: dark)"), "change"]])
  target.addEventListener(kind, () => {
    map.repaint();
    explain();
  });

take(state.feature !== null && seen[0] === null);
