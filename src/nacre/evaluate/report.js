/* Blind A/B/X listening. A pair is two sounds of one clip; A and B are the two in random order, X is one of them again.
   Nothing says which is which until the end. What was answered is kept by the browser, where it allows that. */
"use strict";
(() => {
const data = JSON.parse(document.getElementById("pairs").textContent);
const at = id => document.getElementById(id);
const all = selector => [...document.querySelectorAll(selector)];
const KEY = "nacre-abx-" + data.key;
const players = {A: at("play-A"), B: at("play-B"), X: at("play-X")};
let test = null, last = null;

const pick = list => list[Math.floor(Math.random() * list.length)];
const coin = () => Math.random() < 0.5;
const named = id => data.sounds[id].label;
const sourceOf = id => at(id).getAttribute("src");

function shuffled(list) {
  const cards = [...list];
  for (let i = cards.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [cards[i], cards[j]] = [cards[j], cards[i]];
  }
  return cards;
}

/* Chance of at least `right` of `count` by guessing. */
function pValue(right, count) {
  let term = Math.pow(0.5, count), sum = 0;
  for (let k = 0; k <= count; k++) {
    if (k >= right) sum += term;
    term *= (count - k) / (k + 1);
  }
  return Math.min(1, sum);
}

const wordsFor = p => p < 0.001 ? "below 0.001" : p.toFixed(3);

function keep() {
  try {
    if (test) localStorage.setItem(KEY, JSON.stringify(test)); else localStorage.removeItem(KEY);
  } catch (error) { /* a browser that keeps nothing; the test goes on */ }
}

function kept() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY));
    const whole = found && Array.isArray(found.trials) && found.trials.length && Number.isInteger(found.count) &&
      found.trials.every(t => data.sounds[t.a] && data.sounds[t.b] && "AB".includes(t.x)) &&
      found.deck.every(i => data.pairs[i]);
    return whole ? found : null;
  } catch (error) { return null; }
}

/* A deck deals every pair once before any comes again. */
function deal() {
  if (!test.deck.length) test.deck = shuffled(test.choice);
  const pair = data.pairs[test.deck.pop()];
  const [a, b] = coin() ? [pair.one, pair.two] : [pair.two, pair.one];
  test.trials.push({a, b, x: coin() ? "A" : "B", group: pair.group, answer: "", better: ""});
}

function start() {
  const chosen = data.pairs.map((pair, i) => i).filter(i => fits(data.pairs[i]));
  if (!chosen.length) return;
  test = {choice: chosen, deck: [], trials: [], count: Number(at("count").value), done: false};
  deal();
  keep();
  show();
  at("trial").scrollIntoView({block: "nearest"});
}

function fits(pair) {
  const group = at("group").value, rate = at("rate").value;
  return (!group || pair.group === group) && (!rate || String(pair.rate) === rate);
}

function say() {
  const count = data.pairs.filter(fits).length;
  at("available").textContent = count === 1 ? "1 pair to draw from" : count + " pairs to draw from";
  at("start").disabled = !count;
}

function stopSound() {
  for (const player of Object.values(players)) player.pause();
  last = null;
}

function show() {
  at("setup").hidden = Boolean(test);
  at("trial").hidden = !test || test.done;
  at("result").hidden = !test || !test.done;
  stopSound();
  if (!test) return say();
  if (test.done) return reveal();
  const trial = test.trials[test.trials.length - 1];
  for (const [name, id] of [["A", trial.a], ["B", trial.b], ["X", trial.x === "A" ? trial.a : trial.b]]) {
    players[name].src = sourceOf(id);
  }
  for (const radio of all('input[name="better"]')) radio.checked = radio.value === "";
  at("progress").textContent = `Trial ${test.trials.length} of ${test.count}`;
}

function answer(name) {
  const trial = test.trials[test.trials.length - 1];
  trial.answer = name;
  trial.better = document.querySelector('input[name="better"]:checked').value;
  if (test.trials.length >= test.count) test.done = true; else deal();
  keep();
  show();
  if (test.done) at("result").focus();
}

function finish() {
  test.trials = test.trials.filter(trial => trial.answer);
  if (!test.trials.length) return reset();
  test.done = true;
  keep();
  show();
  at("result").focus();
}

function reset() {
  test = null;
  keep();
  show();
  at("start").focus();
}

const isRight = trial => trial.answer === trial.x;

function verdict(right, count, p) {
  if (p < 0.05) return "You hear a difference.";
  if (count < 8) return "Too few answers to tell; 8 or more are a test.";
  return "This does not show that you hear a difference.";
}

