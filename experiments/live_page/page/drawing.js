// The drawing panel: strokes, photos and the camera, and what the members say of them.

import { beginPad, clearStrokes, hasStrokes, isDrawing, newCanvas, paintStrokes } from "./pad.js";
import { $, ask, bytes, element, number, percent } from "./talk.js";

let photo = null, camera = null, isOpeningCamera = false;
let latest = null, asking = false, again = false, answered = null, listeners = [];

export function begin() {
  beginPad({ changed: send, clear });
  $("choose-photo").onclick = () => $("photo-file").click();
  $("photo-file").onchange = () => { take($("photo-file").files[0]); $("photo-file").value = ""; };
  $("camera").onclick = toggleCamera;
  const drop = $("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); });
  document.addEventListener("paste", (event) => { const [file] = event.clipboardData.files; if (file) take(file); });
  setInterval(refresh, 2000);
}

export function status(now) {
  const isNew = latest?.run !== now.run;
  latest = now;
  if (isNew && (hasStrokes() || photo)) send();
}

// What the layers panel shows of a drawing: the content to post, or null.
export async function content() {
  if (photo) return { body: photo.file, query: "photo=1" };
  return hasStrokes() ? { body: await png(), query: "photo=0" } : null;
}

export function onAnswer(listener) {
  listeners.push(listener);
}

function clear() {
  photo = null;
  stopCamera();
  $("photo").hidden = true;
  $("pad").hidden = false;
  clearStrokes();
}

function png() {
  const canvas = newCanvas();
  paintStrokes(canvas.getContext("2d"));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function refresh() {
  // A drawing that stays is asked about again as the members learn.
  if (document.hidden || !answered || !latest || latest.state !== "training" || isDrawing()) return;
  send();
}

async function send() {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  do {
    again = false;
    await once();
  } while (again);
  asking = false;
}

async function once() {
  const drawn = await content();
  if (!drawn) {
    answered = null;
    $("answers").replaceChildren(element("p", { class: "quiet" }, "What the members say of it appears here. Draw one digit, or several side by side."));
    $("latency").textContent = "";
    return;
  }
  const began = performance.now();
  try {
    const answer = await ask(`live/draw?${drawn.query}`, { method: "POST", body: drawn.body, headers: { "content-type": "application/octet-stream" } });
    answered = answer;
    show(answer.digits);
    const took = performance.now() - began;
    $("latency").textContent = `Answered in ${took.toFixed(0)} ms, by the members as they were at step ${answer.step.toLocaleString("en")}.`;
    for (const listener of listeners) listener();
  } catch (error) {
    answered = null;
    $("answers").replaceChildren(element("p", { class: "problem" }, error.message));
  }
}

function show(digits) {
  $("answers").replaceChildren(...digits.map(answerOf));
}

function answerOf(digit) {
  const names = latest.class_names;
  const best = Math.max(...digit.mean);
  const several = digit.members.length > 1;
  const votes = several ? tally(digit.members) : "";
  const canvas = pixels(digit);
  const head = element("div", { class: "head" }, canvas,
    element("div", {}, element("div", { class: "class" }, digit.class), element("div", {}, `${percent(best)} sure${votes}`),
      digit.unsure ? element("div", { class: "unsure", title: digit.reasons.join("; ") }, "⚠ unsure") : null));
  const facts = element("p", { class: "small" },
    `Entropy ${number(digit.entropy)} nats, mutual information ${number(digit.mutual_information)}` + (digit.unsure ? `: ${digit.reasons.join("; ")}.` : "."));
  return element("div", { class: "answer" }, head, facts, element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Votes" }, table(digit, names)));
}

function tally(members) {
  const votes = {};
  for (const { vote } of members) votes[vote] = (votes[vote] ?? 0) + 1;
  const sorted = Object.entries(votes).sort((a, b) => b[1] - a[1]);
  return `; votes: ${sorted.map(([name, n]) => `${n} x ${name}`).join(", ")}`;
}

function table(digit, names) {
  // Of many classes the likeliest ten.
  const order = names.map((_, i) => i);
  const shown = names.length <= 10 ? order : order.sort((a, b) => digit.mean[b] - digit.mean[a]).slice(0, 10);
  const cells = (values) => {
    const most = Math.max(...values);
    return shown.map((i) => element("td", { class: values[i] === most ? "best" : "" }, (100 * values[i]).toFixed(0)));
  };
  const row = (name, values) => element("tr", {}, element("th", { scope: "row" }, name), ...cells(values));
  const made = element("table", { class: "votes" },
    element("caption", { class: "sr" }, "Probabilities in percent, of each member and their mean"),
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "%"), ...shown.map((i) => element("th", { scope: "col" }, names[i])))),
    element("tbody", {}, ...digit.members.map((member) => row(member.name, member.probabilities))));
  if (digit.members.length > 1) made.append(element("tfoot", {}, row("mean", digit.mean)));
  return made;
}

function pixels(digit) {
  const [height, width, channels] = digit.shape;
  const values = bytes(digit.pixels);
  const canvas = element("canvas", { class: "pixels", width, height, role: "img", "aria-label": `The picture as the network sees it, ${width} by ${height}` });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = values[i * channels + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

function take(file) {
  if (!file) return;
  stopCamera();
  if ($("photo").src) URL.revokeObjectURL($("photo").src);
  photo = { file };
  $("photo").src = URL.createObjectURL(file);
  $("photo").onerror = () => { $("photo").hidden = true; };
  $("photo").hidden = false;
  $("pad").hidden = true;
  clearStrokes();
}

async function toggleCamera() {
  if (isOpeningCamera) return;
  if (camera) {
    const video = $("video");
    const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    stopCamera();
    take(blob);
    return;
  }
  isOpeningCamera = true;
  try {
    if (!navigator.mediaDevices) throw new Error("a page of another machine may not use it without https");
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
    $("pen").textContent = "";
    $("video").srcObject = camera;
    $("video").hidden = false;
    $("pad").hidden = $("photo").hidden = true;
    await $("video").play();
    $("camera").textContent = "Take the picture";
  } catch (error) {
    stopCamera();
    if (error.name === "AbortError") return; // cleared before it showed anything
    $("pen").textContent = `No camera: ${error.name === "NotFoundError" ? "there is none" : error.name === "NotAllowedError" ? "it was not allowed" : error.message}.`;
  } finally {
    isOpeningCamera = false;
  }
}

function stopCamera() {
  if (!camera) return;
  for (const track of camera.getTracks()) track.stop();
  camera = null;
  $("video").hidden = true;
  $("video").srcObject = null;
  $("pad").hidden = false;
  $("camera").textContent = "Camera";
}
