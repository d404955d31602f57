// The drawing field: strokes by pointer or by keyboard, black on white.

import { $, recall, remember } from "./talk.js";

const SIDE = 280;
let strokes = recall("strokes", []), current = null, tell = null;
let cursor = { x: 140, y: 140, down: false, shown: false };

// `whom.changed()` is called after each change of the strokes, `whom.clear()` where all is to go.
export function beginPad(whom) {
  tell = whom;
  const pad = $("pad");
  pad.addEventListener("pointerdown", down);
  pad.addEventListener("pointermove", move);
  for (const name of ["pointerup", "pointercancel"]) pad.addEventListener(name, up);
  pad.addEventListener("keydown", key);
  pad.addEventListener("blur", () => { cursor.shown = cursor.down = false; current = null; paint(); });
  pad.addEventListener("focus", () => { cursor.shown = pad.matches(":focus-visible"); paint(); });
  $("undo").onclick = () => { strokes.pop(); changed(); };
  $("clear").onclick = tell.clear;
  paint();
}

export const hasStrokes = () => strokes.length > 0;
export const isDrawing = () => current !== null;

export function clearStrokes() {
  strokes = [];
  current = null;
  cursor.down = false;
  changed();
}

export function paintStrokes(pen) {
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

// A canvas of the field's size, for what has been drawn and not the keyboard's cursor.
export function newCanvas() {
  return Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
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
  if (!cursor.down) current = null;
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
  } else if (event.key === "Delete" || event.key === "Backspace") tell.clear();
  else if (event.key === "z" && (event.ctrlKey || event.metaKey)) strokes.pop();
  else return;
  event.preventDefault();
  cursor.shown = true;
  $("pen").textContent = cursor.down ? "The pen is down." : "The pen is up.";
  changed();
}

function changed() {
  remember("strokes", strokes);
  paint();
  tell.changed();
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
