// The training panel: what trains, how far it is, what steers it.

import { Chart, byErrors, logarithmic } from "./chart.js";
import { $, ask, count, duration, element, number, percent, post, recall, remember, typed } from "./talk.js";

const ADJUSTED = ["learning_rate", "beta1", "batch_size", "weight_decay", "dropout"];
const STATES = {
  preparing: "preparing: data and network", compiling: "compiling …", training: "training", paused: "paused",
  finished: "finished", failed: "failed", viewing: "trained already",
};
let menus, latest = null, points = [], clearedAt = recall("clearedAt", { run: 0, step: -1 });
let lossChart, accuracyChart, isGone = false, chosenRun = null;

export async function begin() {
  lossChart = new Chart($("loss-chart"), $("loss-chart-text"), logarithmic);
  lossChart.title = "Loss curve";
  accuracyChart = new Chart($("accuracy-chart"), $("accuracy-chart-text"), byErrors);
  accuracyChart.title = "Accuracy curves";
  $("go").onclick = () => trying(() => post(isGoing() ? "live/pause" : "live/go"));
  $("step").onclick = () => trying(() => post("live/step"));
  $("adjust").onsubmit = (event) => adjust(event);
  $("anew").onsubmit = (event) => startAnew(event);
  $("preset").onchange = () => fill($("preset").value);
  $("clear-graph").onclick = () => clear(latest?.step ?? 0);
  $("whole-graph").onclick = () => clear(-1);
  $("show-members").onchange = draw;
  $("load-snapshot").onclick = () => $("snapshot-file").click();
  $("snapshot-file").onchange = () => upload();
  for (const name of ADJUSTED) $(name).oninput = () => $(name).classList.add("changed");
  try {
    menus = await ask("live/choices");
  } catch (error) {
    problem(error.message);
    return;
  }
  options($("preset"), Object.keys(menus.presets));
  options($("dataset"), menus.datasets);
  options($("optimizer"), menus.optimizers);
  options($("members"), Array.from({ length: menus.ranges.members.most }, (_, i) => i + 1));
  fill(recall("preset", "simple"));
}

export function status(now) {
  const isNew = latest?.run !== now.run, told = latest?.message;
  latest = now;
  const viewing = now.state === "viewing";
  $("viewing").hidden = !viewing;
  for (const id of ["controls", "curves", "figures", "goals", "anew-part"]) $(id).hidden = viewing;
  const waits = ["preparing", "compiling"].includes(now.state);
  $("state").textContent = STATES[now.state];
  $("go").textContent = isGoing() ? "Pause" : now.step ? "Go on" : "Start";
  enable(!isGone);
  $("headline").textContent = headline(now);
  if (now.message) problem(now.message);
  else if (told) problem(""); // what the page itself has to say stays
  if (now.config) {
    for (const name of ADJUSTED) showAdjusted(name, now.config, isNew);
    $("momentum-note").textContent = { adam: "Of Adam, momentum is β1.", adadelta: "Adadelta has no momentum." }[now.config.optimizer] ?? "";
    figures(now);
  }
  $("what").textContent = what(now);
  document.title = `${waits ? STATES[now.state] : now.step ? `step ${count(now.step)}` : now.state} – mnist_jax live`;
}

export function curve(news) {
  points = [...points.slice(0, news.from), ...news.points];
  draw();
}

export function gone(is) {
  isGone = is;
  enable(!is);
}

// A single step is not going on: what is pressed during one is to go on after it.
const isGoing = () => Boolean(latest?.going);

function headline(now) {
  if (now.state === "viewing") return `${now.members.length} trained ${plural("member", now.members.length)} of ${now.dataset ?? "a workdir"}`;
  if (!now.config) return STATES[now.state];
  const together = now.validation_accuracy?.at(-1);
  const accuracy = together == null ? "" : `, ${percent(together)} right on validation images`;
  return `${now.members.length} x ${now.network}, ${STATES[now.state]}, epoch ${now.epoch + 1 > now.epochs ? now.epochs : now.epoch + 1} of ${now.epochs}${accuracy}`;
}

function what(now) {
  if (!now.config) return now.members?.length ? `${now.members.join(", ")}${now.source ? `; test images of ${now.dataset} (${now.source})` : ""}` : "";
  return (
    `${now.members.length} x ${now.network} of ${count(now.parameters)} parameters, on ${count(now.train_images)} images of ${now.dataset} ` +
    `(${now.source}), ${now.config.optimizer}, ${now.devices}` +
    (now.config.augment === "none" ? "" : `, images changed at random (${now.config.augment})`)
  );
}

const plural = (word, n) => (n === 1 ? word : `${word}s`);

function showAdjusted(name, config, isNew) {
  const input = $(name);
  const value = config[name] ?? (name === "dropout" ? menus?.presets[config.network]?.dropout : null);
  const has = !(name === "dropout" && value == null) && !(name === "beta1" && config.optimizer === "adadelta");
  input.disabled = !has || isGone;
  input.nextElementSibling.disabled = !has || isGone;
  if (!has) input.value = "none";
  else if (isNew || (document.activeElement !== input && !input.classList.contains("changed"))) {
    const text = String(value);
    if (input.value !== text) input.value = text;
    input.classList.remove("changed");
  }
}

