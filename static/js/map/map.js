// One map in its frame: the points, what stands over them, and what the pointer does.
import { marking, palette, span, theme } from "./colours.js";
import { Renderer as Flat } from "./flat.js";
import { listen } from "./gestures.js";
import { Renderer as Device } from "./gl.js";
import { Overlay } from "./overlay.js";
import { BUDGET, isDrawn, nearest, Tiles } from "./tiles.js";
import { DEEPEST, SIDE, View } from "./view.js";

const SETTLED = 160; // ms without a change
const REACH = { mouse: 9, touch: 18, pen: 12 };
const NOTHING = { x: [], y: [], colour: [], latents: [] };

export class Map {
  // told: {moved, held, grouped, outlined, shown}, called with what a reader did.
  constructor(frame, map, links, color, [x, y, z], told) {
    Object.assign(this, { frame, told, color, marks: NOTHING, spot: null, lasso: false, sought: null });
    this.placed = map.placed;
    this.view = new View(x ?? SIDE / 2, y ?? SIDE / 2, z ?? 0);
    this.overlay = new Overlay(links, map.regions);
    this.tiles = new Tiles(map.tiles, color, {
      changed: () => this.arrived(), dropped: (tile) => this.renderer.drop(tile),
      failed: () => (this.trouble = "Part of the map did not come; the server does not answer."),
    });
    this.renderer = this.make();
    frame.append(this.overlay.element);
    frame.classList.add("drawn");
    this.plan = this.tiles.plan(this.view.bounds);
    this.repaint();
    const still = frame.querySelector("img");
    still.decode().then(() => (this.renderer.hang(still), (this.still = still), this.invalidate()), () => {});
    listen(frame, this);
    new ResizeObserver(() => this.resize()).observe(frame);
  }

  make() {
    this.canvas?.remove();
    this.canvas = this.frame.appendChild(document.createElement("canvas"));
    this.frame.insertBefore(this.canvas, this.overlay.element.isConnected ? this.overlay.element : null);
    try {
      const made = new Device(this.canvas);
      this.canvas.dataset.device = "webgl";
      this.canvas.addEventListener("webglcontextlost", () => this.plainly(), { once: true });
      return made;
    } catch {
      return this.flat();
    }
  }

  flat() {
    const canvas = document.createElement("canvas");
    this.canvas.replaceWith(canvas);
    [canvas.width, canvas.height] = [this.canvas.width, this.canvas.height];
    this.canvas = canvas;
    return new Flat(canvas);
  }

  // The device went away in the middle.
  plainly() {
    this.renderer = this.flat();
    if (this.still) this.renderer.hang(this.still);
    this.renderer.mark(this.marks);
    this.repaint();
  }

  resize() {
    const { clientWidth, clientHeight } = this.frame;
    this.ratio = Math.min(devicePixelRatio, 2);
    [this.view.width, this.view.height] = [clientWidth, clientHeight];
    [this.canvas.width, this.canvas.height] = [clientWidth * this.ratio, clientHeight * this.ratio];
    this.invalidate();
  }

  repaint() {
    this.renderer.paint(palette(this.color, theme(), this.range, this.faded), marking(theme()));
    this.invalidate();
  }

  // Shades are of the colours that occur, so that none of the scale is idle.
  arrived() {
    const range = this.range ? null : span(this.tiles.root, this.color);
    if (range) {
      this.range = range;
      this.repaint();
      this.told.ranged(range);
    }
    this.invalidate();
  }

  paint(color) {
    this.color = color;
    this.range = null;
    this.tiles.paint(color);
    this.repaint();
  }

  mark(marks) {
    this.marks = marks;
    this.renderer.mark(marks);
    this.repaint();
  }

  get faded() {
    return this.marks.x.length > 0;
  }

  hold(spot, outline) {
    this.spot = spot;
    this.overlay.draw(spot, outline, this.view);
  }

  // To where another map of the same frame is seen from.
  follow({ x, y, z }) {
    if (Math.abs(this.view.x - x) + Math.abs(this.view.y - y) < 1e-6 && this.view.z === z) return;
    this.sought = null;
    this.view.go(x, y, z);
    this.invalidate();
  }

