"use strict";
// Iso-surfaces of small maps, drawn by one WebGL context for any number of pictures on the page.
// The report and the explorer both draw with it. No library: 3Dmol thresholds voxels before it triangulates, so its surfaces are staircases at 48 px and jump as the
// level moves; here corners are interpolated, and light falls along the density's own gradient.

/** The bytes of gzip in base64. */
async function inflate(base64) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/**
 * The surface of a cube of n^3 bytes (z slowest) at a level: vertices, normals and triangles, by surface nets.
 * Each cell that the surface crosses has one vertex, the mean of where it crosses the cell's edges; each edge it
 * crosses is a quadrangle between the four cells around. Positions are in voxels from the centre, at index n / 2.
 */
function surfaceOf(volume, n, level) {
  const cell = new Int32Array(n * n * n).fill(-1);
  const positions = [];
  const normals = [];
  const triangles = [];
  const step = [1, n, n * n];
  const corner = new Float32Array(8);
  const offset = [0, 1, n, n + 1, n * n, n * n + 1, n * n + n, n * n + n + 1];
  for (let z = 0; z < n - 1; z++) {
    for (let y = 0; y < n - 1; y++) {
      for (let x = 0; x < n - 1; x++) {
        const here = x + n * (y + n * z);
        let inside = 0;
        for (let c = 0; c < 8; c++) if ((corner[c] = volume[here + offset[c]] - level) > 0) inside |= 1 << c;
        if (inside === 0 || inside === 255) continue;
        let crossings = 0;
        const at = [0, 0, 0];
        for (let c = 0; c < 8; c++) {
          for (let axis = 0; axis < 3; axis++) {
            const other = c | (1 << axis);
            if (other === c || (inside >> c & 1) === (inside >> other & 1)) continue;
            const share = corner[c] / (corner[c] - corner[other]);
            for (let d = 0; d < 3; d++) at[d] += d === axis ? share : c >> d & 1;
            crossings++;
          }
        }
        const [u, v, w] = at.map((sum) => sum / crossings);
        cell[here] = positions.length / 3;
        positions.push(x + u - n / 2, y + v - n / 2, z + w - n / 2);
        // Downhill: the slopes along each axis, interpolated between the cell's edges.
        const slope = (a, b, c, d, s, t) => (1 - t) * ((1 - s) * a + s * b) + t * ((1 - s) * c + s * d);
        const nx = -slope(corner[1] - corner[0], corner[3] - corner[2], corner[5] - corner[4], corner[7] - corner[6], v, w);
        const ny = -slope(corner[2] - corner[0], corner[3] - corner[1], corner[6] - corner[4], corner[7] - corner[5], u, w);
        const nz = -slope(corner[4] - corner[0], corner[5] - corner[1], corner[6] - corner[2], corner[7] - corner[3], u, v);
        const length = Math.hypot(nx, ny, nz) || 1;
        normals.push(nx / length, ny / length, nz / length);
        for (let axis = 0; axis < 3; axis++) {
          const second = (axis + 1) % 3;
          const third = (axis + 2) % 3;
          const isInside = inside & 1;
          if (isInside === (inside >> (1 << axis) & 1)) continue;
          if ([x, y, z][second] === 0 || [x, y, z][third] === 0) continue;
          const a = cell[here];
          const b = cell[here - step[second]];
          const c = cell[here - step[second] - step[third]];
          const d = cell[here - step[third]];
          if (isInside) triangles.push(a, b, c, a, c, d);
          else triangles.push(a, c, b, a, d, c);
        }
      }
    }
  }
  return {
    positions: new Float32Array(positions), normals: new Float32Array(normals), triangles: new Uint32Array(triangles),
  };
}

