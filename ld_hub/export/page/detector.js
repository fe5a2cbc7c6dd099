// The worker: loads the program, and turns pixels into boxes, so that the page itself never stands still.

import * as ort from "./ort.wasm.min.mjs";

ort.env.logLevel = "error";
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;

let session = null;

async function fetched(name) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: the server answered ${answer.status}. Serve the whole directory.`);
  return new Uint8Array(await answer.arrayBuffer());
}

async function load(program) {
  const [bytes, wasm] = await Promise.all([fetched(program), fetched("ort-wasm-simd-threaded.wasm")]);
  ort.env.wasm.wasmBinary = wasm;
  try {
    session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch (error) {
    throw new Error(`${program} cannot be run by this browser: ${error?.message ?? error}`);
  }
  return {};
}

// rgba: (height, width, 4) uint8. Boxes are xyxy in px of these pixels, best first.
async function detect({ rgba, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4, to += 3) {
    rgb[to] = rgba[from];
    rgb[to + 1] = rgba[from + 1];
    rgb[to + 2] = rgba[from + 2];
  }
  const start = performance.now();
  const outputs = await session.run({ pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
  const milliseconds = performance.now() - start;
  const { boxes, scores, labels } = outputs;
  const detections = [];
  for (let place = 0; place < scores.data.length; place += 1) {
    if (scores.data[place] <= 0) continue; // places that nothing was found for
    detections.push({
      label: Number(labels.data[place]),
      score: scores.data[place],
      box: Array.from(boxes.data.subarray(4 * place, 4 * place + 4)),
    });
  }
  for (const tensor of Object.values(outputs)) tensor.dispose();
  return { detections, milliseconds };
}

self.onmessage = async ({ data: { id, program, picture } }) => {
  try {
    self.postMessage({ id, answer: program ? await load(program) : await detect(picture) });
  } catch (error) {
    self.postMessage({ id, fault: String(error?.message ?? error) });
  }
};
