// The page: decodes images, asks the worker for boxes and draws those above the threshold.
// `window.detections` holds all boxes of the last image, best first: {label, name, score, box (xyxy px of the file)}.

"use strict";

const SMALLEST = 640; // px; smaller images are drawn some whole number of times larger, so that names can be read
const LARGEST = 4096; // px of a side; the canvases of telephones end there, larger images are reduced

const element = (id) => document.getElementById(id);
const [canvas, slider, fileInput, cameraButton] = ["canvas", "threshold", "file", "camera"].map(element);

let config = null;
let worker = null;
let picture = null; // what is shown: {bitmap, scale}, the bitmap `scale` times as large as the image
let stream = null; // of the camera, while it runs
let asked = 0; // counts messages to the worker
let run = ""; // size and time of the last run, in words
let turn = 0; // counts what the user asked for; answers to earlier questions are dropped
const waiting = new Map();
window.detections = [];

// `state` is one of loading, ready, running, done, failed; the body's data-state shows it to style sheets and tests.
function say(text, state) {
  element("status").textContent = text;
  document.body.dataset.state = state;
}

function complain(text) {
  element("error").textContent = text;
  element("error").hidden = !text;
  if (text) say("", "failed");
}

// What the worker answers to a message.
function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    const id = (asked += 1);
    waiting.set(id, { resolve, reject });
    worker.postMessage({ id, ...message }, transfer);
  });
}

function startWorker() {
  worker = new Worker("detector.js", { type: "module" });
  worker.onmessage = ({ data: { id, answer, fault } }) => {
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (fault === undefined) resolve(answer);
    else reject(new Error(fault));
  };
  worker.onerror = (event) => {
    event.preventDefault();
    const fault = new Error(`detector.js or ort.wasm.min.mjs did not start. ${event.message || "Is the directory whole?"}`);
    for (const { reject } of waiting.values()) reject(fault);
    waiting.clear();
  };
}

async function readConfig() {
  const answer = await fetch("config.json").catch(() => null);
  if (!answer) throw new Error("config.json cannot be fetched: is the server still running?");
  if (!answer.ok) throw new Error(`config.json: the server answered ${answer.status}. Serve the whole directory.`);
  const read = await answer.json().catch(() => ({}));
  if (read.model_type !== "ld_hub_exported") throw new Error("config.json is not one that `ld-hub export` writes.");
  if (read.to !== "onnx" || !read.takes_pixels || !read.chooses) {
    throw new Error("The model beside this page was exported without --page: export it again with it.");
  }
  return read;
}

async function start() {
  if (location.protocol === "file:") {
    throw new Error("Browsers run this page from a server only. In its directory type: python -m http.server, then open http://localhost:8000");
  }
  config = await readConfig();
  document.title = config.architecture;
  element("title").textContent = config.architecture;
  const count = config.label_names.length;
  element("about").textContent = `${count} class${count === 1 ? "" : "es"}. Images stay on this machine.`;
  startWorker();
  say(`Loading ${config.program} …`, "loading");
  await ask({ program: config.program });
  fileInput.disabled = cameraButton.disabled = false;
  say("Ready: open an image, drop one here, or start the camera.", "ready");
}

function show(next) {
  picture?.bitmap.close();
  picture = next;
  const { width, height } = picture.bitmap;
  const times = Math.max(1, Math.floor(SMALLEST / Math.max(width, height)));
  canvas.width = times * width;
  canvas.height = times * height;
  element("view").hidden = false;
}

// Pixels as they are in the file, upright, without colour management: what Pillow gives as well.
async function pictureOf(source) {
  const asStored = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(source, asStored);
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  if (scale === 1) return { bitmap, scale };
  const [resizeWidth, resizeHeight] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const reduced = await createImageBitmap(bitmap, { resizeWidth, resizeHeight, resizeQuality: "high" });
  bitmap.close();
  return { bitmap: reduced, scale };
}

function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return { rgba: context.getImageData(0, 0, width, height).data, width, height };
}

