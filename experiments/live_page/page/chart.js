// Curves on a canvas: guide lines with values, lines told apart by dashes and by their names.

import { colour, number } from "./talk.js";

const MARGIN = { left: 52, right: 12, top: 10, bottom: 26 };

// Scales: a value's height from 0 to 1, and the guide lines between two values.
export const logarithmic = {
  place: (value) => Math.log10(Math.max(value, 1e-6)),
  guides(least, most) {
    const found = [];
    for (let power = Math.floor(Math.log10(least)); power <= Math.ceil(Math.log10(most)); power++)
      for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
    return thinned(found.filter((value) => value >= least && value <= most), 9);
  },
  text: (value) => number(value, 2),
};

const LEAST_ERROR = 5e-4;
export const byErrors = {
  place: (value) => -Math.log10(Math.max(1 - value, LEAST_ERROR)),
  guides: (least, most) =>
    [0, 0.2, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999].filter((value) => value >= least && value <= most),
  text: (value) => `${Number((100 * value).toFixed(1))} %`,
};

function thinned(values, most) {
  const every = Math.ceil(values.length / most);
  return values.filter((_, i) => i % every === 0);
}

export class Chart {
  constructor(canvas, readout, scale) {
    Object.assign(this, { canvas, readout, scale, lines: [], at: null });
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    canvas.addEventListener("pointermove", (event) => this.point(event.offsetX));
    canvas.addEventListener("pointerleave", () => this.choose(null));
    canvas.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      const steps = this.steps();
      const now = this.at == null ? steps.length : steps.indexOf(this.at);
      this.choose(steps[Math.min(Math.max(now + by, 0), steps.length - 1)]);
    });
  }

  // Lines: {name, colour, dash, width, points: [[step, value], ...]}
  show(lines) {
    this.lines = lines.filter((line) => line.points.length);
    this.draw();
  }

  steps() {
    return this.lines.length ? this.lines[0].points.map(([step]) => step) : [];
  }

  range() {
    const steps = this.lines.flatMap((line) => line.points.map(([step]) => step));
    const values = this.lines.flatMap((line) => line.points.map(([, value]) => value));
    const first = Math.min(...steps), last = Math.max(...steps);
    let least = Math.min(...values), most = Math.max(...values);
    if (this.scale === logarithmic) [least, most] = [least * 0.8, most * 1.25];
    else [least, most] = [Math.max(least - 0.05, 0), Math.min(most + (1 - most) * 0.3, 1)];
    return { from: first > 50 ? first : 0, to: Math.max(last, first + 1), least, most };
  }

  draw() {
    const { canvas, scale } = this;
    const ratio = devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, sans-serif";
    const quiet = colour("--quiet"), guide = colour("--guide");
    if (!this.lines.length) {
      pen.fillStyle = quiet;
      pen.fillText("Nothing to show yet.", MARGIN.left, height / 2);
      this.readout.textContent = "";
      canvas.setAttribute("aria-label", `${this.title}. Nothing to show yet.`);
      return;
    }
    const { from, to, least, most } = (this.spans = this.range());
    const low = scale.place(least), high = Math.max(scale.place(most), low + 1e-3);
    const x = (step) => MARGIN.left + ((step - from) / (to - from)) * (width - MARGIN.left - MARGIN.right);
    const y = (value) => height - MARGIN.bottom - ((scale.place(value) - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
    Object.assign(this, { x });
    pen.lineWidth = 1;
    pen.strokeStyle = guide;
    pen.fillStyle = quiet;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const value of scale.guides(least, most)) {
      stroke(pen, [[MARGIN.left, y(value)], [width - MARGIN.right, y(value)]]);
      pen.fillText(scale.text(value), MARGIN.left - 6, y(value));
    }
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const step of guidesOf(from, to, width < 500 ? 5 : 10)) {
      stroke(pen, [[x(step), MARGIN.top], [x(step), height - MARGIN.bottom]]);
      pen.fillText(inThousands(step), Math.min(x(step), width - 18), height - MARGIN.bottom + 6);
    }
    for (const line of this.lines) {
      pen.strokeStyle = colour(line.colour);
      pen.lineWidth = line.width;
      pen.setLineDash(line.dash);
      stroke(pen, line.points.map(([step, value]) => [x(step), y(value)]));
      if (line.points.length === 1) {
        pen.fillStyle = colour(line.colour);
        pen.fillRect(x(line.points[0][0]) - 2, y(line.points[0][1]) - 2, 4, 4);
      }
    }
    pen.setLineDash([]);
    if (this.at != null) {
      pen.strokeStyle = quiet;
      pen.lineWidth = 1;
      stroke(pen, [[x(this.at), MARGIN.top], [x(this.at), height - MARGIN.bottom]]);
    }
    this.say();
  }

  point(offset) {
    if (!this.lines.length || !this.x) return;
    const nearest = this.steps().reduce((a, b) => (Math.abs(this.x(b) - offset) < Math.abs(this.x(a) - offset) ? b : a));
    this.choose(nearest);
  }

  choose(step) {
    this.at = step ?? null;
    this.draw();
  }

  say() {
    const named = this.lines.filter((line) => line.named);
    const steps = this.steps();
    const at = this.at ?? steps[steps.length - 1];
    const parts = named.map((line) => {
      const point = line.points.findLast(([step]) => step <= at) ?? line.points[0];
      return `${line.mark} ${line.name} ${line.text(point[1])}`;
    });
    const text = `Step ${at.toLocaleString("en")}: ${parts.join(" · ")}`;
    if (this.readout.textContent !== text) this.readout.textContent = text;
    this.canvas.setAttribute("aria-label", `${this.title}. ${text}. Arrow keys go along it.`);
  }
}

function stroke(pen, points) {
  pen.beginPath();
  points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  pen.stroke();
}

function guidesOf(from, to, most) {
  const rough = (to - from) / most;
  const power = 10 ** Math.floor(Math.log10(Math.max(rough, 1)));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough) ?? 10 * power;
  const found = [];
  for (let value = Math.ceil(from / step) * step; value <= to; value += step) found.push(value);
  return found;
}

const inThousands = (step) => (step >= 1000 ? `${Number((step / 1000).toFixed(1))}k` : String(step));
