// Samples of the microphone to pieces of 20 ms, and pieces from the line to the loudspeaker.
"use strict";

class Microphone extends AudioWorkletProcessor {
  piece = new Int16Array(Math.round(sampleRate / 50));
  filled = 0;

  process([[samples]]) {
    for (const value of samples ?? []) {
      this.piece[this.filled++] = Math.max(-1, Math.min(1, value)) * 32767;
      if (this.filled === this.piece.length) {
        this.port.postMessage(this.piece.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

class Loudspeaker extends AudioWorkletProcessor {
  pieces = [];
  at = 0;
  waiting = 0;
  playing = false;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      this.pieces.push(data);
      this.waiting += data.length;
      while (this.waiting > 0.3 * sampleRate) this.next(); // a tab that slept has no use for old sound
    };
  }

  next() {
    this.waiting -= this.pieces.shift().length - this.at;
    this.at = 0;
  }

  process(inputs, [[samples]]) {
    if (this.waiting > 0.05 * sampleRate) this.playing = true;
    for (let index = 0; index < samples.length && this.playing; index++) {
      if (this.pieces.length === 0) {
        this.playing = false;
        break;
      }
      samples[index] = this.pieces[0][this.at++] / 32768;
      this.waiting--;
      if (this.at === this.pieces[0].length) {
        this.pieces.shift();
        this.at = 0;
      }
    }
    return true;
  }
}

registerProcessor("microphone", Microphone);
registerProcessor("loudspeaker", Loudspeaker);
