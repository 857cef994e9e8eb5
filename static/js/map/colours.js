// What a byte of colour looks like, in either theme, and the legend that says so.
const RAMP = { light: ["#eaa43c", "#cf4560", "#3a1a68"], dark: ["#6a50b4", "#dc5a70", "#ffd166"] };
const HEAT = { light: ["#f3ad66", "#d64a10", "#5c1400"], dark: ["#7c4310", "#f08a24", "#fff0cc"] };
const NONE = { light: "#a3abb5", dark: "#626c78" };
const MARK = { light: "#c40063", dark: "#ff6db2" };
const SIGNS = { light: ["#d9730d", "#2b6fc2", "#8b3fae"], dark: ["#f39a45", "#6ca8f2", "#c58be0"] };
const SAID = {
  density: ["density", "never fired", (share) => percent(10 ** (-7 + 7 * share))],
  maximum: ["maximum, by rank", "never fired", (share) => ["least", "greatest"][Math.round(share)]],
  score: ["score of the label", "not scored", (share) => share.toFixed(2)],
};
const percent = (share) => `${Number((100 * share).toPrecision(1))}%`;
const WHOLE = [1, 255];

const rgb = (text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));

function ramp(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  const [from, to] = [rgb(stops[low]), rgb(stops[low + 1])];
  return from.map((value, i) => Math.round(value + (to[i] - value) * (at - low)));
}

// Of a group's number: steps of the golden angle, so that numbers that follow one another differ.
export function hue(number, theme) {
  const [h, s, l] = [(number * 137.508) % 360, 0.55 + 0.2 * (number % 2), theme === "dark" ? 0.64 : 0.44];
  const part = (n) => {
    const k = (n + h / 30) % 12;
    return Math.round(255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [part(0), part(8), part(4)];
}

// The bytes between which all but the outermost hundredths of a tile's colours lie; null while it is not there.
export function span(tile, color) {
  if (!tile?.buffer || !SAID[color]) return null;
  const sorted = tile.colour.filter((byte) => byte > 0).sort();
  const [low, high] = [0.01, 0.99].map((share) => sorted[Math.floor(share * (sorted.length - 1))] ?? 1);
  return high > low ? [low, high] : WHOLE;
}

export const theme = () => (getComputedStyle(document.documentElement).colorScheme === "dark" ? "dark" : "light");

// faded: nearly as the ground is, so that marks stand out.
export function palette(color, now, range, faded = false) {
  const ground = now === "dark" ? [21, 24, 29] : [255, 255, 255];
  const [low, high] = range ?? WHOLE;
  const out = new Uint8Array(1024);
  for (let byte = 0; byte < 256; byte++) {
    let shown = rgb(NONE[now]);
    if (byte && (color === "region" || color === "cluster")) shown = hue(byte - 1, now);
    else if (byte && color === "sign") shown = rgb(SIGNS[now][(byte - 1) % 3]);
    else if (byte) shown = ramp(RAMP[now], (byte - low) / (high - low));
    if (faded) shown = shown.map((value, i) => Math.round(0.3 * value + 0.7 * ground[i]));
    out.set([...shown, 255], 4 * byte);
  }
  return out;
}

// Marks: 0 is the plain mark, 1 to 255 a share on a text.
export function marking(now) {
  const out = new Uint8Array(1024);
  for (let byte = 0; byte < 256; byte++) out.set([...(byte ? ramp(HEAT[now], (byte - 1) / 254) : rgb(MARK[now])), 255], 4 * byte);
  return out;
}

export const css = (colour) => `rgb(${colour.join(" ")})`;

function swatch(colour, text) {
  const [box, said] = [document.createElement("span"), document.createElement("span")];
  box.className = "swatch";
  box.style.background = css(colour);
  said.textContent = text;
  return [box, said];
}

function scale(stops, low, high) {
  const [from, bar, to] = ["span", "span", "span"].map((name) => document.createElement(name));
  bar.className = "ramp";
  bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
  [from.textContent, to.textContent] = [low, high];
  return [from, bar, to];
}

export function legend(element, color, { lit, marked, range }) {
  const now = theme();
  const none = (text) => swatch(rgb(NONE[now]), text);
  let parts;
  if (lit) parts = [document.createTextNode("share of its maximum on the text "), ...scale(HEAT[now], "0", "1")];
  else if (SAID[color]) {
    const [said, missing, tell] = SAID[color];
    const [low, high] = (range ?? WHOLE).map((byte) => tell((byte - 1) / 254));
    parts = [document.createTextNode(`${said} `), ...scale(RAMP[now], low, high), ...none(missing)];
  } else if (color === "sign")
    parts = ["positive", "negative", "both"].flatMap((text, i) => swatch(rgb(SIGNS[now][i]), text)).concat(none("never fired"));
  else parts = [document.createTextNode(`a colour a ${color} `), ...none(`in no ${color}`)];
  if (marked && !lit) parts.push(...swatch(rgb(MARK[now]), "marked"));
  element.replaceChildren(...parts);
}
