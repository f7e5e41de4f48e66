// The volume of a particle, or a film of volumes along a way past several.

import { follow, part, post, postBytes } from "./api.js";
import { asDensity } from "./volume.js";

const QUICK = 16; // Fourier pixels: a first look, while the full volume is drawn
const FINEST = 64;
const FRAMES_PER_SECOND = 6;
const element = (id) => document.getElementById(id);

export class Film {
  /** `alarms` is told what went wrong. */
  constructor(viewer, alarms) {
    this.viewer = viewer; this.alarms = alarms; this.ticket = 0; this.frames = []; this.conformations = []; this.at = 0;
    element("play").addEventListener("click", () => this.play());
    element("frame").addEventListener("input", () => this.goTo(Number(element("frame").value)));
    element("save-volumes").addEventListener("click", () => this.saveVolumes().catch(alarms));
    element("save-movie").addEventListener("click", () => this.saveMovie().catch(alarms));
  }

  /** Have the network's work on a class that holds for all its conformations done before one is asked for. */
  async prepare(origin, classIndex) {
    for (const finest of [QUICK, FINEST]) await post(`api/origins/${origin}/prepare`, { class_index: classIndex, finest });
  }

  /** Draw a class past particles of its own: one volume for one particle. */
  async show(origin, classIndex, colour, particles, kind, count) {
    const ticket = ++this.ticket;
    this.stop();
    Object.assign(this, { origin, classIndex, colour });
    element("volume-said").textContent = "The network is drawing …";
    const way = await post(`api/origins/${origin}/way`, { class_index: classIndex, particles, kind, count });
    const { conformations } = await way.json();
    if (ticket !== this.ticket) return;
    this.conformations = conformations; this.frames = []; this.at = 0;
    element("film").hidden = conformations.length < 2;
    element("save-movie").hidden = conformations.length < 2;
    element("keep").hidden = false;
    element("viewer-hint").hidden = true;
    const begun = performance.now();
    // The network draws the next volume while the browser finds the surface of this one.
    let coming = null;
    const ahead = (i) => { coming = this.draw(i, FINEST); coming.catch(() => {}); return coming; };
    if (conformations.length === 1 && conformations[0].length) {
      const quick = await this.draw(0, QUICK);
      if (ticket !== this.ticket) return;
      ahead(0);
      this.viewer.show(quick, colour);
      element("viewer").dataset.looked = ticket;
    }
    for (let i = 0; i < conformations.length; i++) {
      const frame = await (coming ?? ahead(i));
      if (ticket !== this.ticket) return;
      coming = null;
      if (i + 1 < conformations.length) ahead(i + 1);
      this.frames.push(frame);
      if (i === 0) this.goTo(0);
      this.tellFrame();
      if (conformations.length > 1) element("volume-said").textContent = `${i + 1} of ${conformations.length} volumes drawn`;
    }
    element("pin").disabled = false;
    element("volume-said").textContent = conformations.length > 1 ? "" : `Drawn in ${((performance.now() - begun) / 1000).toFixed(1)} s.`;
    element("viewer").dataset.drawn = ticket;
    if (conformations.length > 1) this.play();
  }

  async draw(i, finest) {
    const reply = await post(`api/origins/${this.origin}/volume`, { class_index: this.classIndex, conformation: this.conformations[i], finest });
    return asDensity(new Float32Array(await reply.arrayBuffer()));
  }

  goTo(i) {
    if (i >= this.frames.length) return;
    this.at = i;
    this.viewer.show(this.frames[i], this.colour);
    this.tellFrame();
  }

  tellFrame() {
    element("frame").max = this.conformations.length - 1;
    element("frame").value = this.at;
    element("frame-value").textContent = `${this.at + 1} / ${this.conformations.length}`;
  }

  play() {
    if (this.timer) { this.stop(); return; }
    let step = this.at >= this.frames.length - 1 ? -1 : 1;
    element("play").textContent = "❚❚";
    element("play").setAttribute("aria-label", "Pause");
    // Counted from the end of each frame, so that a slow machine plays slower and still hears clicks.
    const tick = () => {
      const begun = performance.now();
      if (this.frames.length > 1) {
        if (this.at + step < 0 || this.at + step >= this.frames.length) step = -step;
        this.goTo(this.at + step);
      }
      this.timer = setTimeout(tick, Math.max(1000 / FRAMES_PER_SECOND, 2 * (performance.now() - begun)));
    };
    this.timer = setTimeout(tick, 1000 / FRAMES_PER_SECOND);
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    element("play").textContent = "▶";
    element("play").setAttribute("aria-label", "Play");
  }

  async saveVolumes() {
    const name = element("volume-name").value.trim();
    // One level for all volumes, whichever of them plays just now.
    const level = this.viewer.level * (this.frames[0] ?? this.viewer.density).sigma;
    const content = { class_index: this.classIndex, conformations: this.conformations, name, level };
    const reply = await post(`api/origins/${this.origin}/volumes`, content);
    const saved = await follow(reply, (sentence) => { element("volume-said").textContent = sentence; });
    element("volume-said").textContent = `Saved in ${saved}`;
  }

  async saveMovie() {
    if (this.frames.length < this.conformations.length) throw new Error("The film is still being drawn; save it when it is complete.");
    this.stop();
    const pictures = this.frames.map((frame) => { this.viewer.show(frame, this.colour); return this.viewer.picture(); });
    const { width, height } = pictures[0], bytes = new Uint8Array(width * height * 3 * pictures.length);
    pictures.forEach((picture, i) => bytes.set(picture.pixels, i * width * height * 3));
    this.goTo(this.at);
    const query = `width=${width}&height=${height}&frames_per_second=${FRAMES_PER_SECOND}`;
    const { saved } = await postBytes(`api/movies/${part(element("volume-name").value.trim())}?${query}`, bytes);
    element("volume-said").textContent = `Saved ${saved}`;
  }
}
