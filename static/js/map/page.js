// The map's page: what is marked and held, in the URL and beside the map.
import { legend, hue, css, theme } from "./colours.js";
import { Lines } from "./lines.js";
import { Map } from "./map.js";
import { png, vector } from "./save.js";
import { corners, MARKS, outline, read, write } from "./state.js";
import { SIDE } from "./view.js";

const { map: shown, links, features, beside: two } = JSON.parse(document.getElementById("map-data").textContent);
const [beside, tools, form, texts] = ["beside", "map-tools", "map-form", "map-text"].map((id) => document.getElementById(id));
const groups = ["region", "cluster"];
const sides = ["left", "right"];
const sources = [{ map: shown, links }, ...(two ? [two] : [])];
let { state, seen } = read(location.search);
let lit = false;
let asked = 0;
let active = 0; // the map that buttons are for

const maps = sources.map(({ map: one, links: own }, side) => {
  const [frame, status] = [["map", "map-shown"], ["map-beside", "map-shown-beside"]][side].map((id) => document.getElementById(id));
  for (const kind of ["pointerdown", "focusin"]) frame.addEventListener(kind, () => (active = side) && address());
  return new Map(frame, one, own, state.color, seen[side], {
    shown: (text) => status.textContent !== text && (status.textContent = text),
    drawn: (view) => {
      if (state.lock && two?.aligned) maps[1 - side]?.follow(view);
      lines?.place();
    },
    moved: () => {
      history.replaceState(history.state, "", write(links.page, state, maps.map((other) => other.view)));
      address();
    },
    ranged: () => explain(),
    held: (latent) => (of(side) === state.side ? set({ feature: latent }) : only({ feature: latent, side: of(side) })),
    grouped: (level, id) => {
      const found = (level ? one.regions.flatMap((region) => region.clusters) : one.regions).find((group) => group.id === id);
      maps[side].view.go(found.x, found.y, Math.max(maps[side].view.z, level ? 3 : 1.6));
      only({ [groups[level]]: String(id), side: sides[side] });
    },
    outlined: (points) => {
      lasso(false);
      const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
      const wide = (all) => (Math.max(...all) - Math.min(...all)) * maps[side].view.scale;
      if (points.length > 2 && wide(xs) > 6 && wide(ys) > 6) only({ within: corners(points), side: sides[side] });
      else take();
    },
  });
});
const lines = two ? new Lines(document.getElementById("map-pair"), maps) : null;
const views = () => maps.map((one) => one.view);
// Whose number a latent's is, where it was clicked on this side: of one SAE it is the same on both.
const of = (side) => (two?.same ? state.side : sides[side]);

// The file of this view is of the map that was touched last.
function address() {
  const { left, bottom, right, top } = maps[active].view.bounds;
  const [from, low, to, high] = [left, bottom, right, top].map((one) => Math.min(Math.max(Math.round(one), 0), SIDE));
  const source = sources[active];
  tools.querySelector("[data-do=csv]").href = `${source.links.csv}?map=${source.map.version}&within=${from},${low}+${to},${high}`;
}

// Marks of one kind take the place of another's.
const only = (kept) => set({ side: state.side, ...Object.fromEntries(MARKS.map((name) => [name, name === "text" ? null : ""])), feature: null, ...kept });

