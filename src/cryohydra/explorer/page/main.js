// The explorer's page: what is shown, what is selected, and who is told when either changes.

import { follow, getBytes, getColumn, getJson, part, postBytes, postNothing } from "./api.js";
import { colourPoints } from "./colours.js";
import { fillCrosstab, fillLegend } from "./tables.js";
import { Film } from "./film.js";
import { Gallery } from "./gallery.js";
import { Threshold } from "./histogram.js";
import { combine, count, invert, pack, unpack } from "./masks.js";
import { Scatter } from "./scatter.js";
import { spreadCategories } from "./strips.js";
import { Viewer } from "./volume.js";

const element = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en-US");
const MOST_UNDONE = 20;
const MOST_PREPARED = 4; // classes: as many as the server remembers

const state = { run: null, origins: new Map(), columns: new Map(), classShown: null, steps: [], past: [], path: [], picked: -1 };
let n = 0, shown, selected, scatter, threshold, viewer, film, gallery;

// ---- Quantities: each is named "origin/key" in the lists ----

async function origin(key) {
  if (!state.origins.has(key)) state.origins.set(key, await getJson(`api/origins/${key}`));
  return state.origins.get(key);
}

async function column(name) {
  if (!state.columns.has(name)) {
    const [key, quantity] = name.split("/");
    state.columns.set(name, await getColumn(`api/origins/${key}/columns/${part(quantity)}`));
  }
  return state.columns.get(name);
}

function quantity(name) {
  const [key, wanted] = name.split("/");
  return state.origins.get(key).quantities.find((one) => one.key === wanted);
}

const active = () => element("origin").value;
const classes = () => column(`${active()}/class`);

// ---- What is shown ----

async function fillLists() {
  const compared = element("compare").value, offered = [];
  for (const key of new Set([active(), compared].filter(Boolean))) {
    const told = await origin(key), prefix = key === active() ? "" : `${state.run.origins.find((one) => one.key === key).name}: `;
    for (const one of told.quantities) if (!prefix || one.group !== "Input") offered.push([`${prefix}${one.group}`, `${key}/${one.key}`, `${prefix}${one.name}`]);
  }
  const has = (name) => offered.some(([, value]) => value === name);
  const own = (...keys) => keys.map((key) => `${active()}/${key}`).find(has);
  const begin = { x: own("pc_0", "z_0", "log_evidence"), y: own("pc_1", "class"), colour: own(state.run.colour_by, "class"), threshold: own("certainty") };
  for (const id of ["x", "y", "colour", "threshold"]) {
    // After a change of epoch the same quantity stays chosen.
    const before = element(id).value.split("/")[1], groups = new Map();
    for (const [group, value, text] of offered) {
      if (!groups.has(group)) groups.set(group, Object.assign(document.createElement("optgroup"), { label: group }));
      groups.get(group).append(new Option(text, value));
    }
    element(id).replaceChildren(...groups.values());
    element(id).value = (before && own(before)) || begin[id];
  }
}

async function fillClasses() {
  const told = await origin(active()), values = await classes(), counts = new Array(told.num_classes).fill(0);
  for (const value of values) if (value === value) counts[value]++;
  const chip = (index, name, colour, size) => {
    const button = document.createElement("button");
    button.setAttribute("aria-pressed", state.classShown === index);
    if (colour) button.append(Object.assign(document.createElement("span"), { className: "dot", style: `background:${colour}` }));
    button.append(`${name} `, Object.assign(document.createElement("span"), { className: "count", textContent: number(size) }));
    button.addEventListener("click", () => { state.classShown = index; showClass().catch(alarm); });
    return button;
  };
  element("classes").replaceChildren(chip(null, "All", null, n), ...counts.map((size, index) => chip(index, `class ${index}`, told.class_colours[index], size)));
}

async function showClass() {
  await fillClasses();
  // Of one class, its states; of all, the classes: unless another colour was chosen.
  const [plain, states] = ["class", "state"].map((key) => `${active()}/${key}`), [from, to] = state.classShown === null ? [states, plain] : [plain, states];
  if (element("colour").value === from && quantity(to)) element("colour").value = to;
  await plot(true);
  setTimeout(prepareVolumes); // the points come first
}

/** Before a volume of the classes that are shown is asked for; what goes wrong is told when it is. */
async function prepareVolumes() {
  const origin = active(), chosen = state.classShown, { num_classes } = state.origins.get(origin);
  const likely = chosen === null ? Array.from({ length: Math.min(num_classes, MOST_PREPARED) }, (_, index) => index) : [chosen];
  try {
    viewer.prepare();
    await column(`${origin}/particle`); // its numbers are said beside the volume
    for (const index of likely) if (origin === active() && chosen === state.classShown) await film.prepare(origin, index);
  } catch { /* told later */ }
}

