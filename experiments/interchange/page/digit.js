// A drawing as MNIST has digits: `mnist_jax.images.of_ink`, step by step and number by number.

const DIGIT_SIDE = 28, BOX = 20, CENTRE = 14;
const LEAST_STROKE = 2; // pixels of the box; MNIST's strokes are 2 to 4 wide
const FAINT = 0.02, INK = 0.3; // of black

// Greys of black ink on white, row by row, to 28 x 28 bytes of white ink on black; null where nothing is drawn.
function toDigit(greys, width, height) {
  const ink = cropped(greys, width, height);
  return ink && placed(scaled(thickened(ink)));
}

function cropped(greys, width, height) {
  const darkness = new Float32Array(width * height);
  let left = width, top = height, right = -1, bottom = -1;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      darkness[i] = 1 - Math.fround(greys[i] / 255);
      if (darkness[i] <= INK) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  if (right < 0) return null;
  const cut = emptyPicture(right - left + 1, bottom - top + 1);
  for (let y = 0, i = 0; y < cut.height; y++) {
    for (let x = 0; x < cut.width; x++, i++) {
      const value = darkness[(top + y) * width + left + x];
      cut.values[i] = value > FAINT ? value : 0;
    }
  }
  return cut;
}

function emptyPicture(width, height) {
  return { width, height, values: new Float32Array(width * height) };
}

// Strokes that would be thinner than MNIST's in the box of 20 are widened by a disk.
function thickened(ink) {
  const strokeWidth = 4 * meanDepth(ink) - 1; // a stroke's pixels are on average a quarter deep
  const radius = (LEAST_STROKE / (BOX / Math.max(ink.width, ink.height)) - strokeWidth) / 2;
  if (radius < 0.5) return ink;
  const reach = Math.ceil(radius);
  const wide = emptyPicture(ink.width + 2 * reach, ink.height + 2 * reach);
  for (let y = 0, i = 0; y < ink.height; y++) {
    for (let x = 0; x < ink.width; x++, i++) {
      if (ink.values[i] > 0) stamp(wide, x + reach, y + reach, radius, reach, ink.values[i]);
    }
  }
  return wide;
}

function stamp(picture, x, y, radius, reach, value) {
  for (let dy = -reach; dy <= reach; dy++) {
    const half = Math.floor(Math.sqrt(radius * radius - dy * dy)); // NaN beyond the radius
    for (let dx = -half; dx <= half; dx++) {
      const i = (y + dy) * picture.width + x + dx;
      if (picture.values[i] < value) picture.values[i] = value;
    }
  }
}

// The mean distance of ink to the nearest pixel without, which is also around the picture.
function meanDepth({ width, height, values }) {
  const down = new Float32Array(width * height); // to the nearest one in the same column
  for (let x = 0; x < width; x++) {
    for (let y = 0, far = 0; y < height; y++) down[y * width + x] = far = values[y * width + x] > 0.5 ? far + 1 : 0;
    for (let y = height - 1, far = 0; y >= 0; y--) {
      const i = y * width + x;
      far = values[i] > 0.5 ? far + 1 : 0;
      down[i] = Math.min(down[i], far);
    }
  }
  let sum = 0, count = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      if (!down[i]) continue;
      let nearest = down[i] ** 2;
      for (let dx = 1; dx * dx < nearest; dx++) {
        const left = x - dx < 0 ? 0 : down[i - dx], right = x + dx >= width ? 0 : down[i + dx];
        nearest = Math.min(nearest, dx * dx + Math.min(left, right) ** 2);
      }
      sum += Math.sqrt(nearest);
      count++;
    }
  }
  return sum / count;
}

// Fitted into 20 x 20 with its aspect ratio, by Pillow's resampling with a Hamming window.
function scaled(ink) {
  const scale = BOX / Math.max(ink.width, ink.height);
  const wide = resampled(ink, Math.max(1, roundToEven(ink.width * scale)));
  const turned = resampled(transposed(wide), Math.max(1, roundToEven(ink.height * scale)));
  return transposed(turned);
}

function resampled(picture, width) {
  const out = emptyPicture(width, picture.height);
  const step = picture.width / width, support = Math.max(step, 1);
  for (let x = 0; x < width; x++) {
    const centre = (x + 0.5) * step;
    const from = Math.max(0, Math.floor(centre - support + 0.5));
    const to = Math.min(picture.width, Math.floor(centre + support + 0.5));
    const weights = Float64Array.from({ length: to - from }, (_, i) => hamming((from + i - centre + 0.5) / support));
    const total = weights.reduce((a, b) => a + b, 0);
    for (let y = 0; y < picture.height; y++) {
      let sum = 0;
      for (let i = 0; i < weights.length; i++) sum += picture.values[y * picture.width + from + i] * (weights[i] / total);
      out.values[y * width + x] = sum;
    }
  }
  return out;
}

function hamming(x) {
  if (x === 0) return 1;
  if (Math.abs(x) >= 1) return 0;
  const angle = Math.PI * Math.abs(x);
  return (Math.sin(angle) / angle) * (0.54 + 0.46 * Math.cos(angle));
}

function transposed({ width, height, values }) {
  const out = emptyPicture(height, width);
  for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) out.values[x * height + y] = values[y * width + x];
  return out;
}

// In 28 x 28, the centre of mass in the middle.
function placed({ width, height, values }) {
  let mass = 0, across = 0, down = 0, most = 0;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      const value = (values[i] = Math.min(Math.max(values[i], 0), 1));
      mass += value;
      across += value * x;
      down += value * y;
      most = Math.max(most, value);
    }
  }
  const top = Math.min(Math.max(roundToEven(CENTRE - down / mass), 0), DIGIT_SIDE - height);
  const left = Math.min(Math.max(roundToEven(CENTRE - across / mass), 0), DIGIT_SIDE - width);
  const pixels = new Uint8Array(DIGIT_SIDE * DIGIT_SIDE);
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) {
      pixels[(top + y) * DIGIT_SIDE + left + x] = roundToEven(Math.fround(Math.fround(255 * values[i]) / most));
    }
  }
  return pixels;
}

// Halves go to the even number, as Python's and NumPy's do.
function roundToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
