// The page: a drawing goes to the worker, and what comes back is shown.

import { beginDialog, enlarge, heldWhilePressed, showOpened, tiles, unitTiles } from "../../live_page/page/maps.js";
import { beginPad, clearStrokes, hasStrokes, isDrawing, newCanvas, paintStrokes } from "../../live_page/page/pad.js";
import { $, element, number, percent } from "../../live_page/page/talk.js";

const MOST_MAPS = 64, MOST_CLASSES = 10; // that are shown
const PAUSE = 300; // milliseconds between two looks at the layers, at least
const SILENCE = 700; // milliseconds before an answer is spoken, so that not every one is
const model = JSON.parse($("model").textContent);
const drawing = newCanvas().getContext("2d", { willReadFrequently: true });
const worker = new Worker(URL.createObjectURL(new Blob([$("worker").textContent], { type: "text/javascript" })));
let isReady = false, asked = 0, answered = 0, waits = false, began = 0;
let latest = null; // the newest answer
let layersWait = null, speechWaits = null; // timers
const redrawLayers = heldWhilePressed($("layer-list"), showLayers);

worker.onmessage = ({ data }) => {
  if (data.error) fail(data.error);
  else if (data.ready) begin();
  else receive(data);
};
worker.onerror = (event) => fail(event.message || "this browser starts no worker");

function fail(reason) {
  $("headline").textContent = "Not working.";
  $("banner").textContent = `This browser cannot run the networks: ${reason}. A newer one may.`;
  $("banner").hidden = false;
}

function begin() {
  isReady = true;
  $("headline").textContent = model.headline;
  send();
}

function send() {
  if (!isReady) return;
  if (asked > answered) {
    waits = true;
    return;
  }
  if (!hasStrokes()) return showNothing();
  paintStrokes(drawing);
  const { data, width, height } = drawing.getImageData(0, 0, drawing.canvas.width, drawing.canvas.height);
  const greys = new Uint8Array(width * height);
  for (let i = 0; i < greys.length; i++) greys[i] = data[4 * i];
  began = performance.now();
  asked++;
  worker.postMessage({ greys, width, height, shown: Number($("member").value) });
}

function receive(answer) {
  answered++;
  if (waits) {
    waits = false;
    send();
  }
  if (answer.blank || !hasStrokes()) return showNothing();
  latest = answer;
  show(answer);
  $("latency").textContent = `Answered in ${(performance.now() - began).toFixed(0)} ms.`;
  layersWait ??= setTimeout(() => { layersWait = null; redrawLayers(); }, PAUSE);
  clearTimeout(speechWaits);
  speechWaits = setTimeout(speak, SILENCE);
}

function showNothing() {
  latest = null;
  clearTimeout(speechWaits);
  $("said").hidden = true;
  $("nothing").hidden = false;
  $("latency").textContent = $("spoken").textContent = "";
  $("layer-list").replaceChildren(element("p", { class: "quiet" }, "Nothing is drawn yet."));
}

function show({ pixels, probabilities, mean, entropy, mutual_information }) {
  $("nothing").hidden = true;
  $("said").hidden = false;
  paintPixels($("seen"), pixels);
  $("class").textContent = model.classes[best(mean)];
  $("sure").textContent = `${percent(mean[best(mean)])} sure${tally(probabilities)}`;
  $("unsure").hidden = !isUnsure(entropy);
  const why = isUnsure(entropy) ? `; unsure above an entropy of ${number(model.threshold)}` : "";
  $("facts").textContent = `Entropy ${number(entropy)} nats, mutual information ${number(mutual_information)}${why}.`;
  const shown = likeliest(mean);
  const rows = probabilities.map((own, i) => votes(model.members[i].name, own, shown));
  const all = probabilities.length > 1 ? [votes("mean", mean, shown, "mean")] : [];
  $("votes").replaceChildren(...all, ...rows);
}

const best = (values) => values.indexOf(Math.max(...values));
const isUnsure = (entropy) => model.threshold !== null && entropy > model.threshold;

function paintPixels(canvas, pixels) {
  const image = new ImageData(28, 28);
  pixels.forEach((value, i) => image.data.set([value, value, value, 255], 4 * i));
  canvas.getContext("2d").putImageData(image, 0, 0);
}

function tally(probabilities) {
  if (probabilities.length === 1) return "";
  const counts = {};
  for (const own of probabilities) counts[best(own)] = (counts[best(own)] ?? 0) + 1;
  const sorted = Object.entries(counts).sort((a, b) => b[1] - a[1]);
  return `; votes: ${sorted.map(([i, n]) => `${n} x ${model.classes[i]}`).join(", ")}`;
}

function likeliest(mean) {
  const order = mean.map((_, i) => i);
  return order.length <= MOST_CLASSES ? order : order.sort((a, b) => mean[b] - mean[a]).slice(0, MOST_CLASSES);
}