/** Read what the axes and colours need, and draw. */
async function plot(fits) {
  const names = ["x", "y", "colour"].map((id) => element(id).value);
  const [x, y, colour, ofClass] = await Promise.all([...names.map(column), classes()]);
  const [qx, qy, qc] = names.map(quantity);
  shown = new Uint8Array(n);
  for (let i = 0; i < n; i++) shown[i] = (state.classShown === null || ofClass[i] === state.classShown) && x[i] === x[i] && y[i] === y[i] ? 1 : 0;
  scatter.setPoints(spreadCategories(x, qx, y, qy), spreadCategories(y, qy, x, qx), qx.categories, qy.categories);
  scatter.shown = shown; scatter.selected = selected;
  scatter.colours = colourPoints(colour, qc, shown);
  if (fits) scatter.fit(); else scatter.draw();
  // The classes above the plot tell the colours of classes already.
  element("legend").hidden = element("colour").value === `${active()}/class`;
  fillLegend(element("legend"), qc, colour, scatter.colours.range, (category, event) => {
    select(colour.map((value, i) => Number(shown[i] && value === category)), mode(event), `${qc.name} is ${qc.categories[category]}${shownWords()}`);
  });
  await compareClasses();
  refresh();
}

// ---- What is selected ----

function mode(event) {
  if (event?.shiftKey) return "or";
  if (event?.altKey) return "not";
  return document.querySelector("input[name=mode]:checked").value;
}

/** Combine the selection with what was picked; `words` say what that was. */
function select(picked, how, words) {
  state.past.push([selected, state.steps]);
  if (state.past.length > MOST_UNDONE) state.past.shift();
  selected = combine(how, selected, picked);
  const joint = { new: "", or: "or ", and: "and ", not: "and not " }[how];
  state.steps = how === "new" ? [words] : [...state.steps, joint + words];
  refresh();
  scatter.draw();
}

/** Tell everyone what is selected now. */
function refresh() {
  const total = count(selected);
  scatter.selected = selected; scatter.numSelected = total;
  element("selected-count").textContent = number(total);
  element("selected-of").textContent = `of ${number(n)} selected`;
  element("undo").disabled = !state.past.length;
  element("save-button").disabled = element("export-button").disabled = !total;
  threshold.refresh(shown, selected);
  countThreshold();
  element("nav-select").textContent = total ? `Select · ${number(total)}` : "Select";
  element("hint").textContent = total || state.picked >= 0 || state.path.length ? "" : "Drag around particles to select them. Click one to see its volume.";
  showGallery();
  document.body.dataset.selected = total;
}

function shownWords() { return state.classShown === null ? "" : ` of class ${state.classShown}`; }

function lassoed(picked, event) {
  const words = `drawn around in ${quantity(element("x").value).name} / ${quantity(element("y").value).name}${shownWords()}`;
  select(picked, mode(event), words);
}

function undo() {
  [selected, state.steps] = state.past.pop();
  refresh();
  scatter.draw();
}

// ---- Thresholds ----

async function showThreshold() {
  const name = element("threshold").value;
  threshold.show(await column(name), quantity(name), shown, selected);
}

function countThreshold() {
  if (shown && threshold.values) element("threshold-count").textContent = `${number(count(threshold.picked(shown).mask))} shown`;
}

// ---- Classes of two epochs or runs ----

async function compareClasses() {
  const key = element("compare").value;
  element("comparison").hidden = !key;
  if (!key) return;
  const [rows, columns] = await Promise.all([active(), key].map(origin)), [a, b] = await Promise.all([`${active()}/class`, `${key}/class`].map(column));
  const name = (wanted) => state.run.origins.find((one) => one.key === wanted).name;
  element("rows-are").textContent = name(active());
  element("columns-are").textContent = name(key);
  const counts = Array.from({ length: rows.num_classes }, () => new Array(columns.num_classes).fill(0));
  for (let i = 0; i < n; i++) if (a[i] === a[i] && b[i] === b[i]) counts[a[i]][b[i]]++;
  fillCrosstab(element("crosstab"), counts, (i, j, event) => {
    select(a.map((value, p) => Number(value === i && b[p] === j)), mode(event), `class ${i} in ${name(active())} and class ${j} in ${name(key)}`);
  });
}

// ---- Saved selections ----

