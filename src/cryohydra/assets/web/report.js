"use strict";
// The page: surfaces that turn together, the plot of particles, films of projections.
document.documentElement.classList.add("scripted");
const data = JSON.parse(document.getElementById("data").textContent);
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const el = (id) => document.getElementById(id);

/** All classes as surfaces: one level, one side, one state for all. */
class Structures {
  constructor(content, painter) {
    this.scale = content.scale;
    this.painter = painter;
    this.turn = new Float32Array([1, 0, 0, 0, 1, 0, 0, 0, 1]);
    this.magnification = 1;
    this.motion = "";
    this.state = 0;
    this.timer = null;
    this.panels = content.classes.map((known) => {
      const figure = document.querySelector(`.structure[data-class="${known.index}"]`);
      const rgb = [1, 3, 5].map((k) => parseInt(known.colour.slice(k, k + 2), 16) / 255);
      const note = figure.querySelector("figcaption .quiet");
      return { ...known, figure, rgb, note, size: note.textContent, canvas: figure.querySelector("canvas"), isSeen: false, volumes: {}, meshes: new Map() };
    });
    this.listen();
    const observer = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const panel = this.panels.find((one) => one.figure === entry.target);
        panel.isSeen = entry.isIntersecting;
        if (panel.isSeen) this.refresh(panel);
        else this.forget(panel);
      }
      if (!this.panels.some((panel) => panel.isSeen)) this.stop();
    }, { rootMargin: "120px" });
    for (const panel of this.panels) observer.observe(panel.figure);
    addEventListener("resize", () => this.refreshAll());
  }

  /** What a panel shows of the chosen motion; a class without it stands still. */
  seriesOf(panel) {
    return panel.series.find((one) => one.name === this.motion) || panel.series[0];
  }

  get numStates() {
    return Math.max(...this.panels.map((panel) => this.seriesOf(panel).count));
  }

  listen() {
    const { lowest, highest, level } = this.scale;
    // Even steps of the slider are even steps of the logarithm: as fine for weak as for strong density.
    const reach = Math.log(0.95 * highest / lowest);
    const showLevel = (chosen) => {
      this.level = chosen;
      for (const panel of this.panels) this.forget(panel);
      this.refreshAll();
    };
    const setLevel = () => {
      el("level").value = Math.round(1000 * Math.log(level / lowest) / reach);
      showLevel(level);
    };
    el("level").addEventListener("input", () => showLevel(lowest * Math.exp(reach * el("level").value / 1000)));
    el("zoom").addEventListener("input", () => {
      this.magnification = 2 ** (Number(el("zoom").value) / 100);
      this.refreshAll();
    });
    const names = [...new Set(this.panels.flatMap((panel) => panel.series.map((one) => one.name)))];
    el("motion").append(...names.map((name) => new Option(name)));
    el("motion-choice").hidden = names.length < 3;
    el("motion").addEventListener("change", () => this.chooseMotion(el("motion").value));
    el("state").addEventListener("input", () => {
      this.stop();
      this.show(Number(el("state").value));
    });
    el("play").addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    el("reset").addEventListener("click", () => {
      this.turn = new Float32Array([1, 0, 0, 0, 1, 0, 0, 0, 1]);
      this.magnification = 1;
      el("zoom").value = 0;
      setLevel();
    });
    setLevel();
    for (const panel of this.panels) this.listenTo(panel);
    this.chooseMotion(names[Math.min(1, names.length - 1)]);
  }

  listenTo(panel) {
    const { canvas } = panel;
    const turnBy = (dx, dy) => {
      this.turn = turnedBy(this.turn, dx, dy);
      this.refreshAll();
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      panel.from = [event.clientX, event.clientY];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!panel.from || !event.buttons) return;
      const reach = canvas.clientHeight / 2;
      turnBy((event.clientX - panel.from[0]) / reach, (event.clientY - panel.from[1]) / reach);
      panel.from = [event.clientX, event.clientY];
    });
    for (const kind of ["pointerup", "pointercancel"]) canvas.addEventListener(kind, () => { panel.from = null; });
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] }[event.key];
      if (!by) return;
      event.preventDefault();
      turnBy(...by);
    });
    const button = panel.figure.querySelector(".enlarge");
    button.addEventListener("click", () => {
      const isLarge = panel.figure.classList.toggle("large");
      button.setAttribute("aria-pressed", isLarge);
      this.refreshAll();
      if (isLarge) panel.figure.scrollIntoView({ block: "nearest" });
    });
  }

  chooseMotion(name) {
    this.stop();
    this.motion = el("motion").value = name;
    for (const panel of this.panels) this.forget(panel);
    const last = this.numStates - 1;
    el("state-choice").hidden = last === 0;
    el("play").hidden = last === 0;
    el("state").max = last;
    this.show(Math.floor(last / 2));
  }

  show(state) {
    this.state = state;
    el("state").value = state;
    el("state-shown").textContent = `${state + 1} of ${this.numStates}`;
    this.refreshAll();
  }

  play() {
    let step = 1;
    el("play").textContent = "Pause";
    el("play").setAttribute("aria-pressed", "true");
    this.timer = setInterval(() => {
      if (this.state + step < 0 || this.state + step >= this.numStates) step = -step;
      this.show(this.state + step);
    }, 140);
  }

  stop() {
    clearInterval(this.timer);
    this.timer = null;
    el("play").textContent = "Play";
    el("play").setAttribute("aria-pressed", "false");
  }

  refreshAll() {
    el("level-shown").textContent = this.level.toPrecision(3);
    if (this.isAsked) return;
    this.isAsked = true;
    requestAnimationFrame(() => {
      this.isAsked = false;
      for (const panel of this.panels) if (panel.isSeen) this.refresh(panel);
    });
  }

  /** Free a panel's surfaces; its picture stays. */
  forget(panel) {
    for (const mesh of panel.meshes.values()) this.painter.unload(mesh);
    panel.meshes.clear();
  }

  async refresh(panel) {
    const { scale } = this;
    const { name, labels, count, payload } = this.seriesOf(panel);
    const state = Math.min(this.state, count - 1);
    panel.note.textContent = labels[state] ?? panel.size;
    panel.volumes[name] ??= inflate(payload);
    const bytes = await panel.volumes[name];
    if (!panel.isSeen) return;
    const key = `${name} ${state}`;
    if (!panel.meshes.has(key)) {
      const voxels = scale.size ** 3;
      const level = 255 * (this.level - scale.lowest) / (scale.highest - scale.lowest);
      const volume = bytes.subarray(state * voxels, (state + 1) * voxels);
      panel.meshes.set(key, this.painter.load(surfaceOf(volume, scale.size, level)));
    }
    panel.canvas.hidden = false;
    const zoom = this.magnification * 2 / scale.size;
    this.painter.draw([{ loaded: panel.meshes.get(key), paint: panel.rgb, opacity: 1 }], panel.canvas, this.turn, zoom);
    panel.figure.dataset.triangles = panel.meshes.get(key).count / 3;
  }
}

