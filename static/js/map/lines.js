// Lines from latents of one map to their counterparts on the other, over both.
import { svg } from "./overlay.js";

export class Lines {
  constructor(holder, maps) {
    Object.assign(this, { holder, maps, pairs: [], drawn: [] });
    this.element = svg("svg", { class: "map-between", "aria-hidden": "true" });
    holder.append(this.element);
  }

  show(pairs) {
    this.pairs = pairs;
    this.drawn = pairs.map(({ left, right, cosine }) => {
      const line = svg("line");
      line.append(svg("title", {}, `${left} – ${right}${cosine === null ? "" : `, cosine ${cosine.toFixed(2)}`}`));
      return line;
    });
    this.element.replaceChildren(...this.drawn);
    this.place();
  }

  // Ends that are out of view are not drawn.
  place() {
    if (!this.pairs.length) return;
    const around = this.holder.getBoundingClientRect();
    const [one, two] = this.maps.map(({ frame, view }) => {
      const box = frame.getBoundingClientRect();
      const [left, top] = [box.left - around.left + frame.clientLeft, box.top - around.top + frame.clientTop];
      return (x, y) => {
        const [across, down] = view.toScreen(x, y);
        const seen = across >= 0 && down >= 0 && across <= view.width && down <= view.height;
        return seen ? [left + across, top + down] : null;
      };
    });
    this.pairs.forEach(({ x, y, x2, y2 }, i) => {
      const [from, to] = [one(x, y), two(x2, y2)];
      this.drawn[i].toggleAttribute("hidden", !from || !to);
      if (!from || !to) return;
      for (const [name, value] of [["x1", from[0]], ["y1", from[1]], ["x2", to[0]], ["y2", to[1]]])
        this.drawn[i].setAttribute(name, value.toFixed(1));
    });
  }
}