// A column for each class that is shown, the likeliest marked by colour and underlined.
function votes(name, values, shown, kind = "") {
  const vote = best(values);
  const text = `${name}: ${model.classes[vote]}, ${percent(values[vote])}`;
  const marked = (i) => (i === vote ? "best" : "");
  const columns = shown.map((i) => {
    const column = element("span", { class: marked(i), title: `${model.classes[i]}: ${percent(values[i])}` });
    column.style.height = `${100 * values[i]}%`;
    return column;
  });
  const names = shown.map((i) => element("span", { class: marked(i) }, model.classes[i]));
  const said = shown.map((i) => `${model.classes[i]} ${percent(values[i])}`).join(", ");
  return element("li", { class: kind }, element("div", { class: "small" }, text),
    element("div", { role: "img", "aria-label": `${name}: ${said}` }, element("div", { class: "columns" }, ...columns), element("div", { class: "names" }, ...names)));
}

function speak() {
  if (isDrawing()) {
    speechWaits = setTimeout(speak, SILENCE);
    return;
  }
  const { mean, entropy } = latest;
  $("spoken").textContent = `${model.classes[best(mean)]}, ${$("sure").textContent}${isUnsure(entropy) ? ", unsure" : ""}`;
}

function showLayers() {
  if (!latest) return;
  const width = $("layer-list").clientWidth, room = width > 700 ? width - 262 : width;
  const focused = document.activeElement?.dataset?.layer;
  $("layer-list").replaceChildren(...shownLayers().map((layer, i) => describe(layer, i, room)));
  if (focused) document.querySelector(`[data-layer="${focused}"]`)?.focus({ preventScroll: true });
  showOpened();
}

// The drawing, the layers in which something is computed, and the probabilities.
function shownLayers() {
  const member = latest.shown; // which another may have been chosen after
  const input = { values: Float32Array.from(latest.pixels, (byte) => byte / 255), height: 28, width: 28, channels: 1 };
  const own = latest.probabilities[member];
  const last = { values: Float32Array.from(own), height: 1, width: 1, channels: own.length };
  const layers = model.members[member].layers.map((layer, i) => ({ ...layer, output: latest.outputs[i] }));
  return [{ name: "images", text: "the drawing", output: input }, ...layers.filter((layer) => layer.text), { name: "softmax", text: "exp(x) / sum of exp(x)", output: last }];
}

function describe({ name, text, output }, i, room) {
  const { values, height, width, channels } = output;
  const isRow = height === 1 && width === 1;
  const size = isRow ? channels : `${height} x ${width} x ${channels}`;
  const map = packed(output);
  const find = () => (latest ? packed(shownLayers()[i]?.output ?? output) : null);
  const some = !isRow && channels > MOST_MAPS ? `, first ${MOST_MAPS} of ${channels}` : "";
  const label = `${name}, activations${some}`;
  const canvas = (isRow ? unitTiles : tiles)(map, label, room, (which) => enlarge(label, find, which));
  canvas.dataset.layer = i;
  const about = element("div", {}, element("h3", {}, name), element("p", { class: "small" }, text), element("p", { class: "small" }, `Output ${size}`),
    element("p", { class: "small" }, `Activation ${number(map.min)} to ${number(map.max)}`));
  return element("div", { class: "layer" }, about, element("div", { class: "group" }, element("div", { class: "title" }, `Activations${some}`), canvas));
}

// Maps as bytes between the smallest and the largest value of the layer, as the live page's server sends them.
function packed({ values, height, width, channels }) {
  const isRow = height === 1 && width === 1;
  let min = Infinity, max = -Infinity;
  for (const value of values) { min = Math.min(min, value); max = Math.max(max, value); }
  const scale = max > min ? 255 / (max - min) : 0;
  const bytes = (value) => Math.round((value - min) * scale);
  if (isRow) return { shape: [1, 1, channels], count: 1, min, max, values: Uint8Array.from(values, bytes) };
  const kept = Math.min(channels, MOST_MAPS), area = height * width;
  const maps = new Uint8Array(kept * area);
  for (let channel = 0; channel < kept; channel++) for (let i = 0; i < area; i++) maps[channel * area + i] = bytes(values[i * channels + channel]);
  return { shape: [kept, height, width], count: channels, min, max, values: maps };
}

$("classes").textContent = `One of ${model.classes.join(", ")}.`;
$("rule").textContent = model.rule;
$("member").replaceChildren(...model.members.map(({ name }, i) => element("option", { value: i }, name)));
$("member").onchange = send;
$("facts-list").replaceChildren(...model.about.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, text)]));
beginPad({ changed: send, clear: clearStrokes });
beginDialog();
showNothing();
let room = 0;
new ResizeObserver(() => {
  const now = $("layer-list").clientWidth;
  if (Math.abs(now - room) > 20) redrawLayers();
  room = now;
}).observe($("layer-list"));
worker.postMessage({ model: { members: model.members }, weights: $("weights").textContent });
