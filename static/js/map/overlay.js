// What stands over the points as SVG: names of regions and clusters, features Tab walks, lines to a held one's company.
const SVG = "http://www.w3.org/2000/svg";
const NAMES = 40;
const SPOTS = 24;
const APART = 70;
const NEAR = 1.3; // zoom from which clusters are named rather than regions

export function svg(name, attributes = {}, text = null) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

export class Overlay {
  constructor(links, regions) {
    this.links = links;
    this.groups = [
      regions.map((one) => ({ ...one, level: 0 })),
      regions.flatMap((region) => region.clusters.map((one) => ({ ...one, level: 1 }))),
    ];
    this.element = svg("svg", { class: "map-over" });
    [this.lines, this.outline, this.names, this.spots, this.hold] = ["lines", "outline", "names", "spots", "hold"].map(
      (name) => this.element.appendChild(svg("g", { class: `map-${name}` })),
    );
    this.labels = new Map();
    this.placed = []; // elements with the place they stand at
  }

  link(latent, label) {
    return svg("a", {
      href: this.links.feature.replace("{i}", latent), "data-card": this.links.card.replace("{i}", latent),
      "data-latent": latent, "aria-label": `Feature ${latent}${label ? `: ${label}` : ""}`,
    });
  }

  place(view) {
    for (const { element, x, y } of this.placed) {
      const [left, top] = view.toScreen(x, y);
      element.setAttribute("transform", `translate(${left.toFixed(1)} ${top.toFixed(1)})`);
    }
    for (const { element, points } of this.shapes ?? [])
      element.setAttribute("points", points.map(([x, y]) => view.toScreen(x, y).map((one) => one.toFixed(1)).join(",")).join(" "));
  }

  // Which names and features to show now: the largest groups whose names do not meet, the foremost points far apart.
  choose(view, { drawn, shown, whole }) {
    const [boxes, focused] = [[], document.activeElement?.closest?.(".map-spots a")?.dataset.latent];
    const free = (box) => boxes.every((other) => box[0] > other[2] || box[2] < other[0] || box[1] > other[3] || box[3] < other[1]);
    this.placed = this.placed.filter(({ element }) => !this.names.contains(element) && !this.spots.contains(element));
    this.names.replaceChildren();
    const level = view.z < NEAR || !this.groups[1].length ? 0 : 1;
    const named = [];
    for (const one of [...this.groups[level]].sort((a, b) => b.size - a.size)) {
      const [left, top] = view.toScreen(one.x, one.y);
      const text = short(one.name, 34);
      const half = text.length * 3.7 + 4;
      const side = left < half ? "start" : left > view.width - half ? "end" : "middle";
      const from = { start: left, middle: left - half, end: left - 2 * half }[side];
      const box = [from, top - 22, from + 2 * half, top];
      if (left < 0 || top < 0 || left > view.width || top > view.height || !free(box)) continue;
      boxes.push(box);
      const link = svg("a", { href: one.page, tabindex: -1, class: `level-${level}`, "data-level": level, "data-group": one.id });
      link.append(svg("text", { y: -11, "text-anchor": side }, text), svg("title", {}, `${one.name}: ${one.size} latents${one.named_by ? `, named by ${one.named_by}` : ""}`));
      this.names.append(link);
      named.push({ element: link, x: one.x, y: one.y });
      if (named.length >= NAMES) break;
    }
    const near = whole && shown <= 400;
    const [taken, chosen] = [[], []];
    for (const { tile, draw } of drawn) {
      for (let i = 0; i < draw && chosen.length < SPOTS; i++) {
        const [left, top] = view.toScreen(tile.x[i], tile.y[i]);
        if (left < 8 || top < 8 || left > view.width - 8 || top > view.height - 8) continue;
        if (taken.some(([x, y]) => Math.abs(x - left) < (near ? 1.6 : 1) * APART && Math.abs(y - top) < APART / (near ? 3 : 1))) continue;
        taken.push([left, top]);
        chosen.push({ latent: tile.latent[i], x: tile.x[i], y: tile.y[i], left, top });
      }
      if (chosen.length >= SPOTS) break;
    }
    chosen.sort((a, b) => Math.round(a.top / 40) - Math.round(b.top / 40) || a.left - b.left);
    const kept = new Map([...this.spots.children].map((one) => [one.dataset.latent, one]));
    const links = chosen.map((one) => {
      const link = kept.get(String(one.latent)) ?? this.link(one.latent, this.labels.get(one.latent));
      if (!link.firstChild) link.append(svg("circle", { r: 8 }), svg("text", { x: 9, y: 4 }));
      named.push({ element: link, x: one.x, y: one.y });
      return link;
    });
    for (const [latent, element] of kept) if (latent !== focused && !links.includes(element)) element.remove();
    links.forEach((link, i) => this.spots.children[i] !== link && link.dataset.latent !== focused && this.spots.insertBefore(link, this.spots.children[i] ?? null));
    this.placed.push(...named);
    this.place(view);
    this.name(links, near ? chosen : [], free, boxes);
  }

