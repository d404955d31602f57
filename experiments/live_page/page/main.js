// The stream of what has changed, and which panel is told what.

import { $ } from "./talk.js";
import * as training from "./training.js";
import * as drawing from "./drawing.js";
import * as layers from "./layers.js";
import * as predictions from "./predictions.js";

let stream = null;
let lost = null; // a timer: a moment's silence is no news

function connect() {
  if (stream || document.hidden) return;
  stream = new EventSource("live/events");
  stream.onopen = () => gone(null);
  stream.onerror = () => {
    lost ??= setTimeout(() => gone("The server does not answer. Was it stopped? This page goes on by itself once it is back."), 1500);
    if (stream.readyState === EventSource.CLOSED) {
      close();
      setTimeout(connect, 3000);
    }
  };
  on("status", (status) => {
    gone(null);
    training.status(status);
    drawing.status(status);
    layers.status(status);
    predictions.status(status);
  });
  on("curve", training.curve);
  on("predictions", predictions.show);
  stream.addEventListener("stopped", () => gone("The server was stopped. What was trained is saved in its folder runs/."));
}

function on(name, tell) {
  stream.addEventListener(name, (event) => tell(JSON.parse(event.data)));
}

function close() {
  stream?.close();
  stream = null;
}

function gone(message) {
  clearTimeout(lost);
  lost = null;
  const before = $("banner").textContent;
  if (message && before && !$("banner").hidden) return; // the first reason is the best
  $("banner").hidden = !message;
  $("banner").textContent = message ?? "";
  document.body.classList.toggle("gone", Boolean(message));
  training.gone(Boolean(message));
  if (message) $("headline").textContent = "Not connected.";
}

// A page that nobody sees costs nothing.
document.addEventListener("visibilitychange", () => (document.hidden ? close() : connect()));
addEventListener("pagehide", close);
addEventListener("pageshow", connect);

drawing.begin();
layers.begin();
predictions.begin();
await training.begin();
connect();
