// What the map's URL says: where it is seen, its colour, and what is marked.
export const FIRST = { map: "", color: "cluster", q: "", region: "", cluster: "", within: "", feature: null, text: null, beside: "", side: "left", lock: "", lines: "" };
export const MARKS = ["q", "region", "cluster", "within", "text"];

export function read(search) {
  const given = new URLSearchParams(search);
  const state = { ...FIRST };
  for (const name of Object.keys(FIRST)) if (given.has(name)) state[name] = given.get(name);
  for (const name of ["lock", "lines"]) state[name] = /^(1|true|yes|on)$/i.test(state[name]) ? "1" : "";
  if (state.feature !== null) state.feature = Number(state.feature);
  const number = (name) => (given.has(name) ? Number(given.get(name)) : null);
  return { state, seen: ["", "2"].map((which) => ["x", "y", "z"].map((name) => number(name + which))) };
}

// views: of the map, and of the one beside it.
export function write(page, state, views = []) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== FIRST[name] && value !== "") query.set(name, value);
  views.forEach((view, i) => {
    if (view.z <= 0.001 && Math.abs(view.x - 32768) <= 1 && Math.abs(view.y - 32768) <= 1) return;
    const which = i ? "2" : "";
    query.set(`x${which}`, Math.round(view.x));
    query.set(`y${which}`, Math.round(view.y));
    query.set(`z${which}`, Number(view.z.toFixed(2)));
  });
  return query.size ? `${page}?${query}` : page;
}

// An outline's corners as its URL has them, at most ``most`` of them.
export function corners(points, most = 200) {
  const every = Math.ceil(points.length / most);
  return points.filter((_, i) => i % every === 0).map(([x, y]) => `${Math.round(x)},${Math.round(y)}`).join(" ");
}

export function outline(within) {
  const points = within.split(/\s+/).filter(Boolean).map((corner) => corner.split(",").map(Number));
  if (points.length !== 2) return points;
  const [[left, bottom], [right, top]] = points;
  return [[left, bottom], [right, bottom], [right, top], [left, top]];
}