function row(cells) {
  const line = document.createElement("tr");
  cells.forEach((text, i) => {
    const cell = document.createElement(i ? "td" : "th");
    if (!i) cell.scope = "row";
    cell.textContent = text;
    line.append(cell);
  });
  return line;
}

function reveal() {
  const trials = test.trials.filter(trial => trial.answer), right = trials.filter(isRight).length;
  const p = pValue(right, trials.length);
  at("tally").textContent = `${right} of ${trials.length} right, p = ${wordsFor(p)}`;
  at("verdict").textContent = verdict(right, trials.length, p) +
    " p is the chance of at least as many right answers by guessing. It holds if you decided on the number of trials before you began.";
  const groups = [...new Set(trials.map(trial => trial.group))];
  at("by-group").replaceChildren(...groups.map(group => {
    const some = trials.filter(trial => trial.group === group), hits = some.filter(isRight).length;
    const liked = {};
    for (const trial of some) {
      const id = trial.better === "A" ? trial.a : trial.better === "B" ? trial.b : "";
      if (id) liked[data.sounds[id].system] = (liked[data.sounds[id].system] || 0) + 1;
    }
    const likes = Object.entries(liked).map(([name, times]) => `${name} ${times}`).join(", ") || "none named";
    return row([group, `${hits} of ${some.length}`, wordsFor(pValue(hits, some.length)), likes]);
  }));
  at("by-trial").replaceChildren(...trials.map((trial, i) => row([
    String(i + 1), `${trial.answer}, ${isRight(trial) ? "right" : "wrong"}`, named(trial.a), named(trial.b), trial.better || "-",
    data.sounds[trial.a].clip,
  ])));
}

function csv() {
  const quoted = text => '"' + String(text).replaceAll('"', '""') + '"';
  const head = ["trial", "clip", "a", "b", "a_kbps", "b_kbps", "x", "answer", "right", "better"];
  const lines = test.trials.filter(trial => trial.answer).map((trial, i) => [
    i + 1, data.sounds[trial.a].clip, data.sounds[trial.a].system, data.sounds[trial.b].system,
    data.sounds[trial.a].kbps, data.sounds[trial.b].kbps, trial.x, trial.answer, isRight(trial) ? 1 : 0, trial.better,
  ]);
  return [head, ...lines].map(line => line.map(quoted).join(",")).join("\r\n") + "\r\n";
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv()], {type: "text/csv"}));
  link.download = "nacre-listening.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/* Going from one of the three to another goes on at the same place. */
function play(name) {
  const player = players[name];
  if (last && last !== player && !last.ended) player.currentTime = last.currentTime;
  for (const other of Object.values(players)) if (other !== player) other.pause();
  player.play().catch(() => { /* another key was quicker */ });
}

for (const [name, player] of Object.entries(players)) {
  player.addEventListener("play", () => {
    if (last && last !== player && !last.ended && player.currentTime === 0) player.currentTime = last.currentTime;
    last = player;
  });
  for (const event of ["play", "pause", "ended"]) {
    player.addEventListener(event, () => {
      player.parentElement.classList.toggle("playing", !player.paused);
      at("now-" + name).textContent = player.paused ? "" : "playing";
    });
  }
}

addEventListener("keydown", event => {
  if (!test || test.done || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.closest("select, textarea, input:not([type=radio])")) return;
  const key = event.key.toUpperCase();
  if (players[key]) play(key);
  else if (key === "1") answer("A");
  else if (key === "2") answer("B");
  else if (key === " " && !event.target.closest("button, audio, input, summary, a") && last) {
    if (last.paused) last.play(); else last.pause();
  } else return;
  event.preventDefault();
});

for (const group of new Set(data.pairs.map(pair => pair.group))) at("group").append(new Option(group, group));
for (const rate of [...new Set(data.pairs.map(pair => pair.rate))].sort((a, b) => a - b)) {
  at("rate").append(new Option(`about ${rate} kb/s`, rate));
}
at("group").addEventListener("change", say);
at("rate").addEventListener("change", say);
at("setup").addEventListener("submit", event => { event.preventDefault(); start(); });
at("is-A").addEventListener("click", () => answer("A"));
at("is-B").addEventListener("click", () => answer("B"));
at("finish").addEventListener("click", finish);
at("again").addEventListener("click", reset);
at("download").addEventListener("click", download);
test = kept();
show();
})();
