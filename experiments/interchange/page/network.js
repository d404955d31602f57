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

// Each value is added to all outputs that see it; most are 0 and seen by none.
function conv(x, { window, padding }, { kernel, bias }) {
  const features = bias.length;
  const out = empty(x.height + 2 * padding - window + 1, x.width + 2 * padding - window + 1, features);
  for (let i = 0; i < out.values.length; i += features) out.values.set(bias, i);
  for (let row = 0, i = 0; row < x.height; row++) {
    for (let column = 0; column < x.width; column++) {
      for (let channel = 0; channel < x.channels; channel++, i++) {
        const value = x.values[i];
        if (value !== 0) addSeen(out, value, kernel, window, x.channels, channel, row + padding, column + padding);
      }
    }
  }
  return out;
}

function addSeen(out, value, kernel, window, channels, channel, row, column) {
  const features = out.channels;
  for (let down = 0; down < window; down++) {
    const y = row - down;
    if (y < 0 || y >= out.height) continue;
    for (let across = 0; across < window; across++) {
      const x = column - across;
      if (x < 0 || x >= out.width) continue;
      addProduct(out.values, (y * out.width + x) * features, value, kernel, ((down * window + across) * channels + channel) * features, features);
    }
  }
}

function addProduct(out, at, value, kernel, from, count) {
  for (let i = 0; i < count; i++) out[at + i] += value * kernel[from + i];
}

function dense(x, _, { kernel, bias }) {
  const out = { values: bias.slice(), height: 1, width: 1, channels: bias.length };
  for (let i = 0; i < x.values.length; i++) {
    if (x.values[i] !== 0) addProduct(out.values, 0, x.values[i], kernel, i * bias.length, bias.length);
  }
  return out;
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