async function set(changes, { seek = false, push = true } = {}) {
  state = { ...state, ...changes };
  if (push) history.pushState(null, "", write(links.page, state, views()));
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

// What the server has put beside the map, drawn on it; counterparts on the other map.
function take(seek = false) {
  const data = (kind) => JSON.parse(beside.querySelector(kind)?.textContent ?? "null");
  const [found, spot, other] = [data(".map-marks"), data(".map-spot-data"), data(".map-beside-data")];
  const side = two ? sides.indexOf(state.side) : 0;
  mark(maps[side], found);
  maps[side].hold(spot, outline(state.within));
  if (two) {
    mark(maps[1 - side], other?.marks, other?.of);
    maps[1 - side].hold(other?.spot ?? null, []);
    lines.show(other?.pairs ?? []);
  }
  lit = Boolean(found?.values);
  explain();
  if (spot && seek) maps[side].seek(spot);
  if (other?.spot && seek && !state.lock) maps[1 - side].seek(other.spot);
  const card = beside.querySelector("[data-map-card]");
  if (card)
    fetch(card.dataset.mapCard).then(async (answer) => {
      if (answer.ok) card.innerHTML = await answer.text();
      card.querySelector("h2")?.remove();
    }, () => {});
}

// origin: the latents of the other map that the marks are counterparts of.
function mark(map, found, origin) {
  const { latents = [], x = [], y = [], values } = found ?? {};
  const colour = values ? values.map((share) => 1 + 254 * Math.min(share, 1)) : latents.map(() => 0);
  map.mark({ latents, x, y, colour, origin: origin?.length ? origin : latents });
}

function explain() {
  const marked = maps.some((map) => map.marks.x.length > 0);
  legend(document.getElementById("map-legend"), state.color, { lit, marked, range: maps[0].range });
  for (const box of document.querySelectorAll("[data-region]")) {
    box.style.background = css(hue(Number(box.dataset.region) % 255, theme()));
    box.hidden = state.color !== "region";
  }
}

const press = (name, on) => tools.querySelector(`[data-do=${name}]`)?.setAttribute("aria-pressed", String(on));

function lasso(on) {
  press("lasso", on);
  for (const map of maps) {
    map.lasso = on;
    map.frame.classList.toggle("lassoing", on);
  }
}

const doing = {
  in: () => maps[active].zoom(0.5),
  out: () => maps[active].zoom(-0.5),
  home: () => maps[active].home(),
  lasso: () => lasso(!maps[0].lasso),
  lock: () => {
    state.lock = state.lock ? "" : "1";
    press("lock", state.lock === "1");
    if (state.lock) maps[1 - active].follow(maps[active].view);
    history.replaceState(null, "", write(links.page, state, views()));
  },
  lines: () => {
    press("lines", !state.lines);
    set({ lines: state.lines ? "" : "1" });
  },
  png: () => {
    maps[active].frameNow();
    png(maps[active], `map-${sources[active].map.version}`);
  },
  svg: () => vector(maps[active], `map-${sources[active].map.version}`),
};

tools.hidden = false;
tools.addEventListener("click", (event) => doing[event.target.closest("button")?.dataset.do]?.());

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = form.elements.q.value.trim();
  if (/^\d{1,9}$/.test(wanted) && (state.side === "right" || Number(wanted) < features)) set({ feature: Number(wanted) }, { seek: true });
  else only({ q: wanted });
});
form.elements.color.addEventListener("change", () => {
  state.color = form.elements.color.value;
  for (const map of maps) map.paint(state.color);
  take();
});
for (const name of ["map", "beside"])
  form.elements[name]?.addEventListener("change", () => {
    const gone = { region: "", cluster: "", within: "", side: "left", lock: "", feature: state.side === "left" ? state.feature : null };
    location.assign(write(links.page, { ...state, ...gone, [name]: form.elements[name].value }));
  });
form.elements.side?.addEventListener("change", () => only({ side: form.elements.side.value, q: state.q }));
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
    for (const map of maps) {
      const i = map.marks.origin?.indexOf(latent) ?? -1;
      const near = i < 0 && (two?.same || sides[maps.indexOf(map)] === state.side) ? map.spot?.company.find((one) => one.index === latent) : null;
      map.overlay.ring(i >= 0 ? { x: map.marks.x[i], y: map.marks.y[i] } : (near ?? null), map.view);
    }
  });

document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]") || event.target.closest("input, textarea, select")) return;
  if (maps[0].lasso) lasso(false);
  else if (state.feature !== null) set({ feature: null });
});
addEventListener("popstate", () => {
  const now = read(location.search);
  const repaint = now.state.color !== state.color;
  if (now.state.map !== state.map || now.state.beside !== state.beside) return location.reload();
  state = now.state;
  form.elements.color.value = state.color;
  if (repaint) for (const map of maps) map.paint(state.color);
  if (form.elements.side) form.elements.side.value = state.side;
  for (const name of ["lock", "lines"]) press(name, state[name] === "1");
  form.elements.q.value = state.q;
  texts.elements.text.value = state.text ?? "";
  maps.forEach((map, side) => {
    const [x, y, z] = now.seen[side];
    map.view.go(x ?? SIDE / 2, y ?? SIDE / 2, z ?? 0);
    map.invalidate();
  });
  set({}, { push: false });
});
for (const [target, kind] of [[document, "themechange"], [matchMedia("(prefers-color-scheme: dark)"), "change"]])
  target.addEventListener(kind, () => {
    for (const map of maps) map.repaint();
    explain();
  });

take(state.feature !== null && seen[0][0] === null);
