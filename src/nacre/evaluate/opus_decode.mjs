// Opus packets, as opus_encode.py writes them, to a float WAV at 16 kHz by libopus in WebAssembly with its neural enhancers.
//     node opus_decode.mjs IN OUT.wav none|lace|nolace NODE_MODULES
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const RATE_HZ = 16000, HEAD_BYTES = 44, FLOAT = 3;

function packetsOf(data) {
  const packets = [];
  for (let at = 4; at < data.length; at += 2 + data.readUInt16LE(at))
    packets.push(new Uint8Array(data.subarray(at + 2, at + 2 + data.readUInt16LE(at))));
  return packets;
}

function wav(samples) {
  const size = 4 * samples.length, file = Buffer.alloc(HEAD_BYTES + size);
  file.write("RIFF", 0); file.writeUInt32LE(36 + size, 4); file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16); file.writeUInt16LE(FLOAT, 20); file.writeUInt16LE(1, 22);
  file.writeUInt32LE(RATE_HZ, 24); file.writeUInt32LE(4 * RATE_HZ, 28);
  file.writeUInt16LE(4, 32); file.writeUInt16LE(32, 34);
  file.write("data", 36); file.writeUInt32LE(size, 40);
  samples.forEach((sample, index) => file.writeFloatLE(sample, HEAD_BYTES + 4 * index));
  return file;
}

const [, , source, target, speechQualityEnhancement, modules] = process.argv;
const { OpusMLDecoder } = await import(pathToFileURL(join(modules, "@wasm-audio-decoders", "opus-ml", "index.js")));
const decoder = new OpusMLDecoder({
  sampleRate: RATE_HZ, channels: 1, streamCount: 1, coupledStreamCount: 0, channelMappingTable: [0], preSkip: 0,
  speechQualityEnhancement,
});
await decoder.ready;
const { channelData, samplesDecoded, errors } = decoder.decodeFrames(packetsOf(readFileSync(source)));
if (errors.length) {
  console.error(`${errors.length} packets failed: ${errors[0].message}`);
  process.exit(1);
}
writeFileSync(target, wav(channelData[0].subarray(0, samplesDecoded)));
process.exit(0);