function listSelections(selections) {
  element("selections").replaceChildren(...selections.map((one) => {
    const item = document.createElement("li");
    const use = Object.assign(document.createElement("button"), { className: "name", textContent: `${one.name} · ${number(one.count)}`, title: one.about });
    const send = Object.assign(document.createElement("button"), { textContent: "Export", title: "For RELION and cryoSPARC" });
    const away = Object.assign(document.createElement("button"), { textContent: "×", title: "Move out of this list, to explorer/old" });
    away.setAttribute("aria-label", `Remove ${one.name}`);
    use.addEventListener("click", (event) => useSelection(one.name, mode(event)).catch(alarm));
    send.addEventListener("click", () => exportSelection(one.name, send).catch(alarm));
    away.addEventListener("click", () => removeSelection(one.name).catch(alarm));
    item.append(use, send, away);
    return item;
  }));
}

async function useSelection(name, how) {
  select(unpack(await getBytes(`api/selections/${part(name)}`), n), how, `"${name}"`);
}

async function saveSelection() {
  const name = element("save-name").value.trim(), about = state.steps.join(" ");
  const told = await postBytes(`api/selections/${part(name)}?about=${part(about)}`, pack(selected));
  listSelections(told.selections);
  element("saved").textContent = `Saved ind.pkl and ind_inverse.pkl in ${told.saved}`;
}

async function exportSelection(name, button) {
  button.disabled = true;
  element("saved").textContent = `Exporting ${name} …`;
  try {
    const folder = await follow(await postNothing(`api/selections/${part(name)}/export`), (sentence) => { element("saved").textContent = sentence; });
    element("saved").textContent = `Exported to ${folder}`;
  } catch (error) {
    element("saved").textContent = "";
    throw error;
  } finally { button.disabled = false; }
}

async function removeSelection(name) {
  const told = await (await postNothing(`api/selections/${part(name)}/remove`)).json();
  listSelections(told.selections);
}

// ---- Volumes and films ----

async function clicked(particle) {
  const ofClass = await classes(), index = ofClass[particle];
  if (index !== index) return;
  if (scatter.tool === "path") {
    if (state.path.length && ofClass[state.path[0]] !== index) state.path = [];
    state.path.push(particle);
    await showPath(element("way").value, Number(element("frames").value));
    return;
  }
  state.path = []; state.picked = particle;
  if (matchMedia("(max-width: 720px)").matches) showPanel("volume");
  await showVolumes([particle], index, "particles", 1);
}

/** A way drawn by hand: the particles nearest to it, of the class of the first. */
async function drawn(line) {
  const ofClass = await classes(), wanted = Number(element("frames").value), along = [0];
  for (let i = 1; i < line.length; i++) along.push(along[i - 1] + Math.hypot(line[i][0] - line[i - 1][0], line[i][1] - line[i - 1][1]));
  const first = scatter.nearest(line[0], Infinity);
  state.path = [];
  for (let f = 0; f < wanted; f++) {
    const at = (f / (wanted - 1)) * along.at(-1), i = Math.max(1, along.findIndex((length) => length >= at));
    const share = (at - along[i - 1]) / (along[i] - along[i - 1]);
    const found = scatter.nearest([0, 1].map((a) => line[i - 1][a] + share * (line[i][a] - line[i - 1][a])), Infinity, (p) => ofClass[p] === ofClass[first]);
    if (found >= 0 && found !== state.path.at(-1)) state.path.push(found);
  }
  await showPath("particles", wanted);
}

async function showPath(kind, frames) {
  if (!state.path.length) return;
  state.picked = state.path[0];
  const index = (await classes())[state.path[0]], isWay = state.path.length > 1;
  await showVolumes(state.path, index, isWay ? kind : "particles", isWay ? frames : 1);
}

async function showVolumes(particles, index, kind, frames) {
  const told = await origin(active()), numbers = await column(`${active()}/particle`);
  scatter.marks = particles;
  scatter.drawOverlay();
  const what = particles.length > 1 ? `${particles.length} points on the way` : `particle ${numbers[particles[0]]} of the file`;
  element("volume-of").textContent = `class ${index}, ${what}`;
  element("hint").textContent = "";
  await film.show(active(), index, told.class_colours[index], particles, kind, frames);
}

function clearPath() {
  state.path = []; scatter.marks = [];
  scatter.drawOverlay();
}

// ---- Particles ----

let galleryWaits = null;

/** Not at once: while a lasso is drawn or a slider moved, only the last selection counts. */
function showGallery() {
  clearTimeout(galleryWaits);
  galleryWaits = setTimeout(() => chooseParticles().catch(alarm), 150);
}

async function chooseParticles() {
  const total = Number(document.body.dataset.selected);
  gallery.choose(total ? selected : shown);
  element("particles-of").textContent = total ? `some of ${number(total)} selected` : "some of those shown";
  if (state.run.has_images) await gallery.show(element("smoothing").value);
}