const VERTEX_SHADER = `#version 300 es
in vec3 position; in vec3 normal; uniform mat3 turn; uniform float zoom; uniform vec2 aspect;
out vec3 facing; out float depth;
void main() {
  vec3 seen = turn * position * zoom;
  facing = turn * normal; depth = clamp(seen.z, -1.0, 1.0);
  gl_Position = vec4(seen.xy * aspect, -seen.z * 0.25, 1.0);
}`;
const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 facing; in float depth; uniform vec3 paint; uniform float opacity; out vec4 colour;
void main() {
  vec3 normal = normalize(facing);
  if (!gl_FrontFacing) normal = -normal;
  float light = max(dot(normal, vec3(-0.35, 0.55, 0.76)), 0.0);
  float shade = (0.42 + 0.58 * light) * (0.72 + 0.14 * (depth + 1.0)) * (0.8 + 0.2 * max(normal.z, 0.0));
  vec3 seen = (gl_FrontFacing ? paint : 0.6 * paint) * shade + 0.16 * pow(light, 24.0);
  colour = vec4(opacity * min(seen, 1.0), opacity);
}`;

/** Draws surfaces into ordinary canvases. */
class SurfacePainter {
  /** Throws if there is no WebGL. */
  constructor() {
    this.canvas = document.createElement("canvas");
    const gl = this.canvas.getContext("webgl2", { antialias: true, alpha: true, preserveDrawingBuffer: true });
    if (!gl) throw new Error("no WebGL");
    this.gl = gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    gl.useProgram(program);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.clearColor(0, 0, 0, 0);
    this.place = Object.fromEntries(
      ["turn", "zoom", "aspect", "paint", "opacity"].map((name) => [name, gl.getUniformLocation(program, name)])
    );
    this.inputs = ["position", "normal"].map((name) => gl.getAttribLocation(program, name));
  }

  /** A surface on the graphics card. */
  load(surface) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const buffers = [surface.positions, surface.normals].map((values, number) => {
      const buffer = gl.createBuffer();
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(this.inputs[number]);
      gl.vertexAttribPointer(this.inputs[number], 3, gl.FLOAT, false, 0, 0);
      return buffer;
    });
    const index = gl.createBuffer();
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, index);
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, surface.triangles, gl.STATIC_DRAW);
    return { array, buffers: [...buffers, index], count: surface.triangles.length };
  }

  /** Give a surface's memory back. */
  unload(loaded) {
    this.gl.deleteVertexArray(loaded.array);
    for (const buffer of loaded.buffers) this.gl.deleteBuffer(buffer);
  }

  /**
   * Draw surfaces into a canvas, as large as it is on the page: each {loaded, paint, opacity}, opaque ones first.
   * `turn` is a rotation matrix, column by column; `zoom` makes voxels into halves of the shorter side; paint is rgb.
   */
  draw(surfaces, target, turn, zoom) {
    const density = Math.min(window.devicePixelRatio || 1, 2);
    const width = Math.max(1, Math.round(target.clientWidth * density));
    const height = Math.max(1, Math.round(target.clientHeight * density));
    const { gl, canvas } = this;
    if (canvas.width < width || canvas.height < height) {
      canvas.width = Math.max(canvas.width, width);
      canvas.height = Math.max(canvas.height, height);
    }
    gl.viewport(0, canvas.height - height, width, height);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(this.place.turn, false, turn);
    gl.uniform1f(this.place.zoom, zoom);
    const shorter = Math.min(width, height);
    gl.uniform2f(this.place.aspect, shorter / width, shorter / height);
    for (const { loaded, paint, opacity } of surfaces) {
      gl.uniform3fv(this.place.paint, paint);
      gl.uniform1f(this.place.opacity, opacity);
      gl.bindVertexArray(loaded.array);
      // Of what is seen through, only the nearest layer: its depth is drawn before its colour.
      for (const isColour of opacity < 1 ? [false, true] : [true]) {
        gl.colorMask(isColour, isColour, isColour, isColour);
        gl.drawElements(gl.TRIANGLES, loaded.count, gl.UNSIGNED_INT, 0);
      }
    }
    target.width = width;
    target.height = height;
    target.getContext("2d").drawImage(canvas, 0, 0, width, height, 0, 0, width, height);
  }
}

/** The rotation by which a drag of (dx, dy) turns what `turn` (3 x 3, column by column) shows. */
function turnedBy(turn, dx, dy) {
  const angle = Math.hypot(dx, dy);
  if (angle === 0) return turn;
  const [kx, ky] = [dy / angle, dx / angle];
  const [c, s] = [Math.cos(angle), Math.sin(angle)];
  const by = [
    c + kx * kx * (1 - c), kx * ky * (1 - c), -ky * s,
    kx * ky * (1 - c), c + ky * ky * (1 - c), kx * s,
    ky * s, -kx * s, c,
  ];
  const product = new Float32Array(9);
  for (let column = 0; column < 3; column++) {
    for (let row = 0; row < 3; row++) {
      for (let k = 0; k < 3; k++) product[3 * column + row] += by[3 * k + row] * turn[3 * column + k];
    }
  }
  return product;
}
