// Images of some of the selected particles.

import { getReply } from "./api.js";

const NUM_SHOWN = 24;

/** Some of the particles of a mask, picked at random, all with the same chance. */
export function sample(mask, wanted) {
  const picked = [];
  let seen = 0;
  for (let i = 0; i < mask.length; i++) {
    if (!mask[i]) continue;
    if (seen++ < wanted) picked.push(i);
    else {
      const place = Math.floor(Math.random() * seen);
      if (place < wanted) picked[place] = i;
    }
  }
  return picked;
}

export class Gallery {
  constructor(element, clicked) { this.element = element; this.clicked = clicked; this.particles = []; this.asked = 0; }

  choose(mask) { this.particles = sample(mask, NUM_SHOWN); }

  async show(smoothing) {
    const ticket = ++this.asked, particles = this.particles;
    if (!particles.length) { this.element.replaceChildren(); return; }
    const reply = await getReply(`api/images?particles=${particles.join(",")}&smoothing=${smoothing}`);
    const side = Number(reply.headers.get("X-Box-Size")), grey = new Uint8Array(await reply.arrayBuffer());
    if (ticket !== this.asked) return;
    this.element.replaceChildren(...particles.map((particle, number) => {
      const button = document.createElement("button"), canvas = document.createElement("canvas");
      button.title = "Show its volume";
      button.setAttribute("aria-label", `Show the volume of picture ${number + 1}`);
      button.addEventListener("click", () => this.clicked(particle));
      canvas.width = canvas.height = side;
      const context = canvas.getContext("2d"), image = context.createImageData(side, side);
      for (let i = 0; i < side * side; i++) {
        image.data.fill(grey[number * side * side + i], 4 * i, 4 * i + 3);
        image.data[4 * i + 3] = 255;
      }
      context.putImageData(image, 0, 0);
      button.append(canvas);
      return button;
    }));
  }
}
