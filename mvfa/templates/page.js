"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const config = { responsive: true, displayModeBar: false };
const MARKED = [255, 140, 0]; // the colours of the panels, in red, green, blue
const TRUE_MASK = [0, 225, 255];
const TINT = 0.35; // opacity of MARKED within the region

document.documentElement.classList.add("js");

// ---- tables: sorting and filtering

function key(row, column) {
  const cell = row.cells[column];
  if (!("value" in cell.dataset)) return cell.textContent;
  return cell.dataset.value === "" ? null : Number(cell.dataset.value);
}

function compare(a, b) {
  return typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
}

function sortBy(table, heading) {
  const column = heading.cellIndex;
  const sign = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row) => [key(row, column), row]);
  const present = rows.filter(([value]) => value !== null).sort(([a], [b]) => sign * compare(a, b));
  const absent = rows.filter(([value]) => value === null); // last, whichever the direction
  for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
  table.tBodies[0].append(...[...present, ...absent].map(([, row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading));
  }
  const filter = table.closest(".filtered").querySelector(".filter");
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/);
    for (const row of table.tBodies[0].rows) {
      const text = row.textContent.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
}

// ---- boxes that scroll sideways: a hint while something is hidden at the right

function hint(box) {
  const scroll = box.querySelector(".scroll");
  const hidden = scroll.scrollWidth - scroll.clientWidth;
  box.classList.toggle("overflows", hidden > 1);
  box.classList.toggle("at-end", scroll.scrollLeft >= hidden - 1);
}

const resized = new ResizeObserver((entries) => {
  for (const entry of entries) hint(entry.target.closest(".box"));
});
for (const box of document.querySelectorAll(".box")) {
  const scroll = box.querySelector(".scroll");
  scroll.addEventListener("scroll", () => hint(box), { passive: true });
  resized.observe(scroll);
  resized.observe(scroll.firstElementChild);
}

// ---- colours: those of the system, until the button chooses

const root = document.documentElement;
const prefersDark = matchMedia("(prefers-color-scheme: dark)");
const themeButton = document.getElementById("theme");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : prefersDark.matches;
}

function applyTheme() {
  themeButton.textContent = isDark() ? "Light colours" : "Dark colours";
  recolour();
}

// ---- plots: text, grid and lines in the page's ink take the page's colours

const INK = "#1b1b1b"; // of lines that are drawn in the page's own colour
const drawn = new Map(); // element -> its plot

// A colour as the browser computes it, such as light-dark(#000, #fff) in a dark page.
function computed(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  root.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function themed(plot) {
  const [ink, grid] = [computed("--ink"), computed("--grid")];
  const { data: traces, layout } = structuredClone(plot);
  for (const trace of traces) if (trace.line.color === INK) trace.line.color = ink;
  layout.font.color = ink;
  layout.title.font.color = ink;
  for (const axis of [layout.xaxis, layout.yaxis]) Object.assign(axis, { gridcolor: grid, linecolor: grid });
  return [traces, layout];
}

function draw(target, plot) {
  target.hidden = !plot;
  if (!plot) return;
  drawn.set(target, plot);
  Plotly.react(target, ...themed(plot), config);
}

function recolour() {
  for (const [target, plot] of drawn) if (!target.hidden) draw(target, plot);
}

const curveChoice = document.getElementById("curve-choice");
function drawCurves() {
  const chosen = curveChoice.selectedOptions[0];
  document.getElementById("curve-name").textContent = `${chosen.parentElement.label}: ${chosen.textContent}.`;
  for (const target of document.querySelectorAll("[data-curve]")) {
    draw(target, data.curves[curveChoice.value][target.dataset.curve]);
  }
}

// Plotly's script is in the page as gzip in base64.
async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

async function startPlots() {
  const packed = document.getElementById("plotly");
  if (!packed) return;
  const script = document.createElement("script");
  script.textContent = await unpack(packed.textContent);
  document.head.append(script);
  for (const target of document.querySelectorAll("[data-plot]")) draw(target, data.plots[target.dataset.plot]);
  if (!curveChoice) return;
  curveChoice.addEventListener("change", drawCurves);
  drawCurves();
}

themeButton.hidden = false;
themeButton.addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  applyTheme();
});
prefersDark.addEventListener("change", applyTheme);
applyTheme();
startPlots();

