"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const players = [...document.querySelectorAll("audio")];
const said = document.querySelector("output");
const dark = matchMedia("(prefers-color-scheme: dark)");
const view = { start: 0, stop: data.end };
let at = 0, player = players[0];

const ANCHORS = {
  sound: ["000004 1c1044 4f127b 812581 b5367a e55064 fb8761 fec287 fcfdbf"],
  bits: ["ffffff f3d3e4 d987b5 96336f 3c0f33", "1e1b25 4a2140 96336f d987b5 ffeef7"],
  latents: ["10457f 4a86c5 b3d0ea f7f5f3 efbb9b cf6242 7f1526", "9cc8f5 4a86c5 1f4468 1e1b25 6b3422 cf6242 ffc4a8"],
};

function colours(name) {
  const codes = ANCHORS[name][dark.matches ? ANCHORS[name].length - 1 : 0].split(" ");
  const anchors = codes.map(code => [0, 2, 4].map(place => parseInt(code.slice(place, place + 2), 16)));
  return Array.from({ length: 256 }, (_, shade) => {
    const place = shade / 255 * (anchors.length - 1), low = Math.min(Math.floor(place), anchors.length - 2);
    return anchors[low].map((value, index) => value + (anchors[low + 1][index] - value) * (place - low));
  });
}

function coloured(panel) {
  const { width, height } = panel.grey, canvas = new OffscreenCanvas(width, height), pen = canvas.getContext("2d");
  pen.drawImage(panel.grey, 0, 0);
  const pixels = pen.getImageData(0, 0, width, height), shades = colours(panel.colours);
  for (let place = 0; place < pixels.data.length; place += 4)
    pixels.data.set(shades[pixels.data[place]], place);
  pen.putImageData(pixels, 0, 0);
  panel.picture = canvas;
}

const ink = name => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const blue = () => dark.matches ? "#8fc1f5" : "#2f62a0";
const along = (seconds, width) => (seconds - view.start) / (view.stop - view.start) * width;
const clock = seconds => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;

function drawWave(panel, pen, width, height) {
  const [low, high] = panel.wave, most = Math.max(1, ...high, ...low.map(value => -value));
  pen.fillStyle = panel.name.includes("original") ? ink("soft") : ink("mark");
  const step = panel.stop / low.length, middle = height / 2;
  for (let index = Math.max(0, Math.floor(view.start / step)); index < low.length && index * step <= view.stop; index++) {
    const top = middle - high[index] / most * middle, bottom = middle - low[index] / most * middle;
    pen.fillRect(along(index * step, width), top, Math.max(1, along((index + 1) * step, width) - along(index * step, width)),
      Math.max(1, bottom - top));
  }
}

function drawImage(panel, pen, width, height) {
  if (!panel.picture) return;
  pen.imageSmoothingEnabled = panel.colours === "sound";
  const picture = panel.picture, share = picture.width / panel.stop;
  pen.drawImage(picture, view.start * share, 0, (view.stop - view.start) * share, picture.height, 0, 0, width, height);
}

function drawBars(panel, pen, width, height) {
  const most = Math.max(1, ...panel.bars[0]);
  panel.bars.forEach((bars, layer) => {
    pen.fillStyle = layer ? ink("soft") : ink("mark");
    bars.forEach((value, index) => {
      const left = along(panel.edges[index], width), right = along(panel.edges[index + 1], width);
      if (right < 0 || left > width || !value) return;
      pen.fillRect(left, height - value / most * height, Math.max(1, right - left - (right - left > 4)), value / most * height);
    });
  });
}

function drawSteps(panel, pen, width, height) {
  const place = (value, low, high) => height - 4 - (value - low) / (high - low) * (height - 8);
  pen.fillStyle = ink("mark");
  panel.steps.forEach((level, index) => {
    const left = along(index * data.group, width), right = along((index + 1) * data.group, width);
    if (level >= 0) pen.fillRect(left, place(level, 0, panel.most) - 2, right - left, 4);
  });
  pen.strokeStyle = blue();
  pen.lineWidth = 1.5;
  pen.beginPath();
  panel.line.forEach((gain, index) => {
    if (gain === null) return;
    const height = place(gain, -40, 60);
    pen.moveTo(along(index * data.group, width), height);
    pen.lineTo(along((index + 1) * data.group, width), height);
  });
  pen.stroke();
}

function draw(panel) {
  const canvas = panel.canvas, ratio = devicePixelRatio, width = canvas.clientWidth, height = panel.height;
  canvas.width = width * ratio;
  canvas.height = height * ratio;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  (panel.wave ? drawWave : panel.image ? drawImage : panel.steps ? drawSteps : drawBars)(panel, pen, width, height);
  pen.fillStyle = "rgba(232, 163, 61, 0.45)";
  for (const [start, stop] of data.lost) pen.fillRect(along(start, width), 0, along(stop, width) - along(start, width), height);
  scale(panel, pen, height);
  const cursor = along(at, width);
  pen.fillStyle = "#ffffff";
  pen.fillRect(cursor - 1.5, 0, 3, height);
  pen.fillStyle = "#000000";
  pen.fillRect(cursor - 0.5, 0, 1, height);
}

function scale(panel, pen, height) {
  const most = panel.top ? `${panel.top} kHz` : panel.bars ? `${Math.max(...panel.bars[0]).toFixed(0)} ${panel.unit}` : "";
  pen.font = "12px system-ui, sans-serif";
  const lines = panel.top ? [[most, 14], ["0", height - 5]] : most ? [[most, 14]] : panel.scale ? [[panel.scale, 14]] : [];
  for (const [text, bottom] of lines) {
    pen.fillStyle = dark.matches ? "rgba(0, 0, 0, 0.65)" : "rgba(255, 255, 255, 0.75)";
    pen.fillRect(3, bottom - 12, pen.measureText(text).width + 6, 16);
    pen.fillStyle = ink("ink");
    pen.fillText(text, 6, bottom);
  }
}