  async name(links, chosen, free, boxes) {
    const unknown = links.map((link) => Number(link.dataset.latent)).filter((latent) => !this.labels.has(latent));
    if (unknown.length) {
      const answer = await fetch(`${this.links.rows}?index=${unknown.join(",")}&limit=${unknown.length}`).catch(() => null);
      if (answer?.ok) for (const row of (await answer.json()).items) this.labels.set(row.index, row.label);
    }
    for (const link of links) {
      const label = this.labels.get(Number(link.dataset.latent)) ?? "";
      link.setAttribute("aria-label", `Feature ${link.dataset.latent}${label ? `: ${label}` : ""}`);
      const text = short(label, 26);
      const one = chosen.find(({ latent }) => latent === Number(link.dataset.latent));
      const box = one && [one.left + 7, one.top - 7, one.left + 12 + text.length * 6, one.top + 7];
      link.querySelector("text").textContent = box && free(box) ? text : "";
      if (link.querySelector("text").textContent) boxes.push(box);
    }
  }

  // What the pointer is at: a new element each time, so that the card knows of it.
  point(found, view) {
    if (this.hover?.dataset.latent === String(found?.latent)) return;
    this.hover?.remove();
    this.hover = null;
    this.placed = this.placed.filter(({ element }) => element.isConnected);
    if (!found) return;
    this.hover = this.link(found.latent, this.labels.get(found.latent));
    this.hover.setAttribute("tabindex", -1);
    this.hover.classList.add("map-hover");
    this.hover.append(svg("circle", { r: 8 }));
    this.element.insertBefore(this.hover, this.names); // what is written lies over it
    this.placed.push({ element: this.hover, ...found });
    this.place(view);
  }

  // A held feature with lines to its company, and an outline.
  draw(spot, outline, view) {
    this.lines.replaceChildren();
    this.outline.replaceChildren();
    this.hold.replaceChildren();
    this.shapes = [];
    const shape = (group, points, closed = false) => {
      const element = group.appendChild(svg(closed ? "polygon" : "polyline"));
      this.shapes.push({ element, points });
    };
    this.placed = this.placed.filter(({ element }) => element.isConnected);
    if (spot) {
      for (const one of spot.company) {
        shape(this.lines, [[spot.x, spot.y], [one.x, one.y]]);
        this.stand(this.hold, "near", one);
      }
      this.stand(this.hold, "held", spot);
    }
    if (outline.length) shape(this.outline, outline, true);
    this.place(view);
  }

  // Around a feature that is named elsewhere on the page.
  ring(place, view) {
    this.ringed?.remove();
    this.ringed = null;
    this.placed = this.placed.filter(({ element }) => element.isConnected);
    if (!place) return;
    this.ringed = this.element.appendChild(svg("circle", { r: 12, class: "map-ring" }));
    this.placed.push({ element: this.ringed, x: place.x, y: place.y });
    this.place(view);
  }

  stand(group, kind, { index, label, x, y }) {
    const link = group.appendChild(this.link(index, label));
    link.classList.add(kind);
    link.setAttribute("tabindex", -1);
    link.append(svg("circle", { r: kind === "held" ? 8 : 5 }));
    this.placed.push({ element: link, x, y });
  }
}
