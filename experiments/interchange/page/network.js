// Networks as chains of layers. Values between layers are { values, height, width, channels }, row by row.

const LAYERS = { rescale, frame, conv, max_pool: maxPool, mean_pool: meanPool, dense };
const ACTIVATIONS = { relu: (x) => (x > 0 ? x : 0), scaled_tanh: (x) => 1.7159 * Math.tanh(x * (2 / 3)) };

// What each layer of a network makes of 28 x 28 bytes, the logits last.
function outputsOf(layers, pixels) {
  const side = Math.sqrt(pixels.length);
  let x = { values: Float32Array.from(pixels, (byte) => byte / 255), height: side, width: side, channels: 1 };
  return layers.map((layer) => (x = activated(LAYERS[layer.kind](x, layer.settings, layer.weights), layer.settings.activation)));
}

function activated(x, name) {
  const activation = ACTIVATIONS[name];
  if (activation) for (let i = 0; i < x.values.length; i++) x.values[i] = activation(x.values[i]);
  return x;
}

function empty(height, width, channels) {
  return { values: new Float32Array(height * width * channels), height, width, channels };
}

function rescale(x, { scale, shift }) {
  return { ...x, values: x.values.map((value) => value * scale + shift) };
}

// The middle of a picture, or the picture in the middle of zeros.
function frame(x, { side }) {
  const out = empty(side, side, x.channels);
  const top = Math.trunc((x.height - side) / 2), left = Math.trunc((x.width - side) / 2);
  for (let row = Math.max(0, -top); row < Math.min(side, x.height - top); row++) {
    for (let column = Math.max(0, -left); column < Math.min(side, x.width - left); column++) {
      const from = ((row + top) * x.width + column + left) * x.channels;
      out.values.set(x.values.subarray(from, from + x.channels), (row * side + column) * x.channels);
    }
  }
  return out;
}

function conv(x, { window, padding }, { kernel, bias }) {
  const features = bias.length;
  const out = empty(x.height + 2 * padding - window + 1, x.width + 2 * padding - window + 1, features);
  const seen = noneSeen(window * window * x.channels);
  for (let row = 0, to = 0; row < out.height; row++) {
    for (let column = 0; column < out.width; column++, to += features) {
      seen.count = 0;
      for (let down = 0; down < window; down++) {
        const y = row + down - padding;
        if (y < 0 || y >= x.height) continue;
        const first = Math.max(0, padding - column), last = Math.min(window, x.width + padding - column);
        const pixel = y * x.width + column - padding;
        see(seen, x.values, (pixel + first) * x.channels, (pixel + last) * x.channels, (down * window + first) * x.channels);
      }
      out.values.set(bias, to);
      addSeen(out.values, to, seen, kernel, features);
    }
  }
  return out;
}

function dense(x, _, { kernel, bias }) {
  const out = { values: bias.slice(), height: 1, width: 1, channels: bias.length };
  const seen = noneSeen(x.values.length);
  see(seen, x.values, 0, x.values.length, 0);
  addSeen(out.values, 0, seen, kernel, bias.length);
  return out;
}

// What an output sees that is not 0, which is little of it: values, and the rows of the kernel that belong to them.
function noneSeen(most) {
  return { values: new Float32Array(most), rows: new Int32Array(most), count: 0 };
}

function see(seen, values, from, to, row) {
  for (let i = from; i < to; i++, row++) {
    if (values[i] === 0) continue;
    seen.values[seen.count] = values[i];
    seen.rows[seen.count++] = row;
  }
}

// Adds their products with the kernel; four at once, since reading and writing `out` takes the most time.
function addSeen(out, to, { values, rows, count }, kernel, features) {
  const whole = count - (count % 4);
  for (let i = 0; i < whole; i += 4) {
    const a = rows[i] * features, b = rows[i + 1] * features, c = rows[i + 2] * features, d = rows[i + 3] * features;
    const u = values[i], v = values[i + 1], w = values[i + 2], x = values[i + 3];
    for (let j = 0; j < features; j++) out[to + j] += u * kernel[a + j] + v * kernel[b + j] + w * kernel[c + j] + x * kernel[d + j];
  }
  for (let i = whole; i < count; i++) {
    const from = rows[i] * features, value = values[i];
    for (let j = 0; j < features; j++) out[to + j] += value * kernel[from + j];
  }
}

// Squares side by side; one that hangs over the edge counts if sizes are rounded up.
function maxPool(x, { window, rounds_up }) {
  const round = rounds_up ? Math.ceil : Math.floor;
  const out = empty(round(x.height / window), round(x.width / window), x.channels);
  out.values.fill(-Infinity);
  eachPooled(x, out, window, (to, value) => { if (value > out.values[to]) out.values[to] = value; });
  return out;
}

function meanPool(x, { window }, { scale, bias }) {
  const out = empty(Math.floor(x.height / window), Math.floor(x.width / window), x.channels);
  eachPooled(x, out, window, (to, value) => { out.values[to] += value; });
  for (let i = 0; i < out.values.length; i++) {
    out.values[i] = (out.values[i] / window ** 2) * scale[i % x.channels] + bias[i % x.channels];
  }
  return out;
}

function eachPooled(x, out, window, add) {
  for (let row = 0; row < Math.min(x.height, out.height * window); row++) {
    for (let column = 0; column < Math.min(x.width, out.width * window); column++) {
      const from = (row * x.width + column) * x.channels;
      const to = (Math.floor(row / window) * out.width + Math.floor(column / window)) * x.channels;
      for (let channel = 0; channel < x.channels; channel++) add(to + channel, x.values[from + channel]);
    }
  }
}

function softmax(logits) {
  const most = Math.max(...logits);
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - most));
  const sum = exponentials.reduce((a, b) => a + b, 0);
  return exponentials.map((value) => value / sum);
}

// Members' probabilities combined, and in nats what is unsure about them: `mnist_jax.uncertainty.decompose`.
function together(members) {
  const mean = members[0].map((_, i) => members.reduce((sum, own) => sum + own[i], 0) / members.length);
  const total = entropyOf(mean);
  const aleatoric = members.reduce((sum, own) => sum + entropyOf(own), 0) / members.length;
  return { mean, entropy: total, mutual_information: Math.max(total - aleatoric, 0) };
}

function entropyOf(probabilities) {
  return Math.max(0, -probabilities.reduce((sum, p) => sum + (p > 0 ? p * Math.log(p) : 0), 0));
}