  // To a feature, as close as it takes for its own point to be drawn.
  seek(spot) {
    this.sought = spot;
    this.view.go(spot.x, spot.y, Math.max(this.view.z, 2, Math.min(spot.level, 3)));
    this.invalidate();
  }

  invalidate() {
    this.asked ??= requestAnimationFrame(() => this.frameNow());
  }

  get size() {
    const room = Math.sqrt((this.view.width * this.view.height) / Math.max(this.plan.shown, 1));
    return Math.min(Math.max(room * 0.32, 2.4), 9);
  }

  frameNow() {
    this.asked = null;
    if (!this.ratio) return;
    this.plan = this.tiles.plan(this.view.bounds);
    const { whole } = this.plan; // then there is nothing behind that is not drawn
    const look = {
      ratio: this.ratio, size: this.size, alpha: whole ? 0.9 : 0.75, back: whole || this.faded ? 0 : 0.45,
      markSize: this.size * 1.3 + 2,
    };
    this.renderer.draw(this.view, this.plan.drawn, look);
    this.overlay.place(this.view);
    this.told.shown(this.said());
    this.told.drawn?.(this.view);
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.settled(), SETTLED);
    this.approach();
  }

  said() {
    const { shown, whole, coming } = this.plan;
    const count = (number) => number.toLocaleString("en");
    if (this.trouble) return this.trouble;
    if (coming && !shown) return "Loading…";
    const all = whole ? (shown === this.placed ? "all of them" : "all there are here") : "zoom in for more";
    return `${count(shown)} of ${count(this.placed)} shown, ${all}`;
  }

  approach() {
    if (!this.sought || this.plan.coming) return;
    const found = isDrawn(this.plan.drawn, this.sought);
    if (found || this.view.z >= DEEPEST) this.sought = null;
    else {
      this.view.go(this.sought.x, this.sought.y, this.view.z + 1);
      this.invalidate();
    }
  }

  settled() {
    if (this.plan.coming) return;
    this.overlay.choose(this.view, this.plan);
    this.told.moved(this.view);
    this.frame.dataset.settled = `${this.view.z.toFixed(2)} ${this.plan.shown}`;
  }

  // What gestures.js calls.
  lassoing() {
    return this.lasso;
  }

  move(right, down) {
    this.sought = null;
    this.view.move(right, down);
    this.invalidate();
  }

  zoom(steps, left, top) {
    this.sought = null;
    this.view.zoom(steps, left, top);
    this.invalidate();
  }

  home() {
    this.view.go(SIDE / 2, SIDE / 2, 0);
    this.invalidate();
  }

  at(left, top, kind = "mouse") {
    const [x, y] = this.view.toMap(left, top);
    const reach = (REACH[kind] ?? REACH.mouse) / this.view.scale;
    let best = null;
    const { latents } = this.marks;
    for (let i = 0; i < latents.length; i++) {
      const far = Math.hypot(this.marks.x[i] - x, this.marks.y[i] - y);
      if (far <= (best?.far ?? reach)) best = { far, latent: latents[i], x: this.marks.x[i], y: this.marks.y[i] };
    }
    return best ?? nearest(this.plan.drawn, x, y, reach);
  }

  hover(left, top) {
    this.overlay.point(this.at(left, top), this.view);
  }

  click(left, top, link, kind) {
    if (link?.dataset.group !== undefined) this.told.grouped(Number(link.dataset.level), Number(link.dataset.group));
    else {
      const latent = link ? Number(link.dataset.latent) : this.at(left, top, kind)?.latent;
      if (latent !== undefined) this.told.held(latent);
    }
  }

  outlining(points) {
    this.overlay.draw(this.spot, points.map(([left, top]) => this.view.toMap(left, top)), this.view);
  }

  outline(points) {
    this.told.outlined(points.map(([left, top]) => this.view.toMap(left, top)));
  }
}

export { BUDGET };
