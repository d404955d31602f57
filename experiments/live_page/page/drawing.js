// The drawing panel: strokes, photos and the camera, and what the members say of them.

import { $, ask, bytes, element, number, percent, recall, remember } from "./talk.js";

const SIDE = 280;
let strokes = recall("strokes", []), current = null, photo = null, camera = null;
let cursor = { x: 140, y: 140, down: false, shown: false };
let latest = null, asking = false, again = false, answered = null, listeners = [];

export function begin() {
  const pad = $("pad");
  pad.addEventListener("pointerdown", down);
  pad.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, up);
  pad.addEventListener("keydown", key);
  pad.addEventListener("blur", () => { cursor.shown = cursor.down = false; current = null; paint(); });
  pad.addEventListener("focus", () => { cursor.shown = pad.matches(":focus-visible"); paint(); });
  $("undo").onclick = () => { strokes.pop(); changed(); };
  $("clear").onclick = clear;
  $("choose-photo").onclick = () => $("photo-file").click();
  $("photo-file").onchange = () => { take($("photo-file").files[0]); $("photo-file").value = ""; };
  $("camera").onclick = toggleCamera;
  const drop = $("drop");
  drop.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer.files[0]); });
  document.addEventListener("paste", (event) => { const [file] = event.clipboardData.files; if (file) take(file); });
  setInterval(refresh, 2000);
  paint();
}

export function status(now) {
  const isNew = latest?.run !== now.run;
  latest = now;
  if (isNew && (strokes.length || photo)) send();
}

// What the layers panel shows of a drawing: the content to post, or null.
export async function content() {
  if (photo) return { body: photo.file, query: "photo=1" };
  return strokes.length ? { body: await png(), query: "photo=0" } : null;
}

export function onAnswer(listener) {
  listeners.push(listener);
}

function position(event) {
  const box = $("pad").getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * SIDE, ((event.clientY - box.top) / box.height) * SIDE].map((v) => Math.round(v * 10) / 10);
}

function down(event) {
  if (event.button > 0) return;
  event.preventDefault();
  $("pad").focus({ preventScroll: true });
  cursor.shown = false;
  $("pad").setPointerCapture(event.pointerId);
  current = { width: Number($("brush").value), points: [position(event)] };
  strokes.push(current);
  changed();
}

function move(event) {
  if (!current || cursor.down) return;
  for (const part of event.getCoalescedEvents?.() ?? [event]) current.points.push(position(part));
  changed();
}

function up() {
  if (!cursor.down) current = null;  // all of it was sent as it moved
}

function key(event) {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (by) {
    const far = event.shiftKey ? 2 : 10;
    cursor.x = Math.min(Math.max(cursor.x + by[0] * far, 0), SIDE);
    cursor.y = Math.min(Math.max(cursor.y + by[1] * far, 0), SIDE);
    if (cursor.down) current.points.push([cursor.x, cursor.y]);
  } else if (event.key === " ") {
    cursor.down = !cursor.down;
    current = cursor.down ? { width: Number($("brush").value), points: [[cursor.x, cursor.y]] } : null;
    if (current) strokes.push(current);
  } else if (event.key === "Delete" || event.key === "Backspace") clear();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) strokes.pop();
  else return;
  event.preventDefault();
  cursor.shown = true;
  $("pen").textContent = cursor.down ? "The pen is down." : "The pen is up.";
  changed();
}

function clear() {
  strokes = [];
  photo = current = null;
  cursor.down = false;
  stopCamera();
  $("photo").hidden = true;
  $("pad").hidden = false;
  changed();
}

function changed() {
  remember("strokes", strokes);
  paint();
  send();
}

function paint() {
  const pen = $("pad").getContext("2d");
  paintStrokes(pen);
  if (!cursor.shown) return;
  pen.strokeStyle = "#b34700";
  pen.lineWidth = cursor.down ? 4 : 2;
  pen.beginPath();
  pen.arc(cursor.x, cursor.y, 8, 0, 7);
  pen.moveTo(cursor.x - 13, cursor.y);
  pen.lineTo(cursor.x + 13, cursor.y);
  pen.moveTo(cursor.x, cursor.y - 13);
  pen.lineTo(cursor.x, cursor.y + 13);
  pen.stroke();
}

function paintStrokes(pen) {
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, SIDE, SIDE);
  pen.strokeStyle = "#000";
  pen.lineCap = pen.lineJoin = "round";
  for (const { width, points } of strokes) {
    pen.lineWidth = width;
    pen.beginPath();
    pen.moveTo(...points[0]);
    for (const point of points) pen.lineTo(...point);
    if (points.length === 1) pen.lineTo(points[0][0] + 0.1, points[0][1]);
    pen.stroke();
  }
}

function png() {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  paintStrokes(canvas.getContext("2d"));
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function refresh() {
  // A drawing that stays is asked about again as the members learn.
  if (document.hidden || !answered || !latest || latest.state !== "training" || current) return;
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
  strokes = [];
  $("photo").src = URL.createObjectURL(file);
  $("photo").onerror = () => { $("photo").hidden = true; };
  $("photo").hidden = false;
  $("pad").hidden = true;
  remember("strokes", strokes);
  send();
}

async function toggleCamera() {
  if (camera) {
    const video = $("video");
    const canvas = Object.assign(document.createElement("canvas"), { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    stopCamera();
    take(blob);
    return;
  }
  try {
    if (!navigator.mediaDevices) throw new Error("a page of another machine may not use it without https");
    camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640 } });
  } catch (error) {
    $("pen").textContent = `No camera: ${error.name === "NotFoundError" ? "there is none" : error.name === "NotAllowedError" ? "it was not allowed" : error.message}.`;
    return;
  }
  $("pen").textContent = "";
  $("video").srcObject = camera;
  $("video").hidden = false;
  $("pad").hidden = $("photo").hidden = true;
  await $("video").play();
  $("camera").textContent = "Take the picture";
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
