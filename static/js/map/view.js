// Where the map is seen from. Places are 0 to SIDE, y upwards; z = 0 shows the whole map, each step of z doubles it.
export const SIDE = 65536;
export const DEEPEST = 12;
const MARGIN = 0.92;

const within = (value, low, high) => Math.min(Math.max(value, low), high);

export class View {
  constructor(x, y, z) {
    this.width = this.height = 1;
    this.go(x, y, z);
  }

  go(x, y, z = this.z) {
    this.x = within(x, 0, SIDE);
    this.y = within(y, 0, SIDE);
    this.z = within(z, 0, DEEPEST);
  }

  // Pixels a place.
  get scale() {
    return ((Math.min(this.width, this.height) * MARGIN) / SIDE) * 2 ** this.z;
  }

  get bounds() {
    const across = this.width / 2 / this.scale;
    const up = this.height / 2 / this.scale;
    return { left: this.x - across, right: this.x + across, bottom: this.y - up, top: this.y + up };
  }

  toScreen(x, y) {
    return [this.width / 2 + (x - this.x) * this.scale, this.height / 2 - (y - this.y) * this.scale];
  }

  toMap(left, top) {
    return [this.x + (left - this.width / 2) / this.scale, this.y - (top - this.height / 2) / this.scale];
  }

  move(right, down) {
    this.go(this.x - right / this.scale, this.y + down / this.scale);
  }

  // What is at this pixel stays there.
  zoom(steps, left = this.width / 2, top = this.height / 2) {
    const [x, y] = this.toMap(left, top);
    this.go(this.x, this.y, this.z + steps);
    const [nowX, nowY] = this.toMap(left, top);
    this.go(this.x + x - nowX, this.y + y - nowY);
  }
}
