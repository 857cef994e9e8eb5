// The map's tiles: asked for from the root downwards as far as the budget of points goes, read in place, drawn in order.
import { SIDE } from "./view.js";

export const BUDGET = 60000;
const KEPT = 160;
const AT_ONCE = 8;
const CELLS = 64;

function decode(buffer, z, column, row) {
  const head = new DataView(buffer, 0, 16);
  const n = head.getUint32(8, true);
  const side = SIDE / 2 ** z;
  return {
    z, column, row, n, buffer, side, left: column * side, bottom: row * side, children: head.getUint8(6),
    x: new Uint16Array(buffer, 16, n), y: new Uint16Array(buffer, 16 + 2 * n, n),
    latent: new Uint32Array(buffer, 16 + 4 * n, n), colour: new Uint8Array(buffer, 16 + 8 * n, n),
  };
}

const meets = (tile, b) =>
  tile.left <= b.right && tile.left + tile.side >= b.left && tile.bottom <= b.top && tile.bottom + tile.side >= b.bottom;
const inside = (tile, b) =>
  tile.left >= b.left && tile.left + tile.side <= b.right && tile.bottom >= b.bottom && tile.bottom + tile.side <= b.top;

// How many of a tile's first ``most`` points are in view, and after which point ``wanted`` of them are.
function count(tile, b, wanted = Infinity) {
  let seen = 0;
  for (let i = 0; i < tile.n; i++) {
    const x = tile.x[i];
    const y = tile.y[i];
    if (x >= b.left && x <= b.right && y >= b.bottom && y <= b.top && ++seen >= wanted) return [seen, i + 1];
  }
  return [seen, tile.n];
}

// Points by cell of the tile, so that what is under the pointer is found among a few.
function indexed(tile) {
  if (tile.starts) return tile;
  const size = tile.side / CELLS;
  const cell = new Uint16Array(tile.n);
  tile.starts = new Uint32Array(CELLS * CELLS + 1);
  for (let i = 0; i < tile.n; i++) {
    cell[i] = Math.floor((tile.y[i] - tile.bottom) / size) * CELLS + Math.floor((tile.x[i] - tile.left) / size);
    tile.starts[cell[i] + 1]++;
  }
  for (let i = 0; i < CELLS * CELLS; i++) tile.starts[i + 1] += tile.starts[i];
  const next = tile.starts.slice(0, -1);
  tile.order = new Uint16Array(tile.n);
  for (let i = 0; i < tile.n; i++) tile.order[next[cell[i]]++] = i;
  return tile;
}

export class Tiles {
  // changed: called when a tile has come; dropped: with one that is let go; failed: when one does not come.
  constructor(template, color, { changed, dropped, failed }) {
    Object.assign(this, { template, color, changed, dropped, failed });
    this.held = new Map();
    this.asking = 0;
    this.round = 0;
  }

  paint(color) {
    for (const tile of this.held.values()) if (tile.buffer) this.dropped(tile);
    this.held.clear();
    this.color = color;
  }

  get root() {
    return this.held.get("0/0/0");
  }

  async ask(key, z, column, row) {
    const held = this.held;
    const { color } = this;
    held.set(key, { waiting: true });
    this.asking++;
    try {
      const path = this.template.replace("{z}", z).replace("{x}", column).replace("{y}", row);
      const answer = await fetch(`${path}?color=${color}`);
      if (!answer.ok) throw new Error(answer.statusText);
      const tile = decode(await answer.arrayBuffer(), z, column, row);
      if (color === this.color) held.set(key, tile);
    } catch {
      if (color === this.color) held.set(key, { failed: true });
      this.failed();
    }
    this.asking--;
    this.changed();
  }

  // What to draw of which tiles: [{tile, draw}], the points in view that makes, and whether these are all there are.
  plan(bounds, budget = BUDGET) {
    const drawn = [];
    let [shown, whole, coming] = [0, true, false];
    let level = [[0, 0, 0]];
    this.round++;
    while (level.length && whole && !coming) {
      const here = [];
      for (const [z, column, row] of level) {
        const key = `${z}/${column}/${row}`;
        const tile = this.held.get(key);
        if (!tile) {
          if (this.asking < AT_ONCE) this.ask(key, z, column, row);
          coming = true;
        } else if (tile.buffer) {
          tile.used = this.round;
          here.push([tile, inside(tile, bounds) ? tile.n : count(tile, bounds)[0]]);
        } else if (tile.waiting) coming = true;
        else whole = false;
      }
      const total = here.reduce((sum, [, seen]) => sum + seen, 0);
      const share = Math.min(1, (budget - shown) / Math.max(total, 1)); // of every tile alike: a fair sample
      whole &&= share === 1;
      level = [];
      for (const [tile, seen] of here) {
        const wanted = Math.floor(seen * share);
        const draw = share === 1 ? tile.n : wanted === 0 ? 0 : seen === tile.n ? wanted : count(tile, bounds, wanted)[1];
        if (draw) drawn.push({ tile, draw });
        shown += share === 1 ? seen : wanted;
        for (let quarter = 0; quarter < 4; quarter++)
          if (tile.children & (1 << quarter)) {
            const [column, row] = [2 * tile.column + (quarter & 1), 2 * tile.row + (quarter >> 1)];
            const side = tile.side / 2;
            if (meets({ left: column * side, bottom: row * side, side }, bounds)) level.push([tile.z + 1, column, row]);
          }
      }
    }
    this.forget();
    return { drawn, shown, whole: whole && !coming, coming };
  }

  forget() {
    if (this.held.size <= KEPT) return;
    const old = [...this.held].filter(([, tile]) => tile.buffer && tile.used < this.round);
    old.sort(([, a], [, b]) => a.used - b.used);
    for (const [key, tile] of old.slice(0, this.held.size - KEPT)) {
      this.dropped(tile);
      this.held.delete(key);
    }
  }
}

// The drawn latent nearest to a place, within ``reach``: {latent, x, y}, or null.
export function nearest(drawn, x, y, reach) {
  let found = null;
  let best = reach * reach;
  for (const { tile, draw } of drawn) {
    const size = tile.side / CELLS;
    const clip = (value) => Math.min(Math.max(Math.floor(value / size), 0), CELLS - 1);
    if (!meets(tile, { left: x - reach, right: x + reach, bottom: y - reach, top: y + reach })) continue;
    const { starts, order } = indexed(tile);
    const [low, high] = [clip(x - reach - tile.left), clip(x + reach - tile.left)];
    for (let row = clip(y - reach - tile.bottom); row <= clip(y + reach - tile.bottom); row++)
      for (let at = starts[row * CELLS + low]; at < starts[row * CELLS + high + 1]; at++) {
        const i = order[at];
        const far = (tile.x[i] - x) ** 2 + (tile.y[i] - y) ** 2;
        if (i < draw && far <= best) {
          best = far;
          found = { latent: tile.latent[i], x: tile.x[i], y: tile.y[i] };
        }
      }
  }
  return found;
}

export function isDrawn(drawn, spot) {
  const found = nearest(drawn, spot.x, spot.y, 0.5);
  return found?.latent === spot.index;
}
