// The predictions panel: the last test images, confusions, the hardest images.

import { $, count, element, percent, post } from "./talk.js";

let latest = null, seen = new Set(), wished = null; // for averages, until the server says the same

export function begin() {
  $("averages").onchange = async () => {
    wished = $("averages").checked;
    try {
      await post("live/averages", { on: wished });
    } catch (error) {
      wished = null;
      $("test-accuracy").textContent = error.message;
    }
  };
}

export function status(now) {
  if (latest?.run !== now.run) {
    seen = new Set();
    wished = null;
  }
  latest = now;
  if (now.test_images === 0 && now.members.length) $("test-accuracy").textContent = "There are no test images here.";
}

export function show(now) {
  if (wished === null || wished === now.averages > 0) {
    wished = null;
    $("averages").checked = now.averages > 0;
  }
  if (!now.count) {
    if (latest?.test_images) $("test-accuracy").textContent = "None yet.";
    for (const id of ["recent", "wrong", "differing", "confusion"]) $(id).replaceChildren();
    return;
  }
  const several = now.member_accuracies.length > 1;
  const alone = several ? `; members alone ${percent(Math.min(...now.member_accuracies))} to ${percent(Math.max(...now.member_accuracies))}` : "";
  $("test-accuracy").textContent = `${percent(now.accuracy)} of the last ${now.accuracy_of} are right${alone}; of the last ${count(now.count)}, ${percent(now.accuracy_of_all)}.`;
  const card = (size) => (row) => cardOf(row, now.images, size);
  $("recent").replaceChildren(...now.recent.map(card(3)));
  $("wrong").replaceChildren(...now.wrong.map(card(1)));
  $("differing").replaceChildren(...now.differing.map((row) => cardOf(row, now.images, 0)));
  $("wrong-count").textContent = `(${now.wrong_count} of ${count(now.count)})`;
  $("differing-count").textContent = `(${now.differing_count} of ${count(now.count)})`;
  $("differing-part").hidden = !several;
  confusion(now.confusion);
  seen = new Set(now.recent.map((row) => row.place));
}

function cardOf(row, images, bars) {
  const verdict = row.right ? element("span", { class: "verdict right" }, `✓ ${row.label}`) : element("span", { class: "verdict wrong" }, `✗ ${row.bars[0][0]}, is ${row.label}`);
  const image = element("img", { class: "pixels", src: `live/image/${images}/${row.place}.png`, alt: `Test image ${row.place}, a ${row.label}`, width: 56, height: 56 });
  const said = element("div", { class: "said" }, verdict, ...row.bars.slice(0, bars).map((bar) => barOf(bar, row)));
  if (!bars) said.append(element("div", {}, `votes: ${row.votes.join(" ")}`));
  return element("li", { class: bars === 3 && !seen.has(row.place) ? "fresh" : "" }, image, said);
}

function barOf([name, probability], row) {
  const isLabel = name === row.label;
  const mistaken = !isLabel && !row.right && name === row.bars[0][0];
  const fill = element("span", { class: "fill" });
  fill.style.width = `${Math.max(100 * probability, 0.5)}%`;
  const text = `${name}: ${percent(probability)}`;
  return element("div", { class: `bar ${isLabel ? "is-label" : ""} ${mistaken ? "mistaken" : ""}`, role: "img", "aria-label": text, title: text },
    element("span", { class: "name" }, `${isLabel ? "✓" : mistaken ? "✗" : ""}${name}`), element("span", { class: "track" }, fill));
}

function confusion(matrix) {
  const names = latest?.class_names ?? matrix.map((_, i) => String(i));
  const head = element("tr", {}, element("td"), ...names.map((name) => element("th", { scope: "col" }, name)));
  const rows = matrix.map((counts, label) => {
    const all = Math.max(counts.reduce((a, b) => a + b, 0), 1);
    const cells = counts.map((n, answer) => {
      const cell = element("td", { class: label === answer ? "diagonal" : "off" }, n ? String(n) : "");
      cell.style.backgroundColor = n ? `rgba(${getComputedStyle(document.documentElement).getPropertyValue("--cell")}, ${0.08 + (0.4 * n) / all})` : "";
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row" }, names[label]), ...cells);
  });
  $("confusion").replaceChildren(element("caption", {}, "Rows: what it is; columns: what it was taken for. Outlined: mistakes."), element("thead", {}, head), element("tbody", {}, ...rows));
}