// ---- paper: light colours, and plots as wide as their place there

const PRINTED = { width: 440, height: 300 }; // pixels of a plot on paper
let screenTheme;
addEventListener("beforeprint", () => {
  screenTheme = root.dataset.theme;
  root.dataset.theme = "light";
  recolour();
  for (const target of drawn.keys()) Plotly.relayout(target, PRINTED);
});
addEventListener("afterprint", () => {
  if (screenTheme) root.dataset.theme = screenTheme;
  else delete root.dataset.theme;
  recolour();
});

// ---- pictures: regions above the threshold

async function pixels(uri) {
  const image = new Image();
  image.src = uri;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// Of an image's pixels, whether each is inside: its first channel is at least `least`.
function region(image, least) {
  return Uint8Array.from({ length: image.data.length / 4 }, (_, at) => (image.data[4 * at] >= least ? 1 : 0));
}

// Whether a pixel inside touches the outside or the border.
function onEdge(inside, at, width, height) {
  const x = at % width;
  if (x === 0 || x === width - 1 || at < width || at >= width * (height - 1)) return true;
  return !(inside[at - 1] && inside[at + 1] && inside[at - width] && inside[at + width]);
}

// Mix a colour into the pixel `at`; opacity 1 hides the image.
function paint(pixels, at, colour, opacity) {
  for (let channel = 0; channel < 3; channel += 1) {
    const index = 4 * at + channel;
    pixels.data[index] = (1 - opacity) * pixels.data[index] + opacity * colour[channel];
  }
}

// The share of the image that is marked and, with a mask, their Dice, in words.
function summary(marked, mask) {
  const sum = (inside) => inside.reduce((total, one) => total + one, 0);
  const share = `marked: ${((100 * sum(marked)) / marked.length).toFixed(1)} % of the image`;
  if (!mask || !sum(mask)) return `${share};`;
  const common = sum(marked.map((one, at) => one & mask[at]));
  return `${share}, Dice with the mask ${((2 * common) / (sum(marked) + sum(mask))).toFixed(3)};`;
}

function mark(figure, threshold) {
  const { image, map, mask } = figure.parts;
  const { width, height } = image;
  const painted = new ImageData(new Uint8ClampedArray(image.data), width, height);
  const marked = region(map, threshold * 255);
  const trueMask = mask && region(mask, 128);
  for (let at = 0; at < marked.length; at += 1) {
    if (marked[at]) paint(painted, at, MARKED, onEdge(marked, at, width, height) ? 1 : TINT);
    if (trueMask && trueMask[at] && onEdge(trueMask, at, width, height)) paint(painted, at, TRUE_MASK, 1);
  }
  const canvas = figure.querySelector("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.getContext("2d").putImageData(painted, 0, 0);
  figure.querySelector(".share").textContent = summary(marked, trueMask);
}

async function load(figure) {
  const { image, map, mask } = figure.dataset;
  figure.parts ??= {
    image: await pixels(image),
    map: await pixels(map),
    mask: mask ? await pixels(mask) : null,
  };
}

function startGallery(choice) {
  const slider = document.getElementById("threshold");
  const value = document.getElementById("threshold-value");
  const groups = [...document.querySelectorAll(".shown")];
  const redraw = () => {
    value.textContent = Number(slider.value).toFixed(3);
    for (const figure of groups[choice.value].querySelectorAll(".picture")) {
      if (figure.parts) mark(figure, Number(slider.value));
    }
  };
  const reset = () => {
    slider.value = groups[choice.value].dataset.threshold;
    redraw();
  };
  const show = async () => {
    groups.forEach((group, index) => { group.hidden = index !== Number(choice.value); });
    const figures = [...groups[choice.value].querySelectorAll(".picture")];
    reset();
    await Promise.all(figures.map(load));
    redraw();
  };
  slider.addEventListener("input", redraw);
  document.getElementById("threshold-reset").addEventListener("click", reset);
  choice.addEventListener("change", show);
  show();
}

const galleryChoice = document.getElementById("gallery-choice");
if (galleryChoice) startGallery(galleryChoice);
