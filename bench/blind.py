"""A page for a blind test: two codecs under the names A and B beside the original, clip after clip, and the score.

What is played is hidden until a choice is made. Pairs, and which of them is A, are drawn anew with every visit.
"""

from __future__ import annotations

import html
import json
from pathlib import Path

from nacre.core.types import Array
from nacre.tools.html import ONE_PLAYER, sound_uri, style

Sounds = dict[str, dict[str, Array]]  # by clip, by codec: wave [C, N]; each clip has an "original"


def write_blind_page(path: Path, title: str, sounds: Sounds, rate_hz: int) -> None:
    """Write a page that needs no network; all sound is inside."""
    held = {
        clip: {codec: sound_uri(wave, rate_hz) for codec, wave in versions.items()} for clip, versions in sounds.items()
    }
    page = PAGE.replace("$title", html.escape(title)).replace("$style", style()).replace("$one", ONE_PLAYER)
    path.write_text(page.replace("$sounds", json.dumps(held).replace("</", "<\\/")), "utf-8")


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style
audio{width:min(100%,26em);display:block}button{font:inherit;padding:.5em 1em;margin:.3em .3em .3em 0}
table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left}</style>
<main><h1>$title</h1>
<p>Listen to the original, then to A and B, as often as you like. Which one is nearer to the original?
What they were is shown after your choice.</p>
<section id="trial" aria-live="polite"></section>
<h2>So far</h2>
<table id="score"><thead><tr><th>codec<th>chosen<th>equal<th>not chosen</thead><tbody></tbody></table></main>
<script>$one
const sounds = $sounds, clips = Object.keys(sounds), score = {};
let trial;
const pick = list => list[Math.floor(Math.random() * list.length)];
const player = (name, uri) => `<p><b>${name}</b><audio controls preload="none" src="${uri}"></audio></p>`;
function next() {
  const clip = pick(clips), codecs = Object.keys(sounds[clip]).filter(name => name !== "original");
  const a = pick(codecs), b = pick(codecs.filter(name => name !== a));
  trial = {clip, a, b};
  document.getElementById("trial").innerHTML = `<h2>${clip}</h2>` + player("original", sounds[clip].original) +
    player("A", sounds[clip][a]) + player("B", sounds[clip][b]) +
    "<p id='answer'><button onclick='choose(0)'>A</button><button onclick='choose(1)'>B</button>" +
    "<button onclick='choose(2)'>no difference</button></p>";
}
function choose(which) {
  const {a, b} = trial;
  for (const name of [a, b]) score[name] ??= [0, 0, 0];
  score[a][which === 0 ? 0 : which === 2 ? 1 : 2]++;
  score[b][which === 1 ? 0 : which === 2 ? 1 : 2]++;
  document.querySelector("#score tbody").innerHTML = Object.entries(score).map(([name, [won, same, lost]]) =>
    `<tr><td>${name}<td>${won}<td>${same}<td>${lost}`).join("");
  document.getElementById("answer").innerHTML = `A was ${a}, B was ${b}. <button onclick="next()">next</button>`;
}
next();
</script></html>
"""