/** The plot of particles and its four choices. */
async function plotParticles(content) {
  const raw = new DataView((await inflate(content.payload)).buffer);
  const columns = content.names.map((name, place) => {
    const [low, high] = content.ranges[place];
    const names = content.categories[place].length ? content.categories[place] : null;
    const values = new Float32Array(content.count);
    for (let row = 0; row < content.count; row++) {
      const step = raw.getUint16(2 * (place * content.count + row), true);
      values[row] = step === 65535 ? NaN : low + (high - low) * step / 65534;
    }
    if (names) values.forEach((value, row) => { values[row] = Math.round(value); });
    return { key: content.keys[place], name, values, names, colours: content.colours[place] };
  });
  const classes = columns.find((column) => column.key === "class");
  const says = (row) => columns.filter((column) => Number.isFinite(column.values[row])).map((column) => {
    const value = column.values[row];
    if (column.names) return column.names[value];
    return `${column.name}: ${column.key === "particle" ? Math.round(value) : shortNumber(value)}`;
  });
  const scatter = new Scatter(el("scatter"), el("tip"), says);
  const everything = Array.from({ length: content.count }, (_, row) => row);
  const options = () => columns.map((column, place) => new Option(column.name, place));
  el("plot-class").append(new Option("All", -1), ...classes.names.map((name, place) => new Option(name, place)));
  for (const id of ["plot-x", "plot-y", "plot-colour"]) el(id).append(...options());
  const place = (...keys) => Math.max(0, columns.findIndex((column) => column.key === keys.find((key) => content.keys.includes(key))));
  el("plot-x").value = place("umap_0", "pc_0", "z_0", "angle_rot");
  el("plot-y").value = place("umap_1", "pc_1", "defocus", "angle_tilt");
  el("plot-colour").value = place("class");
  const draw = () => {
    const [x, y, colour] = ["plot-x", "plot-y", "plot-colour"].map((id) => columns[el(id).value]);
    const chosen = Number(el("plot-class").value);
    const rows = chosen < 0 ? everything : everything.filter((row) => classes.values[row] === chosen);
    showKey(colour, scatter.show(x, y, colour, rows));
    el("scatter").dataset.points = scatter.points.length;
  };
  for (const id of ["plot-class", "plot-x", "plot-y", "plot-colour"]) el(id).addEventListener("change", draw);
  draw();
  addEventListener("resize", () => scatter.redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => scatter.redraw());
}

