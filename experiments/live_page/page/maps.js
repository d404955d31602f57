// Maps of a layer as one canvas of tiles, and one of them enlarged.

import { $, bytes, colour, element, number } from "./talk.js";

const GAP = 2;

// Packed values of the server: {shape: [n, height, width], data, min, max}, decoded.
export function unpack(packed) {
  return { ...packed, values: bytes(packed.data) };
}

// How many screen pixels a value gets, and how many tiles a row has.
function grid(shape, room) {
  const [count, height, width] = shape;
  const side = Math.max(height, width);
  const wanted = room < 500 ? 36 : 56; // screen pixels of a map; weights have few, of 4 each
  const scale = side <= 15 && count > 64 ? 4 : Math.max(1, Math.floor(wanted / side));
  const columns = Math.max(1, Math.min(count, Math.floor((room + GAP) / (width * scale + GAP))));
  return { scale, columns, rows: Math.ceil(count / columns) };
}

export function tiles(packed, label, room, open) {
  const [count, height, width] = packed.shape;
  const { scale, columns, rows } = grid(packed.shape, room);
  const step = { x: width * scale + GAP, y: height * scale + GAP };
  const canvas = element("canvas", { class: "maps", width: columns * step.x - GAP, height: rows * step.y - GAP, tabindex: "0", role: "button", "aria-label": `${label}: enlarge` });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingEnabled = false;
  for (let i = 0; i < count; i++) {
    pen.drawImage(tile(packed, i), (i % columns) * step.x, Math.floor(i / columns) * step.y, width * scale, height * scale);
  }
  canvas.onclick = (event) => {
    const shown = canvas.clientWidth / canvas.width;
    const column = Math.floor(event.offsetX / shown / step.x), row = Math.floor(event.offsetY / shown / step.y);
    open(Math.min(Math.max(row * columns + Math.min(column, columns - 1), 0), count - 1));
  };
  canvas.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open(0);
  };
  return canvas;
}

function tile(packed, i) {
  const [, height, width] = packed.shape;
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const image = new ImageData(width, height);
  const colours = packed.colours;
  for (let p = 0; p < width * height; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = packed.values[colours ? (c * height * width + p) : i * height * width + p];
    image.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Three maps as red, green and blue of one.
export function inColour(packed) {
  const [, height, width] = packed.shape;
  return { ...packed, shape: [1, height, width], colours: true };
}

// Weights [features, channels, height, width]: three channels in colour, others map by map.
export function filters(packed) {
  const [features, channels, height, width] = packed.shape;
  return { ...packed, shape: [features * channels, height, width], channelsShown: channels };
}

// Units of a dense layer as squares in rows.
export function unitTiles(packed, label, room, open) {
  const [, , length] = packed.shape;
  const side = length <= 64 ? 16 : length <= 256 ? 8 : 5;
  const columns = Math.max(1, Math.min(length, Math.floor(room / side)));
  const canvas = element("canvas", { class: "maps", width: columns * side, height: Math.ceil(length / columns) * side, tabindex: "0", role: "button", "aria-label": `${label}: enlarge` });
  const pen = canvas.getContext("2d");
  for (let i = 0; i < length; i++) {
    const v = packed.values[i];
    pen.fillStyle = `rgb(${v}, ${v}, ${v})`;
    pen.fillRect((i % columns) * side, Math.floor(i / columns) * side, side, side);
  }
  canvas.onclick = () => open(0);
  canvas.onkeydown = (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    open(0);
  };
  return canvas;
}

// What draws a list anew, but not while it is pressed: the click on what is replaced would be lost.
export function heldWhilePressed(list, draw) {
  let isPressed = false, isLate = false;
  const redraw = () => { isLate = isPressed; if (!isPressed) draw(); };
  const release = () => { isPressed = false; if (isLate) setTimeout(redraw); }; // the click comes first
  list.addEventListener("pointerdown", () => (isPressed = true));
  for (const name of ["pointerup", "pointercancel"]) addEventListener(name, release);
  return redraw;
}

let opened = null;

// Shows a map of a group; `find` gives the group as it is now, since it changes while one looks.
export function enlarge(title, find, i) {
  opened = { title, find, i };
  showOpened();
  if (!$("enlarged").open) $("enlarged").showModal();
}

export function showOpened() {
  if (!opened) return;
  const packed = opened.find();
  if (!packed) return;
  const [count, height, width] = packed.shape;
  opened.i = Math.min(opened.i, count - 1);
  const canvas = $("enlarged-map");
  const isRow = height === 1 && width > 40;
  const columns = isRow ? Math.ceil(Math.sqrt(width)) : width;
  const rows = isRow ? Math.ceil(width / columns) : height;
  canvas.width = columns;
  canvas.height = rows;
  const pen = canvas.getContext("2d");
  pen.fillStyle = colour("--card");
  pen.fillRect(0, 0, columns, rows);
  const small = tile(packed, opened.i);
  if (!isRow) pen.drawImage(small, 0, 0);
  else for (let row = 0; row < rows; row++) pen.drawImage(small, row * columns, 0, columns, 1, 0, row, columns, 1);
  $("enlarged-title").textContent = opened.title;
  const which = packed.channelsShown
    ? `Filter ${Math.floor(opened.i / packed.channelsShown) + 1}, channel ${(opened.i % packed.channelsShown) + 1}`
    : `Map ${opened.i + 1} of ${count}${packed.count > count && !isRow ? ` shown, ${packed.count} in all` : ""}`;
  $("enlarged-text").textContent = `${isRow ? `${width} units` : which}, ${isRow ? "" : `${width} x ${height}; `}black ${number(packed.min)}, white ${number(packed.max)}.`;
  canvas.setAttribute("aria-label", $("enlarged-text").textContent);
  $("previous-map").disabled = opened.i === 0;
  $("next-map").disabled = opened.i >= count - 1;
}

export function beginDialog() {
  const by = (step) => { opened.i = Math.max(0, opened.i + step); showOpened(); };
  $("previous-map").onclick = () => by(-1);
  $("next-map").onclick = () => by(1);
  $("close-map").onclick = () => $("enlarged").close();
  $("enlarged").addEventListener("close", () => (opened = null));
  $("enlarged").addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") by(-1);
    if (event.key === "ArrowRight") by(1);
  });
}
