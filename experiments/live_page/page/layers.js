// The layers panel: what each layer of one member makes of an image.

import * as drawing from "./drawing.js";
import * as maps from "./maps.js";
import { $, ask, element, number, recall, remember } from "./talk.js";

const PAUSE = 700; // milliseconds between two looks, at least
let latest = null, place = recall("place", 0), isVisible = false, working = false, wanted = true, shown = null, seenStep = null, redraw;

export function begin() {
  maps.beginDialog();
  redraw = maps.heldWhilePressed($("layer-list"), draw);
  $("another").onclick = () => { place = Math.floor(Math.random() * (latest?.test_images || 1)); remember("place", place); $("layer-source").value = "test"; want(); };
  $("layer-member").onchange = want;
  $("layer-source").onchange = () => { remember("source", $("layer-source").value); want(); };
  $("layer-source").value = recall("source", "test");
  new IntersectionObserver(([entry]) => { isVisible = entry.isIntersecting; look(); }, { rootMargin: "200px" }).observe($("layers"));
  drawing.onAnswer(() => { if ($("layer-source").value === "drawing") want(); });
  let room = 0;
  new ResizeObserver(() => {
    const now = $("layer-list").clientWidth;
    if (Math.abs(now - room) > 20 && shown) redraw();
    room = now;
  }).observe($("layer-list"));
}

export function status(now) {
  const isNew = latest?.run !== now.run;
  latest = now;
  if (isNew) {
    const select = $("layer-member"), before = select.value;
    select.replaceChildren(...now.members.map((name, i) => element("option", { value: i }, name)));
    if (Number(before) < now.members.length && before !== "") select.value = before;
    if (place >= now.test_images) place = 0;
    want();
  } else if ($("follow").checked && now.step !== seenStep) look();
}

function want() {
  wanted = true;
  look();
}

async function look() {
  if (working || !isVisible || document.hidden || !latest?.members.length) return;
  const fresh = $("follow").checked && latest.step !== seenStep;
  if (!wanted && !fresh) return;
  working = true;
  wanted = false;
  const step = latest.step;
  try {
    shown = await get();
    seenStep = step;
    $("layers-note").textContent = note(shown);
    redraw();
  } catch (error) {
    $("layers-note").textContent = error.message;
  }
  setTimeout(() => { working = false; look(); }, PAUSE);
}

async function get() {
  const member = $("layer-member").value || 0;
  if ($("layer-source").value === "test") return ask(`live/layers?member=${member}&image=${place}`);
  const drawn = await drawing.content();
  if (!drawn) throw new Error("Nothing is drawn yet.");
  const headers = { "content-type": "application/octet-stream" };
  return ask(`live/layers?member=${member}&${drawn.query}`, { method: "POST", body: drawn.body, headers });
}

function note(now) {
  const of = now.label == null ? "the drawing" : `test image ${place}, a ${now.label}`;
  return `${now.member} on ${of}: loss ${number(now.loss)}.`;
}

function draw() {
  const room = $("layer-list").clientWidth > 700 ? $("layer-list").clientWidth - 262 : $("layer-list").clientWidth;
  const focused = document.activeElement?.dataset?.group;
  $("layer-list").replaceChildren(...shown.layers.map((layer, i) => describe(layer, i, room)));
  if (focused) document.querySelector(`[data-group="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  maps.showOpened();
}

function describe(layer, i, room) {
  const text = element("div", {}, element("h3", {}, layer.kind === layer.name ? layer.name : `${layer.name} `, layer.kind === layer.name ? null : element("span", { class: "quiet small" }, layer.kind)));
  const line = (content) => content && text.append(element("p", { class: "small" }, content));
  line(`Output ${layer.shape.join(" x ")}`);
  line(layer.formula);
  line(layer.parameters && `Parameters ${layer.parameters}`);
  line(`Activation ${number(layer.activations.min)} to ${number(layer.activations.max)}`);
  line(layer.gradients && `Gradient ${number(layer.gradients.min)} to ${number(layer.gradients.max)}`);
  const groups = [["activations", layer.kind === "input" ? "Image" : "Activations"], ["gradients", "Their gradients"], ["weights", "Weights"], ["weight_gradients", "Weight gradients"]];
  const pictures = element("div", {}, ...groups.filter(([name]) => layer[name]).map(([name, title]) => group(layer, i, name, title, room)));
  return element("div", { class: "layer" }, text, pictures);
}

function prepared(layer, name) {
  const packed = maps.unpack(layer[name]);
  if (packed.shape.length === 4) return maps.filters(packed);
  return layer.colour && name === "activations" ? maps.inColour(packed) : packed;
}

function group(layer, i, name, title, room) {
  const packed = prepared(layer, name);
  const kept = layer[name].shape[0], all = layer[name].count;
  const isRow = packed.shape[1] === 1 && packed.shape[0] === 1;
  let some = !isRow && all > kept ? `, first ${kept} of ${all}` : "";
  if (packed.channelsShown) some += `; of each filter ${packed.channelsShown === 1 ? "its channel" : `${packed.channelsShown} of ${layer[name].channels} channels`}`;
  const label = `${layer.name}, ${title.toLowerCase()}${some}`;
  const find = () => { const now = shown.layers[i]; return now?.[name] ? prepared(now, name) : null; };
  const open = (which) => maps.enlarge(label, find, which);
  const canvas = (isRow ? maps.unitTiles : maps.tiles)(packed, label, room, open);
  canvas.dataset.group = `${i}-${name}`;
  return element("div", { class: "group" }, element("div", { class: "title" }, `${title}${some}`), canvas);
}