let asked = false;
function drawAll() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    data.panels.forEach(draw);
    tell();
  });
}

function tell() {
  const group = Math.floor(at / data.group), parts = [`${clock(at)} of ${clock(data.end)}`];
  for (const panel of data.panels) {
    if (panel.name === "bits a frame") {
      const index = panel.edges.findIndex(edge => edge > at) - 1;
      if (index >= 0) parts.push(`${panel.bars[0][index].toFixed(0)} bits a frame`);
    } else if (panel.steps && group < panel.steps.length) {
      const level = panel.steps[group], gain = panel.line[group];
      parts.push(level < 0 ? "silent or lost" : `level ${level}, gain ${gain} dB`);
    } else if (panel.name === "packet bytes" && group < panel.bars[0].length) {
      parts.push(`packet ${group}: ${panel.bars[0][group]} bytes`);
    }
  }
  said.textContent = parts.join(" · ");
}

function show(start, stop) {
  const least = 4 * data.frame, span = Math.min(data.end, Math.max(least, stop - start));
  view.start = Math.min(Math.max(0, start), data.end - span);
  view.stop = view.start + span;
  drawAll();
}

function zoom(factor, centre = at) {
  if (!factor) return show(0, data.end);
  const share = (centre - view.start) / (view.stop - view.start), span = (view.stop - view.start) / factor;
  const inside = share >= 0 && share <= 1 ? share : 0.5;
  show(centre - inside * span, centre + (1 - inside) * span);
}

function go(seconds) {
  at = Math.min(data.end, Math.max(0, seconds));
  if (player) player.currentTime = at;
  drawAll();
}

function follow() {
  if (!player || player.paused) return;
  at = player.currentTime;
  const span = view.stop - view.start;
  if (at < view.start || at > view.stop) show(at, at + span);
  drawAll();
  requestAnimationFrame(follow);
}

for (const one of players) {
  one.addEventListener("play", () => {
    for (const other of players) if (other !== one) other.pause();
    player = one;
    follow();
  });
  one.addEventListener("seeked", () => { if (one === player) { at = one.currentTime; drawAll(); } });
}

function listen(canvas) {
  const held = new Map();
  let moved = false, from = null;
  const place = event => view.start + event.offsetX / canvas.clientWidth * (view.stop - view.start);
  const reach = () => { const [one, two] = [...held.values()]; return two === undefined ? 0 : Math.abs(one - two); };
  canvas.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(2 ** (-event.deltaY / 200), place(event));
  }, { passive: false });
  canvas.addEventListener("pointerdown", event => {
    held.set(event.pointerId, event.offsetX);
    canvas.setPointerCapture(event.pointerId);
    moved = false;
    from = { x: event.offsetX, start: view.start, stop: view.stop, reach: reach() };
  });
  canvas.addEventListener("pointermove", event => {
    if (!held.has(event.pointerId)) return;
    held.set(event.pointerId, event.offsetX);
    const span = from.stop - from.start, shift = (from.x - event.offsetX) / canvas.clientWidth * span;
    if (held.size === 2 && from.reach > 10) {
      moved = true;
      const wide = span * from.reach / Math.max(10, reach()), middle = (from.start + from.stop) / 2;
      show(middle - wide / 2, middle + wide / 2);
    } else if (held.size === 1 && (moved || Math.abs(from.x - event.offsetX) > 5)) {
      moved = true;
      show(from.start + shift, from.stop + shift);
    }
  });
  canvas.addEventListener("pointerup", event => {
    if (!moved && held.size === 1) go(place(event));
    held.delete(event.pointerId);
  });
  canvas.addEventListener("pointercancel", event => held.delete(event.pointerId));
}

for (const panel of data.panels) {
  const figure = document.createElement("div"), head = document.createElement("h2"), words = document.createElement("p");
  figure.className = "panel";
  words.className = "soft";
  head.textContent = panel.name;
  words.textContent = panel.words;
  panel.canvas = document.createElement("canvas");
  panel.canvas.style.height = `${panel.height}px`;
  panel.canvas.setAttribute("role", "img");
  panel.canvas.setAttribute("aria-label", `${panel.name}: ${panel.words}`);
  figure.append(head, words, panel.canvas);
  document.getElementById("panels").append(figure);
  listen(panel.canvas);
  if (panel.image) {
    panel.grey = new Image();
    panel.grey.onload = () => { coloured(panel); drawAll(); };
    panel.grey.src = panel.image;
  }
}
for (const button of document.querySelectorAll("[data-zoom]"))
  button.addEventListener("click", () => zoom(Number(button.dataset.zoom)));
addEventListener("keydown", event => {
  if (event.target.closest("audio, button") && event.key === " ") return;
  const span = view.stop - view.start;
  const keys = {
    "+": () => zoom(2), "=": () => zoom(2), "-": () => zoom(0.5), "0": () => zoom(0),
    ArrowLeft: () => go(at - span / 50), ArrowRight: () => go(at + span / 50),
    " ": () => player && (player.paused ? player.play() : player.pause()),
  };
  if (event.ctrlKey || event.metaKey || event.altKey || !keys[event.key] || event.target.closest("audio")) return;
  event.preventDefault();
  keys[event.key]();
});
dark.addEventListener("change", () => { data.panels.filter(panel => panel.grey).forEach(coloured); drawAll(); });
new ResizeObserver(drawAll).observe(document.getElementById("panels"));
