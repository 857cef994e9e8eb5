// Points by WebGL: a tile's bytes go to the device as they came, and are read there as places and colours.
import { SIDE } from "./view.js";

const SOFTWARE = /swiftshader|llvmpipe|software|basic render/i;
const POINTS = `
attribute float x; attribute float y; attribute float c;
uniform vec2 middle; uniform vec2 scale; uniform mediump float size;
varying float colour;
void main() {
  gl_Position = vec4((vec2(x, y) - middle) * scale, 0.0, 1.0);
  gl_PointSize = size;
  colour = c;
}`;
const DISCS = `
precision mediump float;
uniform sampler2D palette; uniform float row; uniform float alpha; uniform float size;
varying float colour;
void main() {
  float edge = clamp((0.5 - distance(gl_PointCoord, vec2(0.5))) * size, 0.0, 1.0) * alpha;
  if (edge <= 0.0) discard;
  gl_FragColor = vec4(texture2D(palette, vec2((colour + 0.5) / 256.0, row)).rgb * edge, edge);
}`;
const CORNERS = `
attribute vec2 corner;
uniform vec2 middle; uniform vec2 scale;
varying vec2 at;
void main() {
  gl_Position = vec4((corner * ${SIDE}.0 - middle) * scale, 0.0, 1.0);
  at = vec2(corner.x, 1.0 - corner.y);
}`;
const PICTURE = `
precision mediump float;
uniform sampler2D picture; uniform float alpha;
varying vec2 at;
void main() { gl_FragColor = texture2D(picture, at) * alpha; }`;

function program(gl, vertex, fragment) {
  const made = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(made, shader);
  }
  gl.linkProgram(made);
  if (!gl.getProgramParameter(made, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(made));
  return { made, at: (name) => gl.getUniformLocation(made, name), of: (name) => gl.getAttribLocation(made, name) };
}

function device(gl) {
  const told = gl.getExtension("WEBGL_debug_renderer_info");
  return told ? gl.getParameter(told.UNMASKED_RENDERER_WEBGL) : "";
}

function texture(gl, unit, filter) {
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  for (const which of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, which, filter);
  for (const which of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(gl.TEXTURE_2D, which, gl.CLAMP_TO_EDGE);
}

export class Renderer {
  // Throws where there is no WebGL, or only by software: that keeps the page waiting longer than a plain canvas does.
  constructor(canvas) {
    const gl = canvas.getContext("webgl", { antialias: false, failIfMajorPerformanceCaveat: true });
    if (!gl || SOFTWARE.test(device(gl))) throw new Error("no WebGL");
    this.gl = gl;
    this.points = program(gl, POINTS, DISCS);
    this.picture = program(gl, CORNERS, PICTURE);
    this.square = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this.square);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([0, 0, 1, 0, 0, 1, 1, 1]), gl.STATIC_DRAW);
    this.marked = { buffer: gl.createBuffer(), n: 0 };
    texture(gl, 0, gl.NEAREST);
    texture(gl, 1, gl.LINEAR);
    gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, true);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  // Two rows of 256 colours: the map's and the marks'.
  paint(palette, marks) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE0);
    const both = new Uint8Array([...palette, ...marks]);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 2, 0, gl.RGBA, gl.UNSIGNED_BYTE, both);
  }

  hang(image) {
    const { gl } = this;
    gl.activeTexture(gl.TEXTURE1);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
    this.hung = true;
  }

  // marks: {x, y, colour}, arrays of one length.
  mark({ x, y, colour }) {
    const { gl } = this;
    this.marked.n = x.length;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.marked.buffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([...x, ...y, ...colour]), gl.STATIC_DRAW);
  }

  drop(tile) {
    if (tile.onDevice) this.gl.deleteBuffer(tile.onDevice);
    delete tile.onDevice;
  }

  draw(view, drawn, { ratio, size, alpha, back, markSize }) {
    const { gl } = this;
    const scale = [(2 * view.scale) / view.width, (2 * view.scale) / view.height];
    gl.viewport(0, 0, gl.drawingBufferWidth, gl.drawingBufferHeight);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (this.hung && back > 0) {
      const { made, at, of } = this.picture;
      gl.useProgram(made);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.square);
      gl.enableVertexAttribArray(of("corner"));
      gl.vertexAttribPointer(of("corner"), 2, gl.FLOAT, false, 0, 0);
      gl.uniform2f(at("middle"), view.x, view.y);
      gl.uniform2f(at("scale"), ...scale);
      gl.uniform1f(at("alpha"), back);
      gl.uniform1i(at("picture"), 1);
      gl.drawArrays(gl.TRIANGLE_STRIP, 0, 4);
      gl.disableVertexAttribArray(of("corner"));
    }
    const { made, at, of } = this.points;
    gl.useProgram(made);
    gl.uniform2f(at("middle"), view.x, view.y);
    gl.uniform2f(at("scale"), ...scale);
    gl.uniform1i(at("palette"), 0);
    const points = (type, colours, xs, ys, cs) => {
      for (const [name, kind, offset] of [["x", type, xs], ["y", type, ys], ["c", colours, cs]]) {
        gl.enableVertexAttribArray(of(name));
        gl.vertexAttribPointer(of(name), 1, kind, false, 0, offset);
      }
    };
    const style = (row, diameter, opacity) => {
      gl.uniform1f(at("row"), row);
      gl.uniform1f(at("size"), diameter * ratio);
      gl.uniform1f(at("alpha"), opacity);
    };
    style(0.25, size, alpha);
    for (const { tile, draw } of drawn) {
      tile.onDevice ??= this.upload(tile);
      gl.bindBuffer(gl.ARRAY_BUFFER, tile.onDevice);
      points(gl.UNSIGNED_SHORT, gl.UNSIGNED_BYTE, 16, 16 + 2 * tile.n, 16 + 8 * tile.n);
      gl.drawArrays(gl.POINTS, 0, draw);
    }
    if (this.marked.n) {
      const { n } = this.marked;
      style(0.75, markSize, 1);
      gl.bindBuffer(gl.ARRAY_BUFFER, this.marked.buffer);
      points(gl.FLOAT, gl.FLOAT, 0, 4 * n, 8 * n);
      gl.drawArrays(gl.POINTS, 0, n);
    }
    for (const name of ["x", "y", "c"]) gl.disableVertexAttribArray(of(name)); // a tile's buffer may go meanwhile
  }

  upload(tile) {
    const { gl } = this;
    const buffer = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    gl.bufferData(gl.ARRAY_BUFFER, tile.buffer, gl.STATIC_DRAW);
    return buffer;
  }
}