/** What the colours of the plot mean. */
function showKey(column, range) {
  const parts = [];
  if (column.names) {
    column.names.forEach((name, place) => {
      const part = document.createElement("span");
      part.className = "key-name";
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.setProperty("--paint", column.colours[place]);
      part.append(swatch, name);
      parts.push(part);
    });
  } else {
    const bar = document.createElement("span");
    bar.className = "key-bar";
    bar.style.background = `linear-gradient(90deg, ${VIRIDIS.join(", ")})`;
    parts.push(column.name, shortNumber(range[0]), bar, shortNumber(range[1]));
  }
  el("key").replaceChildren(...parts.map((part) => {
    if (typeof part !== "string") return part;
    const span = document.createElement("span");
    span.textContent = part;
    return span;
  }));
}

/** Projections of a series of volumes to page through. */
function playFilm(film) {
  const frames = [...film.querySelectorAll(".frames img")];
  const slider = film.querySelector("input");
  const button = film.querySelector("button");
  let timer = null;
  let step = 1;
  const show = (number) => {
    frames.forEach((frame, position) => frame.classList.toggle("shown", position === number));
    slider.value = number;
  };
  const stop = () => {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  };
  const play = () => {
    button.textContent = "Pause";
    timer = setInterval(() => {
      const number = Number(slider.value);
      if (number + step < 0 || number + step >= frames.length) step = -step;
      show(Math.min(Math.max(number + step, 0), frames.length - 1));
    }, 160);
  };
  button.addEventListener("click", () => (timer ? stop() : play()));
  slider.addEventListener("input", () => {
    stop();
    show(Number(slider.value));
  });
  show(0);
  // Films outside the window stand still.
  new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) stop();
      else if (!timer && !isCalm && frames.length > 1) play();
    }
  }).observe(film);
}

let painter = null;
try {
  painter = new SurfacePainter();
} catch {
  // Without WebGL the pictures stay.
}
if (painter) {
  document.documentElement.classList.add("turnable");
  document.querySelector(".toolbar").hidden = false;
  new Structures(data.structures, painter);
}
plotParticles(data.particles);
document.querySelectorAll(".film").forEach(playFilm);
const openTarget = () => {
  const target = location.hash && document.querySelector(location.hash);
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", openTarget);
openTarget();