function figures(now) {
  const several = now.members.length > 1;
  const together = (values) => (values == null ? "–" : percent(values.at(-1)));
  const rows = {
    "Examples seen": count(now.examples),
    "Step": `${count(now.step)} (${count(now.steps_in_epoch)} of ${count(now.steps_per_epoch)} in the epoch)`,
    "Images a second": now.images_per_second ? count(now.images_per_second) : "–",
    "Forward, an example": `${number(now.forward_ms)} ms`,
    "Backward, an example": `${number(now.backward_ms)} ms`,
    "Time trained": duration(now.seconds),
    "Time left": duration(now.seconds_left),
    "Classification loss": number(now.loss),
    "L2 decay loss": number(now.decay_loss),
    [several ? "Training, together" : "Training accuracy"]: together(now.train_accuracy),
    [several ? "Validation, together" : "Validation accuracy"]: together(now.validation_accuracy),
  };
  if (several && now.validation_accuracy) {
    const alone = now.validation_accuracy.slice(0, -1);
    rows["Validation, each"] = `${percent(Math.min(...alone))} to ${percent(Math.max(...alone))}`;
  }
  const list = $("figures");
  Object.entries(rows).forEach(([name, value], i) => {
    const row = list.children[i] ?? list.appendChild(element("div", {}, element("dt"), element("dd")));
    row.children[0].textContent = name;
    row.children[1].textContent = value;
  });
  while (list.children.length > Object.keys(rows).length) list.lastChild.remove();
  const reached = now.goals.map((goal) => `${Number((100 * goal.accuracy).toFixed(1))} % after ${duration(goal.seconds)} (${duration(goal.wall_seconds)} by the clock, ${count(goal.examples)} examples)`);
  $("goals").textContent = reached.length ? `Validation reached ${reached.join(", ")}; time without compilation, accuracy of the last ${count(now.goals[0].images)} or more images.` : "";
}

function draw() {
  const after = latest && clearedAt.run === latest.run ? clearedAt.step : -1;
  $("whole-graph").hidden = after < 0;
  const shown = points.filter((point) => point.step > after);
  const members = shown.length ? shown[0].loss.length : 0;
  const each = $("show-members").checked && members > 1;
  const line = (name, take, options) => ({
    name, named: true, mark: "━", colour: "--validation", dash: [], width: 2.5, text: (value) => number(value), ...options,
    points: shown.map((point) => [point.step, take(point)]).filter(([, value]) => value != null),
  });
  const lines = (take, style) => (each ? Array.from({ length: members }, (_, i) => line(`member ${i}`, (point) => take(point)?.[i], { width: 1, dash: [1, 2], colour: "--member", named: false, ...style })) : []);
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  lossChart.show([
    ...lines((point) => point.loss),
    line("training", (point) => mean(point.loss), { colour: "--train", dash: [6, 3], mark: "╍" }),
    line("validation", (point) => point.validation_loss),
  ]);
  const text = (value) => percent(value);
  const all = members > 1 ? " together" : "";
  accuracyChart.show([
    ...lines((point) => point.validation),
    line(`training${all}`, (point) => point.train?.at(-1), { colour: "--train", dash: [6, 3], mark: "╍", text }),
    line(`validation${all}`, (point) => point.validation?.at(-1), { text }),
  ]);
}

function clear(step) {
  clearedAt = { run: latest?.run ?? 0, step };
  remember("clearedAt", clearedAt);
  draw();
}

function options(select, values) {
  select.replaceChildren(...values.map((value) => element("option", { value }, String(value))));
}

function fill(name) {
  const preset = menus.presets[name] ?? menus.presets.simple;
  $("preset").value = name in menus.presets ? name : "simple";
  remember("preset", $("preset").value);
  $("preset-text").textContent = preset.text;
  $("members").value = preset.members;
  $("dataset").value = preset.dataset;
  $("optimizer").value = preset.optimizer;
  $("epochs").value = preset.epochs;
  $("layers-field").hidden = preset.layers == null;
  $("layers-text").value = (preset.layers ?? "").split("; ").join("\n");
}

async function startAnew(event) {
  event.preventDefault();
  const form = {
    preset: $("preset").value, members: Number($("members").value), dataset: $("dataset").value, optimizer: $("optimizer").value,
    epochs: typed($("epochs").value) ?? $("epochs").value,
  };
  const preset = menus.presets[form.preset];
  // Another optimizer has another usual rate.
  const usual = { adam: 0.001, sgd: 0.05, momentum: 0.05, adadelta: 1 };
  if (form.optimizer !== preset.optimizer) form.learning_rate = usual[form.optimizer];
  if (preset.layers != null) form.layers = $("layers-text").value;
  await trying(() => post("live/start", form));
}

async function adjust(event) {
  event.preventDefault();
  const pressed = event.submitter?.previousElementSibling?.id;
  const focused = ADJUSTED.includes(document.activeElement?.id) ? document.activeElement.id : null;
  // Enter submits by the first button of the form; what is meant is the field it was pressed in.
  const name = focused ?? pressed;
  const value = typed($(name).value);
  const done = await trying(() => post("live/adjust", { [name]: value ?? $(name).value }));
  if (done) $(name).classList.remove("changed");
}

async function upload() {
  const [file] = $("snapshot-file").files;
  $("snapshot-file").value = "";
  if (!file) return;
  $("snapshot-note").textContent = `Loading ${file.name} …`;
  const done = await trying(() => ask("live/snapshot", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } }));
  $("snapshot-note").textContent = done ? `${file.name} is loaded; it waits.` : "";
}

async function trying(work) {
  problem("");
  try {
    await work();
    return true;
  } catch (error) {
    problem(error.message);
    return false;
  }
}

function enable(is) {
  for (const button of document.querySelectorAll("#controls button, #anew button, #load-snapshot")) button.disabled = !is;
  if (is && latest?.config) for (const name of ADJUSTED) showAdjusted(name, latest.config, false);
}

function problem(text) {
  if ($("problem").textContent !== text) $("problem").textContent = text;
}