// Shows an image with its boxes. While the worker is busy the last boxes stay.
async function detect(next) {
  const mine = turn;
  const pixels = pixelsOf(next.bitmap);
  const { detections, milliseconds } = await ask({ picture: pixels }, [pixels.rgba.buffer]);
  if (mine !== turn) {
    next.bitmap.close();
    return;
  }
  window.detections = detections.map(({ label, score, box }) => {
    return { label, name: config.label_names[label], score, box: box.map((side) => side / next.scale) };
  });
  const time = milliseconds < 1000 ? `${milliseconds.toFixed(0)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
  run = `${pixels.width}\u00a0×\u00a0${pixels.height}\u00a0px in ${time}`;
  show(next);
  draw();
  list();
  tell();
}

async function openFile(file) {
  stopCamera();
  turn += 1;
  const mine = turn;
  complain("");
  say(`Reading ${file.name} …`, "running");
  let next;
  try {
    next = await pictureOf(file);
  } catch {
    if (mine === turn) complain(`${file.name} is no image that this browser can read: try JPEG or PNG.`);
    return;
  }
  if (mine !== turn) return;
  say(`Looking for objects in ${file.name} …`, "running");
  await detect(next);
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the camera to https pages and to localhost only: open this page from there.");
  }
  turn += 1;
  complain("");
  say("Waiting for the camera …", "running");
  const mine = turn;
  const opened = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } }).catch((error) => {
    throw new Error(`The camera cannot be used (${error.message || error.name}): allow it for this page, or open an image.`);
  });
  if (mine !== turn) {
    for (const track of opened.getTracks()) track.stop();
    return;
  }
  stream = opened;
  cameraButton.textContent = "Stop camera";
  const video = document.createElement("video");
  video.muted = video.playsInline = true;
  video.srcObject = stream;
  await video.play();
  while (mine === turn && stream === opened) {
    await detect(await pictureOf(video));
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  turn += 1;
  cameraButton.textContent = "Start camera";
}

const shown = () => window.detections.filter(({ score }) => score > Number(slider.value));
const colour = (label) => `hsl(${(label * 137.5 + 210) % 360} 85% 30%)`;

function draw() {
  if (!picture) return;
  const context = canvas.getContext("2d");
  const unit = canvas.width / (canvas.clientWidth || canvas.width); // px of the image in one of the screen
  const scale = (picture.scale * canvas.width) / picture.bitmap.width;
  context.drawImage(picture.bitmap, 0, 0, canvas.width, canvas.height);
  context.lineWidth = 2 * unit;
  context.font = `600 ${13 * unit}px system-ui, sans-serif`;
  context.textBaseline = "middle";
  for (const { label, name, score, box } of shown().reverse()) { // the best lies on top
    const [x1, y1, x2, y2] = box.map((side) => side * scale);
    context.strokeStyle = context.fillStyle = colour(label);
    context.strokeRect(x1, y1, x2 - x1, y2 - y1);
    const text = `${name} ${score.toFixed(2)}`;
    const [width, height] = [context.measureText(text).width + 8 * unit, 19 * unit];
    const left = Math.max(0, Math.min(x1 - unit, canvas.width - width));
    const top = y1 >= height ? y1 - height : Math.min(y1, canvas.height - height);
    context.fillRect(left, top, width, height);
    context.fillStyle = "white";
    context.fillText(text, left + 4 * unit, top + height / 2);
  }
}

function tell() {
  const [above, all] = [shown().length, window.detections.length];
  const best = all && !above ? ` (the best scores ${window.detections[0].score.toFixed(2)})` : "";
  say(`${above} of ${all} boxes above the threshold${best} · ${run}`, "done");
}

function list() {
  const above = shown();
  element("found").hidden = above.length === 0;
  element("rows").replaceChildren(...above.map(({ label, name, score, box }) => {
    const row = document.createElement("tr");
    for (const text of [name, score.toFixed(3), box.map(Math.round).join(", ")]) row.insertCell().textContent = text;
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = colour(label);
    row.cells[0].prepend(swatch);
    return row;
  }));
}

// Whatever fails is said on the page.
function guarded(action) {
  return async (...given) => {
    try {
      await action(...given);
    } catch (error) {
      stopCamera();
      complain(error.message || String(error));
    }
  };
}

fileInput.addEventListener("change", guarded(async () => {
  const [file] = fileInput.files;
  fileInput.value = ""; // so that the same file can be chosen again
  if (file) await openFile(file);
}));
cameraButton.addEventListener("click", guarded(async () => {
  if (!stream) return startCamera();
  stopCamera();
  say("The camera is off.", "ready");
}));
slider.addEventListener("input", () => {
  element("threshold_value").textContent = Number(slider.value).toFixed(2);
  draw();
  list();
  if (document.body.dataset.state === "done") tell();
});
new ResizeObserver(draw).observe(canvas);
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", over);
  });
}
document.addEventListener("drop", guarded(async (event) => {
  const [file] = event.dataTransfer.files;
  if (file && config && !fileInput.disabled) await openFile(file);
}));
guarded(start)();
