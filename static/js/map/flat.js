// The same points on a plain canvas, where there is no WebGL: discs written into a picture's pixels.
import { SIDE } from "./view.js";

const packed = (bytes, i) => ((255 << 24) | (bytes[4 * i + 2] << 16) | (bytes[4 * i + 1] << 8) | bytes[4 * i]) >>> 0;

export class Renderer {
  constructor(canvas) {
    this.pen = canvas.getContext("2d");
    this.marked = { x: [], y: [], colour: [] };
  }

  paint(palette, marks) {
    this.palette = Uint32Array.from({ length: 256 }, (_, i) => packed(palette, i));
    this.marks = Uint32Array.from({ length: 256 }, (_, i) => packed(marks, i));
  }

  hang(image) {
    this.image = image;
  }

  mark(marked) {
    this.marked = marked;
  }

  drop() {}

  draw(view, drawn, { ratio, size, alpha, back, markSize }) {
    const { pen } = this;
    const { width, height } = pen.canvas;
    const layer = (side, opacity, fill) => {
      const picture = new ImageData(width, height);
      const pixels = new Uint32Array(picture.data.buffer);
      const step = Math.max(1, Math.round(side * ratio));
      const cut = Array.from({ length: step }, (_, row) => {
        const up = row + 0.5 - step / 2;
        return Math.round(step / 2 - Math.sqrt(Math.max(step ** 2 / 4 - up ** 2, 0)));
      });
      const put = (x, y, colour) => {
        const [left, top] = view.toScreen(x, y);
        const [column, row] = [Math.round(left * ratio - step / 2), Math.round(top * ratio - step / 2)];
        if (column < 0 || row < 0 || column + step > width || row + step > height) return;
        for (let r = 0; r < step; r++) {
          const start = (row + r) * width + column;
          pixels.fill(colour, start + cut[r], start + step - cut[r]);
        }
      };
      fill(put);
      const own = new OffscreenCanvas(width, height);
      own.getContext("2d").putImageData(picture, 0, 0);
      pen.globalAlpha = opacity;
      pen.drawImage(own, 0, 0);
      pen.globalAlpha = 1;
    };
    pen.clearRect(0, 0, width, height);
    if (this.image && back > 0) {
      const [left, top] = view.toScreen(0, SIDE);
      const side = SIDE * view.scale * ratio;
      pen.globalAlpha = back;
      pen.drawImage(this.image, left * ratio, top * ratio, side, side);
      pen.globalAlpha = 1;
    }
    layer(size, alpha, (put) => {
      for (const { tile, draw } of drawn)
        for (let i = draw - 1; i >= 0; i--) put(tile.x[i], tile.y[i], this.palette[tile.colour[i]]);
    });
    const { x, y, colour } = this.marked;
    if (x.length) layer(markSize, 1, (put) => x.forEach((one, i) => put(one, y[i], this.marks[Math.round(colour[i])])));
  }
}
