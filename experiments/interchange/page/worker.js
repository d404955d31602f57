// Computes beside the page: weights once, then an answer to each drawing.

let members = null; // each a list of layers

onmessage = async ({ data }) => {
  try {
    if (data.model) postMessage(await load(data.model, data.weights));
    else postMessage(answer(data));
  } catch (error) {
    postMessage({ error: error.message });
  }
};

async function load(model, base64) {
  const content = await inflated(decoded(base64));
  members = model.members.map(({ layers }) => layers.map((layer) => ({ ...layer, weights: weightsOf(layer.weights, content) })));
  warmUp();
  return { ready: true };
}

// Browsers make code fast only once it has run; the first stroke should not wait for that.
function warmUp() {
  const side = 280;
  const bar = Uint8Array.from({ length: side * side }, (_, i) => (i % side > 130 && i % side < 140 ? 0 : 255));
  for (let i = 0; i < 3; i++) answer({ greys: bar, width: side, height: side, shown: 0 });
}

function decoded(base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function inflated(compressed) {
  const stream = new Blob([compressed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function weightsOf(described, content) {
  return Object.fromEntries(Object.entries(described).map(([name, array]) => [name, readArray(array, content)]));
}

// One array as it lies in the content: its values, and before them a step for each output if they are of 8 bits.
function readArray({ dtype, size, at, steps }, content) {
  if (dtype === "float32") return new Float32Array(content.slice(at, at + 4 * size).buffer);
  if (dtype === "float16") return Float32Array.from(new Uint16Array(content.slice(at, at + 2 * size).buffer), fromHalf);
  const step = new Float32Array(content.slice(at, at + 4 * steps).buffer);
  const whole = new Int8Array(content.buffer, at + 4 * steps, size);
  const values = new Float32Array(size);
  for (let i = 0; i < size; i++) values[i] = whole[i] * step[i % steps];
  return values;
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// `pixels` are those of a digit that is one already; `shown` is the member whose layers are wanted.
function answer({ greys, width, height, pixels, shown }) {
  const digit = pixels ?? toDigit(greys, width, height);
  if (!digit) return { blank: true };
  const outputs = members.map((layers) => outputsOf(layers, digit));
  const probabilities = outputs.map((own) => softmax(own.at(-1).values));
  return { pixels: digit, probabilities, ...together(probabilities), outputs: outputs[shown], shown };
}
