// The view as a file: the points as they are drawn, with the names over them.
import { css, marking, palette, theme } from "./colours.js";

const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clean = (text) => text.replace(/[&<>"]/g, (sign) => `&#${sign.charCodeAt(0)};`);

function give(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

const names = (overlay) =>
  overlay.placed
    .filter(({ element }) => element.querySelector("text")?.textContent)
    .map(({ element, x, y }) => ({ text: element.querySelector("text").textContent, x, y, group: element.dataset.group !== undefined }));

export function png({ canvas, view, overlay }, name) {
  const out = document.createElement("canvas");
  [out.width, out.height] = [canvas.width, canvas.height];
  const ratio = canvas.width / view.width;
  const pen = out.getContext("2d");
  pen.fillStyle = variable("--bg");
  pen.fillRect(0, 0, out.width, out.height);
  pen.drawImage(canvas, 0, 0);
  pen.scale(ratio, ratio);
  for (const { points } of overlay.shapes ?? []) {
    pen.beginPath();
    for (const [x, y] of points) pen.lineTo(...view.toScreen(x, y));
    pen.strokeStyle = variable("--accent");
    pen.stroke();
  }
  pen.lineWidth = 3;
  pen.lineJoin = "round";
  pen.strokeStyle = variable("--bg");
  pen.fillStyle = variable("--text");
  for (const { text, x, y, group } of names(overlay)) {
    const [left, top] = view.toScreen(x, y);
    pen.font = `${group ? "600 13px" : "11px"} system-ui, sans-serif`;
    pen.textAlign = group ? "center" : "left";
    const at = group ? [left, top - 7] : [left + 9, top + 4];
    pen.strokeText(text, ...at);
    pen.fillText(text, ...at);
  }
  out.toBlob((blob) => give(blob, `${name}.png`));
}

export function vector(map, name) {
  const { view, color, marks, size, overlay, plan: { drawn }, range, faded } = map;
  const now = theme();
  const [base, marked] = [palette(color, now, range, faded), marking(now)];
  const colour = (table, byte) => css([...table.subarray(4 * byte, 4 * byte + 3)]);
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${view.width} ${view.height}">`,
    `<rect width="100%" height="100%" fill="${variable("--bg")}"/><g fill-opacity="0.85">`,
  ];
  const b = view.bounds;
  const dot = (x, y, fill, r) => {
    const [left, top] = view.toScreen(x, y);
    lines.push(`<circle cx="${left.toFixed(1)}" cy="${top.toFixed(1)}" r="${r.toFixed(1)}" fill="${fill}"/>`);
  };
  for (const { tile, draw } of drawn)
    for (let i = 0; i < draw; i++) {
      const [x, y] = [tile.x[i], tile.y[i]];
      if (x >= b.left && x <= b.right && y >= b.bottom && y <= b.top) dot(x, y, colour(base, tile.colour[i]), size / 2);
    }
  lines.push("</g>");
  marks.x.forEach((x, i) => dot(x, marks.y[i], colour(marked, marks.colour[i]), size * 0.8));
  for (const { points } of overlay.shapes ?? []) {
    const path = points.map(([x, y]) => view.toScreen(x, y).map((one) => one.toFixed(1)).join(",")).join(" ");
    lines.push(`<polyline points="${path}" fill="none" stroke="${variable("--accent")}"/>`);
  }
  const halo = `paint-order="stroke" stroke="${variable("--bg")}" stroke-width="3" fill="${variable("--text")}"`;
  for (const { text, x, y, group } of names(overlay)) {
    const [left, top] = view.toScreen(x, y);
    const font = group ? 'font-size="13" font-weight="600" text-anchor="middle"' : 'font-size="11"';
    const at = `x="${(left + (group ? 0 : 9)).toFixed(1)}" y="${(top + (group ? -7 : 4)).toFixed(1)}"`;
    lines.push(`<text ${at} font-family="sans-serif" ${font} ${halo}>${clean(text)}</text>`);
  }
  lines.push("</svg>");
  give(new Blob(lines, { type: "image/svg+xml" }), `${name}.svg`);
}