// ---- Wiring ----

/** Which panel a narrow window shows. */
function showPanel(name) {
  document.body.dataset.panel = name;
  for (const button of document.querySelectorAll("nav button")) button.setAttribute("aria-pressed", button.dataset.panel === name);
}

function alarm(error) {
  const box = element("alarm");
  box.textContent = error.message;
  box.hidden = false;
  clearTimeout(box.timer);
  box.timer = setTimeout(() => { box.hidden = true; }, 12000);
  element("volume-said").textContent = "";
}

const on = (id, kind, act) => element(id).addEventListener(kind, (event) => { Promise.resolve(act(event)).catch(alarm); });

function wire() {
  for (const id of ["x", "y"]) on(id, "change", () => plot(true));
  on("colour", "change", () => plot(false));
  on("threshold", "change", showThreshold);
  on("origin", "change", async () => { state.classShown = null; clearPath(); await fillLists(); await showClass(); await showThreshold(); });
  on("compare", "change", async () => { await fillLists(); await plot(false); });
  on("select-all", "click", (event) => select(shown.slice(), mode(event), `all shown${shownWords()}`));
  on("select-none", "click", () => select(new Uint8Array(n), "new", "none"));
  on("invert", "click", () => select(invert(selected, shown), "new", `the others${shownWords()} of (${state.steps.join(" ")})`));
  on("undo", "click", undo);
  on("apply-threshold", "click", (event) => { const { mask, words } = threshold.picked(shown); select(mask, mode(event), words + shownWords()); });
  on("save", "submit", (event) => { event.preventDefault(); return saveSelection(); });
  on("export-button", "click", async (event) => {
    if (!element("save").reportValidity()) return;
    await saveSelection();
    await exportSelection(element("save-name").value.trim(), event.target);
  });
  on("level", "input", () => { element("level-value").textContent = `${Number(element("level").value).toFixed(1)} σ`; viewer.setLevel(Number(element("level").value)); });
  on("pin", "click", () => element("pin").setAttribute("aria-pressed", viewer.pin()));
  for (const id of ["way", "frames"]) on(id, "change", () => showPath(element("way").value, Number(element("frames").value)));
  on("clear-path", "click", clearPath);
  on("more-particles", "click", chooseParticles);
  on("smoothing", "input", () => gallery.show(element("smoothing").value));
  on("fit", "click", () => scatter.fit());
  on("alarm", "click", () => { element("alarm").hidden = true; });
  for (const button of document.querySelectorAll("[data-tool]")) if (button.tagName === "BUTTON") button.addEventListener("click", () => {
    scatter.tool = element("scatter").dataset.tool = button.dataset.tool;
    for (const other of document.querySelectorAll("button[data-tool]")) other.setAttribute("aria-pressed", other === button);
    element("hint").textContent = button.dataset.tool === "path" ? "Click two or more particles of a class, or draw a line, for a film of what lies between." : "";
  });
  for (const button of document.querySelectorAll("nav button")) button.addEventListener("click", () => showPanel(button.dataset.panel));
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && state.past.length && event.target.tagName !== "INPUT") { event.preventDefault(); undo(); }
  });
}

async function begin() {
  state.run = await getJson("api/run");
  n = state.run.num_particles;
  selected = new Uint8Array(n);
  element("run-name").textContent = document.title = `${state.run.name} · Hydra explorer`;
  element("origin").append(...state.run.origins.map((one) => new Option(one.name, one.key)));
  element("compare").append(...state.run.origins.map((one) => new Option(one.name, one.key)));
  element("save-movie").textContent = `Save ${state.run.movie_suffix}`;
  element("notes").append(...state.run.notes.map((note) => Object.assign(document.createElement("p"), { textContent: note })));
  element("particles-said").textContent = state.run.has_images ? "" : "The images could not be opened; the note under Selection says why.";
  listSelections(state.run.selections);
  scatter = new Scatter(element("scatter"), element("overlay"), { lasso: lassoed, click: (i) => clicked(i).catch(alarm), line: (points) => drawn(points).catch(alarm) });
  threshold = new Threshold(countThreshold);
  viewer = new Viewer(element("viewer"));
  film = new Film(viewer, alarm);
  gallery = new Gallery(element("gallery"), (particle) => clicked(particle).catch(alarm));
  wire();
  await fillLists();
  await showClass();
  performance.mark("first-draw");
  const preselected = unpack(await getBytes("api/preselected"), n);
  if (count(preselected)) select(preselected, "new", "given with --plot-inds");
  await showThreshold();
  document.body.dataset.ready = "yes";
}

begin().catch(alarm);
