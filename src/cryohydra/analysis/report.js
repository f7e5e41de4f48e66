"use strict";
document.documentElement.classList.add("scripted");
const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
for (const film of document.querySelectorAll(".film")) {
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
const openTarget = () => {
  const target = location.hash && document.querySelector(location.hash);
  if (target instanceof HTMLDetailsElement) target.open = true;
};
addEventListener("hashchange", openTarget);
openTarget();
