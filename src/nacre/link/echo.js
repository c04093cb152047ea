// The page of `nacre echo`: microphone -> WebSocket -> codec and line on the server -> WebSocket -> loudspeaker.
"use strict";

const id = name => document.getElementById(name);
const sliders = [...document.querySelectorAll("input[type=range]")];
const UNITS = { kbps: "kb/s", loss: "%", burst: "packets", delay_ms: "ms", jitter_ms: "ms" };
let call = null;

function say(text, bad = false) {
  id("state").textContent = text;
  id("state").classList.toggle("bad", bad);
}

function settings() {
  const numbers = sliders.map(slider => [slider.name, Number(slider.value)]);
  return { ...Object.fromEntries(numbers), copies: id("copies").checked, rate_hz: call.context.sampleRate };
}

function send() {
  if (call?.socket.readyState === WebSocket.OPEN) call.socket.send(JSON.stringify(settings()));
}

function level(name, samples) {
  let sum = 0;
  for (const value of samples) sum += (value / 32768) ** 2;
  const decibels = 10 * Math.log10(sum / samples.length + 1e-9);
  const meter = id(name);
  meter.value = Math.max(decibels, meter.value - 2); // falls slowly enough to be read
  id(`${name}-db`).textContent = `${Math.round(meter.value)} dB`;
}

function show(told) {
  if (told.error) return say(told.error, true);
  const frames = told.played + told.restored + told.concealed || 1;
  const share = count => `${(100 * count / frames).toFixed(1)} %`;
  const figures = {
    rate: `${told.kbps.toFixed(1)} kb/s`,
    lost: `${(100 * told.lost_now).toFixed(1)} %`,
    restored: share(told.restored),
    concealed: share(told.concealed),
    wait: `${Math.round(told.wait_ms)} ms`,
    delay: `${Math.round(told.delay_ms)} ms`,
  };
  for (const [name, text] of Object.entries(figures)) id(name).textContent = text;
  say(told.received ? "Speak: this is how the other end hears you." : "Connected; no packet has arrived yet.");
}

async function start() {
  const wanted = { echoCancellation: true, noiseSuppression: false, autoGainControl: false };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: wanted });
  const context = new AudioContext();
  call = { context, microphone, socket: null };
  await context.audioWorklet.addModule("worklet.js");
  const ears = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  const mouth = new AudioWorkletNode(context, "loudspeaker", { numberOfInputs: 0, outputChannelCount: [1] });
  context.createMediaStreamSource(microphone).connect(ears);
  mouth.connect(context.destination);
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/call`);
  call.socket = socket;
  socket.binaryType = "arraybuffer";
  socket.onopen = send;
  socket.onclose = () => stop("The server ended the call.", true);
  socket.onmessage = ({ data }) => {
    if (typeof data === "string") return show(JSON.parse(data));
    const samples = new Int16Array(data);
    level("heard", samples);
    mouth.port.postMessage(samples);
  };
  ears.port.onmessage = ({ data }) => {
    level("spoken", data);
    if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount < 50000) socket.send(data.buffer);
  };
}

function stop(text = "Stopped.", bad = false) {
  if (!call) return;
  const { socket, microphone, context } = call;
  call = null;
  if (socket) socket.onclose = null;
  socket?.close();
  microphone.getTracks().forEach(track => track.stop());
  context.close();
  id("start").textContent = "Start the call";
  for (const name of ["spoken", "heard"]) id(name).value = -90;
  say(text, bad);
}

id("start").addEventListener("click", async () => {
  if (call) return stop();
  id("start").textContent = "Stop";
  say("Waiting for the microphone.");
  try {
    await start();
  } catch (error) {
    call ? stop(`No call: ${error.message}`, true) : say(`No microphone: ${error.message}`, true);
    id("start").textContent = "Start the call";
  }
});

for (const slider of sliders) {
  const shown = () => (id(`${slider.name}-now`).textContent = `${slider.value} ${UNITS[slider.name]}`);
  slider.addEventListener("input", shown);
  slider.addEventListener("change", send);
  shown();
}
id("copies").addEventListener("change", send);
