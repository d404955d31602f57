// For one CPU core. For the labs (`MNIST_JAX_LABS`): relu(max_pool(conv(images, kernel) + bias)) in
// one pass over memory, and matrix products that skip a factor's zeros. For deeper networks
// (`MNIST_JAX_WINDOWS`): convolutions and pools of any window, and sums by channel. Each with its
// gradient. `kernels.py` builds this file, calls it, and says what it takes.
//
// Arrays are as in JAX: images [n, height, width, channels], kernel [size, size, channels,
// features], pooled values [n, pooled_height, pooled_width, features]. Of each pooled value there
// is a byte of places: bit i is set where place i of its 2x2 square (row by row) is the maximum,
// and none where that is not above 0. It is all that the gradient needs to know of the forward
// pass.
//
// Forward, a convolution of several channels, 3x3, is Winograd's F(4x4, 3x3), with a third of the
// multiplications (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural Networks",
// section 4): tiles of 6x6 pixels, the kernel and 4x4 outputs are transformed by small matrices,
// and between them stand 36 matrix products, one for each position in a tile. Tiles are worked on
// in blocks that stay in the cache. A convolution of one channel, a first layer, is done directly.
//
// What comes back through pooling is zero at three places of four, and at more behind relu and
// dropout: backward, and in the matrix products, what is not zero is listed and the rest skipped.

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <type_traits>
#include <vector>

#include "xla/ffi/api/ffi.h"

// What takes arrays of vectors is inlined everywhere: only then do they stay in registers.
#define INLINE_LAMBDA __attribute__((always_inline))
#define INLINE inline INLINE_LAMBDA

namespace {

namespace ffi = xla::ffi;
using Index = std::int64_t;
using Byte = std::uint8_t;

// Vectors of W floats, which compilers build from whatever the processor has.
template <int W>
struct Lanes {
  typedef float Float __attribute__((vector_size(4 * W)));
  typedef std::int32_t Int __attribute__((vector_size(4 * W)));
  typedef Byte Bytes __attribute__((vector_size(W)));
};

#ifdef __AVX512F__
constexpr int kLanes = 16, kVectors = 4;  // 6 x 4 sums fill 24 of 32 registers
#else
constexpr int kLanes = 8, kVectors = 2;  // 6 x 2 sums fill 12 of 16 registers, or 24 of NEON's 32
#endif
constexpr int kRows = 6;
constexpr int kSums = 96 / kLanes;  // vectors, in registers, of 3 x 32 channels at a time
constexpr int kFewestLanes = 8;

template <class Vector, class T>
INLINE Vector load(const T* from) {
  Vector vector;
  std::memcpy(&vector, from, sizeof vector);
  return vector;
}

template <class Vector, class T>
INLINE void store(T* to, Vector vector) {
  std::memcpy(to, &vector, sizeof vector);
}

constexpr std::uintptr_t kLine = 64;  // bytes of a cache line

// Stores past the caches where the processor can, which a large result would only empty. `to` is
// aligned like a vector, and `finish_streams` is to follow.
template <class Vector>
INLINE void stream(float* to, Vector vector) {
#if defined __AVX512F__
  _mm512_stream_ps(to, reinterpret_cast<__m512>(vector));
#elif defined __AVX__
  _mm256_stream_ps(to, reinterpret_cast<__m256>(vector));
#else
  store(to, vector);
#endif
}

inline void finish_streams() {
#ifdef __x86_64__
  _mm_sfence();
#endif
}

// Calls `body(lanes, vectors, start)` for panels of 0..n, n a multiple of kFewestLanes:
// of `Vectors` vectors and, at the end, of fewer.
template <int Vectors, int W = kLanes, class Body>
INLINE void for_panels(Index n, Body body, Index start = 0) {
  for (; start + W * Vectors <= n; start += W * Vectors)
    body(std::integral_constant<int, W>{}, std::integral_constant<int, Vectors>{}, start);
  if constexpr (Vectors > 1)
    for_panels<Vectors - 1, W>(n, body, start);
  else if constexpr (W > kFewestLanes)
    for_panels<1, kFewestLanes>(n, body, start);
}

// Calls `body(width, start)` for chunks of 0..n of kLanes or, at the end, kFewestLanes values.
template <class Body>
INLINE void for_chunks(Index n, Body body) {
  for_panels<1>(n, [&](auto width, auto, Index start) INLINE_LAMBDA { body(width, start); });
}

// Lines of `floats` from one image, or padded image, to another.
inline void copy_lines(const float* from, Index from_line, Index lines, Index floats, float* to,
                       Index to_line) {
  for (Index y = 0; y < lines; ++y) std::copy_n(from + y * from_line, floats, to + y * to_line);
}

// A buffer of this thread's, aligned to cache lines, which is kept for its next call.
inline float* scratch(Index floats) {
  thread_local std::vector<float> buffer;
  const std::size_t size = floats + kLine / sizeof(float);
  if (buffer.size() < size) buffer.resize(size);
  auto address = reinterpret_cast<std::uintptr_t>(buffer.data());
  return buffer.data() + (kLine - address % kLine) % kLine / sizeof(float);
}

// ---- Full matrix products: c[m, n] = sum over k of a[m, k] b[k, n] ----

template <int W, int Rows, int Vectors>
inline void product_tile(Index depth, const float* a, const float* b, Index n, float* c) {
  using Float = typename Lanes<W>::Float;
  Float sums[Rows][Vectors] = {};
  for (Index k = 0; k < depth; ++k) {
    Float right[Vectors];
    for (int j = 0; j < Vectors; ++j) right[j] = load<Float>(b + k * n + j * W);
    for (int i = 0; i < Rows; ++i) {
      const float left = a[i * depth + k];
      for (int j = 0; j < Vectors; ++j) sums[i][j] += left * right[j];
    }
  }
  for (int i = 0; i < Rows; ++i)
    for (int j = 0; j < Vectors; ++j) store(c + i * n + j * W, sums[i][j]);
}

template <int W, int Vectors, int Rows = kRows>
inline void product_rows(Index m, Index n, Index depth, const float* a, const float* b, float* c) {
  for (; m >= Rows; m -= Rows, a += Rows * depth, c += Rows * n)
    product_tile<W, Rows, Vectors>(depth, a, b, n, c);
  if constexpr (Rows > 1) product_rows<W, Vectors, Rows - 1>(m, n, depth, a, b, c);
}

inline void product(Index m, Index n, Index depth, const float* a, const float* b, float* c) {
  for_panels<kVectors>(n, [&](auto width, auto vectors, Index start) INLINE_LAMBDA {
    constexpr int kMost = vectors == kVectors ? kRows : 8;  // with fewer vectors more rows fit
    product_rows<width, vectors, kMost>(m, n, depth, a, b + start, c + start);
  });
}

// ---- Sums over what is not zero ----

struct Entry {
  float value;
  std::int32_t row;  // of the matrix that it is multiplied by: an input, a feature or a pixel
};

// Lists those of n values, `apart` from each other, that are not zero; gives the end of the list.
inline Entry* list(const float* values, Index apart, Index n, Entry* next) {
  for (Index k = 0; k < n; ++k) {
    const float value = values[k * apart];
    *next = {value, static_cast<std::int32_t>(k)};  // overwritten where it is zero
    next += value != 0;
  }
  return next;
}

// Of each row of a matrix the values that are not zero.
class Lists {
 public:
  void clear(Index rows, Index capacity) {
    capacity_ = capacity;
    counts_.assign(rows, 0);
    if (entries_.size() < static_cast<std::size_t>(rows * capacity))
      entries_.resize(rows * capacity);
  }
  void add(Index row, Entry entry) { begin(row)[counts_[row]++] = entry; }
  void set(Index row, const float* values, Index apart, Index n) {
    counts_[row] = list(values, apart, n, begin(row)) - begin(row);
  }
  Entry* begin(Index row) { return entries_.data() + row * capacity_; }
  Entry* end(Index row) { return begin(row) + counts_[row]; }

 private:
  Index capacity_;
  std::vector<Index> counts_;
  std::vector<Entry> entries_;
};

// Whether a sum takes the place of what is there, is added to it, or takes its place by `stream`.
enum class Write { kSet, kAdd, kStream };

// c[W * Vectors]: the sum of entries times rows of b
template <int W, int Vectors>
INLINE void sum_rows(const Entry* entry, const Entry* end, const float* b, Index b_row, float* c,
                     Write write) {
  using Float = typename Lanes<W>::Float;
  Float sums[Vectors] = {};
  for (; entry < end; ++entry) {
    const float* row = b + entry->row * b_row;
    asm("" : "+r"(row));  // else GCC finds the address of every vector anew
    for (int j = 0; j < Vectors; ++j) sums[j] += entry->value * load<Float>(row + j * W);
  }
  if (write == Write::kAdd)
    for (int j = 0; j < Vectors; ++j) sums[j] += load<Float>(c + j * W);
  if constexpr (W == kLanes)
    if (write == Write::kStream) {
      for (int j = 0; j < Vectors; ++j) stream(c + j * W, sums[j]);
      return;
    }
  for (int j = 0; j < Vectors; ++j) store(c + j * W, sums[j]);
}

// ---- Shapes ----

struct Shape {
  Index n, height, width, channels, size, features, pad;

  Shape(const ffi::AnyBuffer::Dimensions& images, const ffi::AnyBuffer::Dimensions& kernel,
        Index pad)
      : n(images[0]),
        height(images[1]),
        width(images[2]),
        channels(images[3]),
        size(kernel[0]),
        features(kernel[3]),
        pad(pad) {}

  Index out_height() const { return height + 2 * pad - size + 1; }
  Index out_width() const { return width + 2 * pad - size + 1; }
  Index pooled_height() const { return (out_height() + 1) / 2; }
  Index pooled_width() const { return (out_width() + 1) / 2; }
};

// ---- Pooling ----

// Of a square's four values, those inside the image: the largest, if above 0, and its places.
template <class Float>
INLINE void pool_square(Float (&values)[4], const bool (&inside)[4], float* pooled, Byte* places) {
  constexpr int W = sizeof(Float) / sizeof(float);
  using Int = typename Lanes<W>::Int;
  Float top = values[0];  // always inside
  for (int i = 1; i < 4; ++i)
    if (inside[i]) top = (top < values[i]) | (values[i] != values[i]) ? values[i] : top;
  Int bits{};
  for (int i = 0; i < 4; ++i)
    if (inside[i]) bits |= (values[i] == top) & (1 << i);
  bits &= top > 0;
  store(pooled, top < 0 ? Float{} : top);  // NaN stays NaN
  store(places, __builtin_convertvector(bits, typename Lanes<W>::Bytes));
}

template <int W>
INLINE typename Lanes<W>::Int load_places(const Byte* places) {
  return __builtin_convertvector(load<typename Lanes<W>::Bytes>(places), typename Lanes<W>::Int);
}

// The gradient of each of the places that are set, which share their square's.
template <int W>
INLINE typename Lanes<W>::Float share(const float* grad, typename Lanes<W>::Int places) {
  using Float = typename Lanes<W>::Float;
  const auto ties = (places & 1) + (places >> 1 & 1) + (places >> 2 & 1) + (places >> 3 & 1);
  return places != 0 ? load<Float>(grad) / __builtin_convertvector(ties, Float) : Float{};
}

// ---- Winograd's F(4x4, 3x3) ----
// The lines of B^T, A^T and G for the points 0, 1, -1, 2, -2, infinity.

struct ImagesIn {  // B^T
  template <class F>
  static INLINE void line(const F* d, F* v) {
    const F even = d[4] - 4 * d[2], odd = d[3] - 4 * d[1];
    const F even2 = d[4] - d[2], odd2 = 2 * (d[3] - d[1]);
    v[0] = 4 * d[0] - 5 * d[2] + d[4];
    v[1] = even + odd;
    v[2] = even - odd;
    v[3] = even2 + odd2;
    v[4] = even2 - odd2;
    v[5] = 4 * d[1] - 5 * d[3] + d[5];
  }
};

struct OutputsOut {  // A^T
  template <class F>
  static INLINE void line(const F* m, F* y) {
    const F sum = m[1] + m[2], difference = m[1] - m[2];
    const F sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    y[0] = m[0] + sum + sum2;
    y[1] = difference + 2 * difference2;
    y[2] = sum + 4 * sum2;
    y[3] = difference + 8 * difference2 + m[5];
  }
};

struct KernelIn {  // G
  template <class F>
  static INLINE void line(const F* g, F* u) {
    const F even = g[0] + g[2], even2 = g[0] + 4 * g[2], odd2 = 2 * g[1];
    u[0] = g[0] / 4;
    u[1] = (even + g[1]) / -6;
    u[2] = (even - g[1]) / -6;
    u[3] = (even2 + odd2) / 24;
    u[4] = (even2 - odd2) / 24;
    u[5] = g[2];
  }
};

// `Transform::line` of every column, then of every row.
template <class Transform, int In, int Out, class F>
INLINE void transform(const F (&in)[In][In], F (&out)[Out][Out]) {
  F half[In][Out], column[In];
#pragma GCC unroll 6
  for (int j = 0; j < In; ++j) {
    for (int i = 0; i < In; ++i) column[i] = in[i][j];
    Transform::line(column, half[j]);
  }
  F row[In], line[Out];
#pragma GCC unroll 6
  for (int i = 0; i < Out; ++i) {
    for (int j = 0; j < In; ++j) row[j] = half[j][i];
    Transform::line(row, line);
    for (int j = 0; j < Out; ++j) out[i][j] = line[j];
  }
}

constexpr int kTile = 6, kOut = 4, kPositions = kTile * kTile;

// Of a matrix [rows, columns] at each position: how far apart; no multiple of a page, at which the
// 36 values of a tile would get into each other's way in the cache.
constexpr Index stride(Index rows, Index columns) { return rows * columns + 16; }

struct Tiles {
  Shape shape;
  Index down, across;

  explicit Tiles(const Shape& shape)
      : shape(shape),
        down((shape.out_height() + kOut - 1) / kOut),
        across((shape.out_width() + kOut - 1) / kOut) {}

  Index count() const { return shape.n * down * across; }
  Index image(Index tile) const { return tile / (down * across); }
  Index top(Index tile) const { return tile / across % down * kOut; }
  Index left(Index tile) const { return tile % across * kOut; }

  // Where a tile's pixels begin, or `outside` of the image.
  template <class T>
  void pixels(T* images, Index tile, T* outside, T* (&out)[kTile][kTile]) const {
    const Index y = top(tile) - shape.pad, x = left(tile) - shape.pad;
    const Index first = (image(tile) * shape.height + y) * shape.width + x;
    for (int i = 0; i < kTile; ++i)
      for (int j = 0; j < kTile; ++j) {
        const bool inside = y + i >= 0 && y + i < shape.height && x + j >= 0 && x + j < shape.width;
        out[i][j] = inside ? images + (first + i * shape.width + j) * shape.channels : outside;
      }
  }

  // Calls `body(i, j, place)` for the squares of a tile: row, column, offset of the pooled values.
  template <class Body>
  INLINE void squares(Index tile, Body body) const {
    const Index height = shape.pooled_height(), width = shape.pooled_width();
    for (int i = 0; i < kOut; i += 2)
      for (int j = 0; j < kOut; j += 2) {
        const Index y = (top(tile) + i) / 2, x = (left(tile) + j) / 2;
        if (y < height && x < width)
          body(i, j, ((image(tile) * height + y) * width + x) * shape.features);
      }
  }
};

// Calls `body(i, j, position)` for each, unrolled: what they index stays in registers.
template <class Body>
INLINE void for_positions(Body body) {
#pragma GCC unroll 6
  for (int i = 0; i < kTile; ++i)
#pragma GCC unroll 6
    for (int j = 0; j < kTile; ++j) body(i, j, i * kTile + j);
}

// kernel [3, 3, rows, columns] to [36] matrices [rows, columns]
void kernel_in(const float* kernel, Index rows, Index columns, float* out) {
  const Index n = rows * columns, apart = stride(rows, columns);
  for_chunks(n, [&](auto width, Index start) INLINE_LAMBDA {
    using Float = typename Lanes<width>::Float;
    Float g[3][3], u[kTile][kTile];
    for (int i = 0; i < 9; ++i) g[i / 3][i % 3] = load<Float>(kernel + i * n + start);
    transform<KernelIn>(g, u);
    float* to = out + start;
    for_positions([&](int i, int j, int p) INLINE_LAMBDA { store(to + p * apart, u[i][j]); });
  });
}

// The next two take `count` tiles from `first` on, and their values at each of the 36 positions as
// matrices [count, channels or features], `apart` from each other. `look(t, pixels)` is called too.

template <class Look>
void images_in(const Tiles& tiles, const float* images, const float* zeros, Index first,
               Index count, Index apart, float* out, Look look) {
  const Index channels = tiles.shape.channels;
  for (Index t = 0; t < count; ++t) {
    const float* pixels[kTile][kTile];
    tiles.pixels(images, first + t, zeros, pixels);
    look(t, pixels);
    for_chunks(channels, [&](auto width, Index start) INLINE_LAMBDA {
      using Float = typename Lanes<width>::Float;
      Float d[kTile][kTile], v[kTile][kTile];
      for_positions([&](int i, int j, int)
                        INLINE_LAMBDA { d[i][j] = load<Float>(pixels[i][j] + start); });
      transform<ImagesIn>(d, v);
      float* to = out + t * channels + start;
      for_positions([&](int i, int j, int p) INLINE_LAMBDA { store(to + p * apart, v[i][j]); });
    });
  }
}

// Rounding in Winograd's sums depends on an output's place in its tile. So an output that sees only
// zeros would not be quite its bias, nor would two outputs of a square that see the same be quite
// equal, and chance would decide what relu and pooling pass on wherever images are blank. These
// outputs are summed directly; what they see, patches of 3x3 pixels, are few, and each is summed
// once.
class DirectSums {
 public:
  DirectSums(const Shape& shape, const float* images, const float* kernel)
      : shape_(shape),
        images_(images),
        kernel_(kernel),
        line_(shape.width + 2 * shape.pad + 1),
        fingerprints_((shape.height + 2 * shape.pad + 1) * line_),
        zeros_(shape.features),
        patches_(kPatches * 9 * shape.channels),
        sums_(kPatches * shape.features),
        entries_(9 * shape.channels) {}

  // Finds the outputs of a tile. The tiles of an image are to follow each other.
  void find(const Tiles& tiles, Index tile) {
    if (image_ != tiles.image(tile)) take_fingerprints(image_ = tiles.image(tile));
    if (known_ > kPatches - kOut * kOut) known_ = 0;
    tiles.squares(tile, [&](int i, int j, Index) {
      find_square(tiles.top(tile) + i, tiles.left(tile) + j, squares_[i / 2][j / 2]);
    });
  }

  // The sums of the four outputs in a square of that tile, each null where it is not one of these;
  // or null where none is.
  const float* const* square(int i, int j) const {
    const Square& square = squares_[i / 2][j / 2];
    return square.any ? square.sums : nullptr;
  }

 private:
  struct Square {
    bool any;
    const float* sums[4];
  };

  static constexpr Index kPatches = 2 * kOut * kOut;  // that are remembered

  // Equal pixels have equal fingerprints, and only zeros have 0. Others may be equal by chance:
  // that costs time, but sums are right in either way.
  void take_fingerprints(Index image) {
    const Index channels = shape_.channels;
    const float* pixel = images_ + image * shape_.height * shape_.width * channels;
    for (Index y = 0; y < shape_.height; ++y) {
      std::uint64_t* to = fingerprints_.data() + (y + shape_.pad) * line_ + shape_.pad;
      for (Index x = 0; x < shape_.width; ++x, pixel += channels) {
        std::uint64_t sum = 0;
        for (Index c = 0; c < channels; ++c) {
          std::uint32_t bits;
          std::memcpy(&bits, pixel + c, sizeof bits);
          sum += bits << 1;  // without the sign, since -0 is zero
        }
        to[x] = sum;
      }
    }
  }

  void find_square(Index y, Index x, Square& square) {
    const std::uint64_t* const corner = fingerprints_.data() + y * line_ + x;
    const std::uint64_t* const seen[4] = {corner, corner + 1, corner + line_, corner + line_ + 1};
    square.any = false;
    if (!alike_at_the_centre(seen)) return;
    for (int k = 0; k < 4; ++k) {
      bool repeated = false;
      for (int other = 0; other < 4; ++other)
        repeated |= other != k && same(seen[k], seen[other]);
      square.sums[k] = blank(seen[k]) ? zeros_.data()
                       : repeated     ? sum(y + k / 2, x + k % 2)
                                      : nullptr;
      square.any |= square.sums[k] != nullptr;
    }
  }

  // Whether a square's outputs may see zeros or the same, by the pixel in the middle: mostly not.
  bool alike_at_the_centre(const std::uint64_t* const (&seen)[4]) const {
    const Index centre = line_ + 1;
    bool alike = false;
    for (int k = 0; k < 4; ++k) {
      alike |= seen[k][centre] == 0;
      for (int other = 0; other < k; ++other) alike |= seen[k][centre] == seen[other][centre];
    }
    return alike;
  }

  bool blank(const std::uint64_t* seen) const {
    for (int i = 0; i < 3; ++i, seen += line_)
      if ((seen[0] | seen[1] | seen[2]) != 0) return false;
    return true;
  }

  bool same(const std::uint64_t* a, const std::uint64_t* b) const {
    for (int i = 0; i < 3; ++i, a += line_, b += line_)
      if (!std::equal(a, a + 3, b)) return false;
    return true;
  }

  // Of the patch that an output sees, times the kernel.
  const float* sum(Index y, Index x) {
    const Index floats = 9 * shape_.channels, features = shape_.features;
    float* const patch = patches_.data() + known_ * floats;
    copy_patch(y, x, patch);
    for (Index k = known_ - 1; k >= 0; --k)
      if (std::memcmp(patches_.data() + k * floats, patch, floats * sizeof(float)) == 0)
        return sums_.data() + k * features;
    float* const sums = sums_.data() + known_++ * features;
    const Entry* const begin = entries_.data();
    const Entry* const end = list(patch, 1, floats, entries_.data());
    for_panels<kVectors>(features, [&](auto lanes, auto vectors, Index start) INLINE_LAMBDA {
      sum_rows<lanes, vectors>(begin, end, kernel_ + start, features, sums + start, Write::kSet);
    });
    return sums;
  }

  void copy_patch(Index y, Index x, float* to) const {
    const Index channels = shape_.channels;
    for (Index i = y - shape_.pad; i < y - shape_.pad + 3; ++i)
      for (Index j = x - shape_.pad; j < x - shape_.pad + 3; ++j, to += channels) {
        const bool inside = i >= 0 && i < shape_.height && j >= 0 && j < shape_.width;
        if (inside)
          std::copy_n(images_ + ((image_ * shape_.height + i) * shape_.width + j) * channels,
                      channels, to);
        else
          std::fill_n(to, channels, 0.0f);
      }
  }

  const Shape& shape_;
  const float *images_, *kernel_;
  Index line_, image_ = -1, known_ = 0;
  std::vector<std::uint64_t> fingerprints_;  // of the padded image, and a line more as in `Padded`
  std::vector<float> zeros_, patches_, sums_;
  std::vector<Entry> entries_;
  Square squares_[kOut / 2][kOut / 2];
};

void outputs_out(const Tiles& tiles, const float* in, const float* bias, Index first, Index count,
                 Index apart, DirectSums& direct, float* pooled, Byte* places) {
  const Shape& shape = tiles.shape;
  for (Index t = 0; t < count; ++t) {
    const Index rows = shape.out_height() - tiles.top(first + t);
    const Index columns = shape.out_width() - tiles.left(first + t);
    direct.find(tiles, first + t);
    for_chunks(shape.features, [&](auto width, Index start) INLINE_LAMBDA {
      using Float = typename Lanes<width>::Float;
      Float m[kTile][kTile], y[kOut][kOut];
      const float* from = in + t * shape.features + start;
      for_positions([&](int i, int j, int p)
                        INLINE_LAMBDA { m[i][j] = load<Float>(from + p * apart); });
      transform<OutputsOut>(m, y);
      const Float b = load<Float>(bias + start);
      tiles.squares(first + t, [&](int i, int j, Index place) INLINE_LAMBDA {
        Float values[4] = {y[i][j] + b, y[i][j + 1] + b, y[i + 1][j] + b, y[i + 1][j + 1] + b};
        if (const auto sums = direct.square(i, j))
          for (int k = 0; k < 4; ++k)
            if (sums[k] != nullptr) values[k] = load<Float>(sums[k] + start) + b;
        const bool below = i + 1 < rows, beside = j + 1 < columns;
        const bool inside[4] = {true, beside, below, below && beside};
        pool_square(values, inside, pooled + place + start, places + place + start);
      });
    });
  }
}

constexpr Index kTiles = 24;  // in a block

void winograd_forward(const Shape& shape, const float* images, const float* kernel,
                      const float* bias, float* pooled, Byte* places) {
  const Tiles tiles(shape);
  const Index channels = shape.channels, features = shape.features;
  const Index u_apart = stride(channels, features);
  const Index v_apart = stride(kTiles, channels);
  const Index m_apart = stride(kTiles, features);
  float* zeros = scratch(channels + kPositions * (u_apart + v_apart + m_apart));
  float* u = zeros + channels;          // the kernel, [36] of [channels, features]
  float* v = u + kPositions * u_apart;  // tiles of images
  float* m = v + kPositions * v_apart;  // tiles of outputs
  DirectSums direct(shape, images, kernel);
  std::fill(zeros, zeros + channels, 0.0f);
  kernel_in(kernel, channels, features, u);

  for (Index first = 0; first < tiles.count(); first += kTiles) {
    const Index count = std::min(kTiles, tiles.count() - first);
    images_in(tiles, images, zeros, first, count, v_apart, v, [](Index, auto&) {});
    for (int p = 0; p < kPositions; ++p)
      product(count, features, channels, v + p * v_apart, u + p * u_apart, m + p * m_apart);
    outputs_out(tiles, m, bias, first, count, m_apart, direct, pooled, places);
  }
}

// ---- The gradient of a convolution of several channels, 3x3 ----
// A pixel of the output reaches three pixels side by side in each of three lines of the padded
// image: 3 * channels floats, which are a row of the kernel transposed, [3, features, 3 *
// channels].

// Of three matrices [rows, columns].
void transpose(const float* in, Index rows, Index columns, float* out) {
  for (Index i = 0; i < 3; ++i, in += rows * columns)
    for (Index column = 0; column < columns; ++column)
      for (Index row = 0; row < rows; ++row) *out++ = in[row * columns + column];
}

// Lists of one image's output: by pixel, and by feature, where a row is the corner of what the
// pixel sees of the padded image.
void list_outputs(const Shape& shape, const Byte* places, const float* grad, float* parts,
                  Lists& by_pixel, Lists& by_feature) {
  const Index width = shape.out_width(), features = shape.features;
  thread_local std::vector<Entry> square;
  square.resize(features);
  by_pixel.clear(shape.out_height() * width, features);
  by_feature.clear(features, shape.out_height() * width);
  for (Index y = 0; y < shape.out_height(); y += 2)
    for (Index x = 0; x < width; x += 2, places += features, grad += features) {
      for_chunks(features, [&](auto lanes, Index start) INLINE_LAMBDA {
        store(parts + start, share<lanes>(grad + start, load_places<lanes>(places + start)));
      });
      const Entry* end = list(parts, 1, features, square.data());
      for (const Entry* entry = square.data(); entry < end; ++entry)
        for (int bits = places[entry->row]; bits != 0; bits &= bits - 1) {
          const Index place = __builtin_ctz(bits), down = y + place / 2, across = x + place % 2;
          const Index corner = down * (shape.width + 2 * shape.pad) + across;
          by_pixel.add(down * width + across, *entry);
          by_feature.add(entry->row, {entry->value, static_cast<std::int32_t>(corner)});
        }
    }
}

void conv_backward(const Shape& shape, const float* images, const float* kernel, const Byte* places,
                   const float* grad, float* images_grad, float* kernel_grad, float* bias_grad) {
  const Index channels = shape.channels, features = shape.features;
  const Index width = shape.out_width(), outputs = shape.out_height() * width;
  const Index pooled = shape.pooled_height() * shape.pooled_width() * features;
  const Index inner = shape.width * channels, line = inner + 2 * shape.pad * channels;
  const Index top = shape.pad * (line + channels);
  const Index padded_floats = (shape.height + 2 * shape.pad) * line;
  const Index reach = 3 * channels, kernel_floats = 3 * features * reach;
  float* transposed = scratch(2 * kernel_floats + 2 * padded_floats + features);
  float* transposed_grad = transposed + kernel_floats;
  float* padded = transposed_grad + kernel_floats;
  float* padded_grad = padded + padded_floats;
  float* parts = padded_grad + padded_floats;
  thread_local Lists by_pixel, by_feature;

  transpose(kernel, reach, features, transposed);
  std::fill(transposed_grad, transposed_grad + kernel_floats, 0.0f);
  std::fill(padded, padded + padded_floats, 0.0f);
  std::fill(bias_grad, bias_grad + features, 0.0f);
  for (Index n = 0; n < shape.n; ++n) {
    list_outputs(shape, places + n * pooled, grad + n * pooled, parts, by_pixel, by_feature);
    for (Index f = 0; f < features; ++f)
      bias_grad[f] += std::accumulate(by_feature.begin(f), by_feature.end(f), 0.0f,
                                      [](float sum, Entry entry) { return sum + entry.value; });
    const Index image = n * shape.height * inner;
    copy_lines(images + image, inner, shape.height, inner, padded + top, line);
    std::fill(padded_grad, padded_grad + padded_floats, 0.0f);
    for (Index i = 0; i < 3; ++i)
      for_panels<kSums>(reach, [&](auto lanes, auto vectors, Index start) INLINE_LAMBDA {
        const float* rows = transposed + i * features * reach + start;
        float* rows_grad = transposed_grad + i * features * reach + start;
        for (Index p = 0; p < outputs; ++p)
          sum_rows<lanes, vectors>(
              by_pixel.begin(p), by_pixel.end(p), rows, reach,
              padded_grad + (p / width + i) * line + p % width * channels + start, Write::kAdd);
        for (Index f = 0; f < features; ++f)
          sum_rows<lanes, vectors>(by_feature.begin(f), by_feature.end(f),
                                   padded + i * line + start, channels, rows_grad + f * reach,
                                   Write::kAdd);
      });
    copy_lines(padded_grad + top, line, shape.height, inner, images_grad + image, inner);
  }
  transpose(transposed_grad, features, reach, kernel_grad);
}

// ---- One channel ----

// An image with its padding, and a line more at the end for squares that reach beyond.
struct Padded {
  const Shape& shape;
  Index height, width;
  float* data;

  explicit Padded(const Shape& shape)
      : shape(shape),
        height(shape.height + 2 * shape.pad + 1),
        width(shape.width + 2 * shape.pad + 1),
        data(scratch(height * width)) {
    std::fill(data, data + height * width, 0.0f);
  }

  void fill(const float* image) {
    copy_lines(image, shape.width, shape.height, shape.width, data + shape.pad * (width + 1),
               width);
  }

  const float* square(Index y, Index x) const { return data + 2 * y * width + 2 * x; }
};

template <int Size>
void direct_forward(const Shape& shape, const float* images, const float* kernel, const float* bias,
                    float* pooled, Byte* places) {
  Padded padded(shape);
  const Index features = shape.features, row = padded.width;
  for (Index n = 0; n < shape.n; ++n) {
    padded.fill(images + n * shape.height * shape.width);
    for (Index y = 0; y < shape.pooled_height(); ++y)
      for (Index x = 0; x < shape.pooled_width(); ++x) {
        const float* corner = padded.square(y, x);
        const bool below = 2 * y + 1 < shape.out_height(), beside = 2 * x + 1 < shape.out_width();
        const bool inside[4] = {true, beside, below, below && beside};
        for_chunks(features, [&](auto width, Index start) INLINE_LAMBDA {
          using Float = typename Lanes<width>::Float;
          const Float b = load<Float>(bias + start);
          Float values[4] = {b, b, b, b};
          for (int i = 0; i < Size; ++i)
            for (int j = 0; j < Size; ++j) {
              const Float weight = load<Float>(kernel + (i * Size + j) * features + start);
              const float* pixel = corner + i * row + j;
              values[0] += pixel[0] * weight;
              values[1] += pixel[1] * weight;
              values[2] += pixel[row] * weight;
              values[3] += pixel[row + 1] * weight;
            }
          pool_square(values, inside, pooled + start, places + start);
        });
        pooled += features;
        places += features;
      }
  }
}

template <int Size>
void direct_backward(const Shape& shape, const float* images, const Byte* places, const float* grad,
                     float* kernel_grad, float* bias_grad) {
  Padded padded(shape);
  const Index features = shape.features, row = padded.width;
  for_chunks(features, [&](auto width, Index start) INLINE_LAMBDA {
    using Float = typename Lanes<width>::Float;
    Float totals[Size][Size] = {}, bias_total{};
    Index place = start;
    for (Index n = 0; n < shape.n; ++n) {
      Float sums[Size][Size] = {}, bias_sum{};  // of one image, as long sums lose digits
      padded.fill(images + n * shape.height * shape.width);
      for (Index y = 0; y < shape.pooled_height(); ++y)
        for (Index x = 0; x < shape.pooled_width(); ++x, place += features) {
          std::uint64_t bits[width / 8];
          std::memcpy(bits, places + place, width);
          if (std::all_of(bits, bits + width / 8, [](auto eight) { return eight == 0; })) continue;
          const auto set = load_places<width>(places + place);
          const Float part = share<width>(grad + place, set);
          Float values[4];
          for (int i = 0; i < 4; ++i) values[i] = (set & (1 << i)) != 0 ? part : Float{};
          bias_sum += (values[0] + values[1]) + (values[2] + values[3]);
          const float* corner = padded.square(y, x);
          for (int i = 0; i < Size; ++i)
            for (int j = 0; j < Size; ++j) {
              const float* pixel = corner + i * row + j;
              sums[i][j] += pixel[0] * values[0];
              sums[i][j] += pixel[1] * values[1];
              sums[i][j] += pixel[row] * values[2];
              sums[i][j] += pixel[row + 1] * values[3];
            }
        }
      for (int i = 0; i < Size; ++i)
        for (int j = 0; j < Size; ++j) totals[i][j] += sums[i][j];
      bias_total += bias_sum;
    }
    for (int i = 0; i < Size; ++i)
      for (int j = 0; j < Size; ++j)
        store(kernel_grad + (i * Size + j) * features + start, totals[i][j]);
    store(bias_grad + start, bias_total);
  });
}

// ---- Matrix products that skip zeros ----
// c[m, n] = sum over k of a[m, k] b[k, n], by a block of a's rows and a depth of its columns at a
// time. For each, b is gone through in tiles, of that depth and a panel of columns, which stay in
// the first-level cache.

struct Factor {
  const float* data;
  Index row, column;  // how far apart
};

constexpr Index kBlock = 256, kPanel = 64;
constexpr Index kDepth = 100;         // so that a batch of 100 is one
constexpr Index kStreamed = 1 << 20;  // floats of c: 4 MiB

void fill_tile(Factor b, Index depth, Index columns, float* tile) {
  using Float = Lanes<kFewestLanes>::Float;
  if (columns < kPanel) std::fill(tile, tile + depth * kPanel, 0.0f);
  const Index whole = columns - columns % kFewestLanes, c = b.column;
  if (c == 1) {
    for (Index k = 0; k < depth; ++k) {
      const float* from = b.data + k * b.row;
      for (Index j = 0; j < whole; j += kFewestLanes)
        store(tile + k * kPanel + j, load<Float>(from + j));
      // Rows lie pages apart: the processor does not foresee the next tile's.
      for (Index j = 0; j < kPanel; j += kLine / sizeof(float)) __builtin_prefetch(from + kPanel + j);
    }
  } else {
    for (Index j = 0; j < whole; j += kFewestLanes) {
      const float* from = b.data + j * c;
      for (Index k = 0; k < depth; ++k, from += b.row)
        store(tile + k * kPanel + j, Float{from[0], from[c], from[2 * c], from[3 * c], from[4 * c],
                                           from[5 * c], from[6 * c], from[7 * c]});
    }
  }
  for (Index j = whole; j < columns; ++j)
    for (Index k = 0; k < depth; ++k) tile[k * kPanel + j] = b.data[k * b.row + j * c];
}

void sparse_product(Index m, Index n, Index depth, Factor a, Factor b, float* c) {
  thread_local Lists lists;
  float* tile = scratch(kDepth * kPanel);
  const bool aligned = (reinterpret_cast<std::uintptr_t>(c) | n * sizeof(float)) % kLine == 0;
  const bool streamed = aligned && depth <= kDepth && m * n >= kStreamed;
  for (Index m0 = 0; m0 < m; m0 += kBlock)
    for (Index k0 = 0; k0 < depth; k0 += kDepth) {
      const Index rows = std::min(kBlock, m - m0), deep = std::min(kDepth, depth - k0);
      const Write write = streamed ? Write::kStream : k0 > 0 ? Write::kAdd : Write::kSet;
      lists.clear(rows, deep);
      for (Index i = 0; i < rows; ++i)
        lists.set(i, a.data + (m0 + i) * a.row + k0 * a.column, a.column, deep);
      for (Index n0 = 0; n0 < n; n0 += kPanel) {
        const Index columns = std::min(kPanel, n - n0);
        fill_tile({b.data + k0 * b.row + n0 * b.column, b.row, b.column}, deep, columns, tile);
        const bool whole = columns == kPanel;
        float* place = c + m0 * n + n0;
        for (Index i = 0; i < rows; ++i, place += n) {
          alignas(kLine) float part[kPanel];
          float* sums = whole ? place : part;
          if (!whole && k0 > 0) std::copy_n(place, columns, part);
          sum_rows<kLanes, kPanel / kLanes>(lists.begin(i), lists.end(i), tile, kPanel, sums,
                                            write);
          if (!whole) std::copy_n(part, columns, place);
        }
      }
    }
  if (streamed) finish_streams();
}

// ---- Convolutions of any window ----
// A convolution's outputs are a matrix product of columns and the kernel: a column is what an
// output sees, its window. Columns are made for a few outputs at a time, which stay in the cache.
// The gradient of the images is the same with the kernel turned around; with a stride, once for
// each place of a pixel among the strides, whose windows see every other line of the kernel.

struct Windows {
  Index n, height, width, channels;  // of what they see
  Index rows, columns;               // of windows
  Index down, across, step;          // pixels of a window, and from one to the next
  Index top, left;                   // where the first begins; negative in a margin

  Index count() const { return n * rows * columns; }
  Index depth() const { return down * across * channels; }
  Index lines() const { return (rows - 1) * step + down; }
  Index line() const { return ((columns - 1) * step + across) * channels; }
};

#ifdef __AVX512F__
constexpr int kHeld = 24;  // sums in registers
#else
constexpr int kHeld = 12;
#endif
constexpr int kSideBySide = 2;
constexpr Index kDeep = 576;                // floats of a window that are multiplied at a time
constexpr Index kApart = kDeep + 16;        // floats between columns; no multiple of a page
constexpr Index kFew = 48, kMany = 192;     // columns at a time; multiples of kHeld
constexpr Index kLargeKernel = 1 << 18;     // floats, for which there are many

constexpr Index round_up(Index n, Index to) { return (n + to - 1) / to * to; }

// What windows see, in one image or several one after the other, as a matrix of a row a window.
class Columns {
 public:
  explicit Columns(const Windows& windows, Index most)
      : windows_(windows), most_(most), blocks_((windows.depth() + kDeep - 1) / kDeep) {
    const Index run = windows.across * windows.channels;
    for (Index i = 0; i < windows.down; ++i)
      for (Index done = 0; done < run;) {
        const Index k = i * run + done;
        const Index length = std::min(run - done, kDeep - k % kDeep);
        pieces_.push_back({i * windows.line() + done, k / kDeep * most * kApart + k % kDeep, length});
        done += length;
      }
  }

  Index floats() const { return seen_floats() + blocks_ * most_ * kApart; }
  Index blocks() const { return blocks_; }
  Index deep(Index block) const { return std::min(kDeep, windows_.depth() - block * kDeep); }
  const float* block(Index block) const { return columns_ + block * most_ * kApart; }

  void use(const float* images, float* memory) {
    images_ = images;
    seen_ = memory;
    columns_ = memory + seen_floats();
    std::fill(seen_, columns_, 0.0f);
  }

  // The windows are to follow each other.
  void fill(Index first, Index count) {
    const Index columns = windows_.columns, an_image = windows_.rows * columns;
    Index image = first / an_image, y = first / columns % windows_.rows, x = first % columns;
    float* to = columns_;
    for (Index i = 0; i < count; ++i, to += kApart) {
      if (image != image_) see(image_ = image);
      const float* from =
          seen_ + y * windows_.step * windows_.line() + x * windows_.step * windows_.channels;
      for (const Piece& piece : pieces_)
        for (Index k = 0; k < piece.length; k += kLanes)  // what is too much is written over
          store(to + piece.to + k, load<Float>(from + piece.from + k));
      if (++x < columns) continue;
      x = 0;
      if (++y < windows_.rows) continue;
      y = 0;
      ++image;
    }
  }

 private:
  using Float = typename Lanes<kLanes>::Float;
  struct Piece {
    Index from, to, length;  // of what lies side by side in a window
  };

  Index seen_floats() const { return round_up(windows_.lines() * windows_.line() + 16, 16); }

  // Copies what the windows see of an image: the margins are 0 and stay it.
  void see(Index image) {
    const Index channels = windows_.channels, line = windows_.line();
    const Index top = std::max<Index>(windows_.top, 0), left = std::max<Index>(windows_.left, 0);
    const Index bottom = std::min(windows_.height, windows_.top + windows_.lines());
    const Index right = std::min(windows_.width, windows_.left + line / channels);
    if (bottom <= top || right <= left) return;
    const float* from = images_ + ((image * windows_.height + top) * windows_.width + left) * channels;
    float* to = seen_ + (top - windows_.top) * line + (left - windows_.left) * channels;
    copy_lines(from, windows_.width * channels, bottom - top, (right - left) * channels, to, line);
  }

  Windows windows_;
  Index most_, blocks_, image_ = -1;
  std::vector<Piece> pieces_;
  const float* images_;
  float *seen_, *columns_;
};

// sums[Rows, W * Vectors] of columns times a panel of the kernel.
template <int W, int Rows, int Vectors>
inline void columns_times_kernel(Index depth, const float* columns, const float* kernel,
                                 Index features, bool add, float* to) {
  using Float = typename Lanes<W>::Float;
  Float sums[Rows][Vectors] = {};
  for (Index k = 0; k < depth; ++k, kernel += W * Vectors) {
    Float right[Vectors];
    for (int j = 0; j < Vectors; ++j) right[j] = load<Float>(kernel + j * W);
#pragma GCC unroll 24
    for (int i = 0; i < Rows; ++i) {
      const float left = columns[i * kApart + k];
      for (int j = 0; j < Vectors; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < Rows; ++i, to += features)
    for (int j = 0; j < Vectors; ++j)
      store(to + j * W, add ? load<Float>(to + j * W) + sums[i][j] : sums[i][j]);
}

// Adds the columns, transposed, times what comes back.
template <int W, int Rows, int Vectors>
inline void columns_times_grad(Index count, const float* columns, Index apart, const float* grad,
                               Index features, float* to) {
  using Float = typename Lanes<W>::Float;
  Float sums[Rows][Vectors] = {};
  for (Index p = 0; p < count; ++p, grad += features, columns += apart) {
    Float right[Vectors];
    for (int j = 0; j < Vectors; ++j) right[j] = load<Float>(grad + j * W);
#pragma GCC unroll 24
    for (int i = 0; i < Rows; ++i) {
      const float left = columns[i];
      for (int j = 0; j < Vectors; ++j) sums[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 24
  for (int i = 0; i < Rows; ++i, to += features)
    for (int j = 0; j < Vectors; ++j)
      store(to + j * W, load<Float>(to + j * W) + sums[i][j]);
}

Index columns_at_a_time(Index kernel_floats) { return kernel_floats < kLargeKernel ? kFew : kMany; }

// Panels of a kernel, one after the other: `value(k, f)` of each [depth, features].
template <class Value>
void make_panels(Index depth, Index features, Value value, float* panels) {
  for_panels<kSideBySide>(round_up(features, kFewestLanes), [&](auto width, auto vectors, Index start) {
    float* to = panels + start * depth;
    for (Index k = 0; k < depth; ++k)
      for (Index f = start; f < start + width * vectors; ++f) *to++ = f < features ? value(k, f) : 0;
  });
}

// Calls `write(window, sums)` for each window: columns times the kernel, whose `value(k, f)` is
// asked for.
template <class Value, class Write>
void sum_windows(const Windows& windows, const float* images, Index features, Value value,
                 Write write) {
  const Index depth = windows.depth(), wide = round_up(features, kFewestLanes);
  const Index most = columns_at_a_time(depth * wide);
  Columns columns(windows, most);
  float* panels = scratch(round_up(depth * wide, 16) + most * wide + columns.floats());
  float* sums = panels + round_up(depth * wide, 16);
  columns.use(images, sums + most * wide);
  make_panels(depth, features, value, panels);
  for (Index first = 0; first < windows.count(); first += most) {
    const Index count = std::min(most, windows.count() - first);
    columns.fill(first, count);
    for (Index block = 0; block < columns.blocks(); ++block)
      for_panels<kSideBySide>(wide, [&](auto width, auto vectors, Index start) {
        constexpr int kTileRows = kHeld / vectors;
        const float* panel = panels + start * depth + block * kDeep * width * vectors;
        for (Index i = 0; i < count; i += kTileRows)
          columns_times_kernel<width, kTileRows, vectors>(
              columns.deep(block), columns.block(block) + i * kApart, panel, wide, block > 0,
              sums + i * wide + start);
      });
    for (Index i = 0; i < count; ++i) write(first + i, sums + i * wide);
  }
}

struct Convolution {
  Index n, height, width, channels;
  Index down, across, features;  // of the kernel, which is [down, across, channels, features]
  Index stride, pad;

  Convolution(const ffi::AnyBuffer::Dimensions& images, const ffi::AnyBuffer::Dimensions& kernel,
              Index stride, Index pad)
      : n(images[0]),
        height(images[1]),
        width(images[2]),
        channels(images[3]),
        down(kernel[0]),
        across(kernel[1]),
        features(kernel[3]),
        stride(stride),
        pad(pad) {}

  Index out_height() const { return (height + 2 * pad - down) / stride + 1; }
  Index out_width() const { return (width + 2 * pad - across) / stride + 1; }
  Windows windows() const {
    return {n, height, width, channels, out_height(), out_width(), down, across, stride, -pad, -pad};
  }
};

void convolve(const Convolution& shape, const float* images, const float* kernel, float* out) {
  const Index features = shape.features;
  sum_windows(
      shape.windows(), images, features,
      [&](Index k, Index f) { return kernel[k * features + f]; },
      [&](Index window, const float* sums) { std::copy_n(sums, features, out + window * features); });
}

// Of a side: the pixels that are `first` + a multiple of the stride, and what they see of the
// outputs: each of `taps` lines of the kernel, of which the last, `line`, sees output `begin` first.
struct Phase {
  Index pixels, taps, line, begin;

  Phase(Index first, Index side, Index size, Index stride, Index pad)
      : pixels((side - first + stride - 1) / stride), line((first + pad) % stride) {
    taps = line < size ? (size - line + stride - 1) / stride : 0;
    begin = (first + pad - line) / stride - (taps - 1);
  }
};

void images_gradient(const Convolution& shape, const float* kernel, const float* grad,
                     float* images_grad) {
  const Index channels = shape.channels, features = shape.features, stride = shape.stride;
  if (std::min(shape.down, shape.across) < stride)  // some pixels are not seen
    std::fill_n(images_grad, shape.n * shape.height * shape.width * channels, 0.0f);
  for (Index top = 0; top < std::min(stride, shape.height); ++top)
    for (Index left = 0; left < std::min(stride, shape.width); ++left) {
      const Phase y(top, shape.height, shape.down, stride, shape.pad);
      const Phase x(left, shape.width, shape.across, stride, shape.pad);
      if (y.taps == 0 || x.taps == 0) continue;
      sum_windows(
          Windows{shape.n, shape.out_height(), shape.out_width(), features, y.pixels, x.pixels,
                  y.taps, x.taps, 1, y.begin, x.begin},
          grad, channels,
          [&](Index k, Index channel) {
            const Index tap = k / features, feature = k % features;
            const Index i = y.line + stride * (y.taps - 1 - tap / x.taps);
            const Index j = x.line + stride * (x.taps - 1 - tap % x.taps);
            return kernel[((i * shape.across + j) * channels + channel) * features + feature];
          },
          [&](Index window, const float* sums) {
            const Index column = left + window % x.pixels * stride;
            const Index row = top + window / x.pixels % y.pixels * stride;
            const Index image = window / (x.pixels * y.pixels);
            std::copy_n(sums, channels,
                        images_grad +
                            ((image * shape.height + row) * shape.width + column) * channels);
          });
    }
}

void kernel_gradient(const Convolution& shape, const float* images, const float* grad,
                     float* kernel_grad) {
  const Windows windows = shape.windows();
  const Index depth = windows.depth(), features = shape.features;
  const Index wide = round_up(features, kFewestLanes), rows = round_up(depth, kHeld);
  const Index most = columns_at_a_time(depth * wide);
  Columns columns(windows, most);
  float* totals = scratch(round_up(rows * wide, 16) + most * wide + columns.floats());
  float* part = totals + round_up(rows * wide, 16);
  columns.use(images, part + most * wide);
  std::fill(totals, part + most * wide, 0.0f);
  for (Index first = 0; first < windows.count(); first += most) {
    const Index count = std::min(most, windows.count() - first);
    columns.fill(first, count);
    const float* back = grad + first * features;
    if (wide != features) {
      copy_lines(back, features, count, features, part, wide);
      back = part;
    }
    for (Index block = 0; block < columns.blocks(); ++block)
      for_panels<kSideBySide>(wide, [&](auto width, auto vectors, Index start) {
        constexpr int kTileRows = kHeld / vectors;
        for (Index k = 0; k < columns.deep(block); k += kTileRows)
          columns_times_grad<width, kTileRows, vectors>(
              count, columns.block(block) + k, kApart, back + start, wide,
              totals + (block * kDeep + k) * wide + start);
      });
  }
  copy_lines(totals, wide, depth, features, kernel_grad, features);
}

// ---- Convolutions, 3x3, of every pixel and many channels ----
// By Winograd's F(4x4, 3x3) again; the gradient of the kernel has the same steps the other way
// round, by the transposed matrices A and G^T.

struct GradIn {  // A
  template <class F>
  static INLINE void line(const F* y, F* m) {
    const F even = y[0] + y[2], odd = y[1] + y[3];
    const F even2 = y[0] + 4 * y[2], odd2 = 2 * y[1] + 8 * y[3];
    m[0] = y[0];
    m[1] = even + odd;
    m[2] = even - odd;
    m[3] = even2 + odd2;
    m[4] = even2 - odd2;
    m[5] = y[3];
  }
};

struct KernelOut {  // G^T
  template <class F>
  static INLINE void line(const F* u, F* g) {
    const F sum = (u[1] + u[2]) / 6, sum2 = (u[3] + u[4]) / 24;
    g[0] = u[0] / 4 - sum + sum2;
    g[1] = (u[2] - u[1]) / 6 + (u[3] - u[4]) / 12;
    g[2] = 4 * sum2 - sum + u[5];
  }
};

INLINE bool is_blank(const float* values, Index n) {
  bool blank = true;
  for_chunks(n, [&](auto width, Index start) INLINE_LAMBDA {
    using Int = typename Lanes<width>::Int;
    if (!blank) return;
    const Int bits = load<Int>(values + start) << 1;  // without the sign, since -0 is zero
    std::uint64_t words[width / 2], any = 0;
    std::memcpy(words, &bits, sizeof bits);
    for (std::uint64_t word : words) any |= word;
    blank = any == 0;
  });
  return blank;
}

// A bit for each output of a tile that sees only zeros: rounding would not leave quite 0 there, and
// chance decide what a relu passes on.
INLINE int blank_outputs(const float* const (&pixels)[kTile][kTile], Index channels) {
  int blank = 0;
  for (int i = 0; i < kOut; ++i)
    for (int j = 0; j < kOut; ++j) {
      bool all = is_blank(pixels[i + 1][j + 1], channels);  // mostly not
      for (int k = 0; all && k < 9; ++k) all = is_blank(pixels[i + k / 3][j + k % 3], channels);
      blank |= all << (i * kOut + j);
    }
  return blank;
}

// Tiles at a time, whose values stay in the cache.
Index tiles_at_a_time(const Shape& shape) {
  return std::max<Index>(kTiles, 1536 / (shape.channels + shape.features) / 24 * 24);
}

void winograd_convolve(const Shape& shape, const float* images, const float* kernel, float* out) {
  const Tiles tiles(shape);
  const Index channels = shape.channels, features = shape.features, most = tiles_at_a_time(shape);
  const Index u_apart = stride(channels, features);
  const Index v_apart = stride(most, channels), m_apart = stride(most, features);
  float* zeros = scratch(channels + kPositions * (u_apart + v_apart + m_apart));
  float* u = zeros + channels;
  float* v = u + kPositions * u_apart;
  float* m = v + kPositions * v_apart;
  std::vector<int> blank(most);
  std::fill(zeros, zeros + channels, 0.0f);
  kernel_in(kernel, channels, features, u);

  for (Index first = 0; first < tiles.count(); first += most) {
    const Index count = std::min(most, tiles.count() - first);
    images_in(tiles, images, zeros, first, count, v_apart, v, [&](Index t, const auto& pixels) {
      blank[t] = blank_outputs(pixels, channels);
    });
    for (int p = 0; p < kPositions; ++p)
      product(count, features, channels, v + p * v_apart, u + p * u_apart, m + p * m_apart);
    for (Index t = 0; t < count; ++t) {
      const Index top = tiles.top(first + t), left = tiles.left(first + t);
      const Index rows = std::min<Index>(kOut, shape.out_height() - top);
      const Index columns = std::min<Index>(kOut, shape.out_width() - left);
      const Index line = shape.out_width() * features;
      float* corner =
          out + (tiles.image(first + t) * shape.out_height() + top) * line + left * features;
      for_chunks(features, [&](auto width, Index start) INLINE_LAMBDA {
        using Float = typename Lanes<width>::Float;
        Float in[kTile][kTile], y[kOut][kOut];
        const float* from = m + t * features + start;
        for_positions([&](int i, int j, int p)
                          INLINE_LAMBDA { in[i][j] = load<Float>(from + p * m_apart); });
        transform<OutputsOut>(in, y);
        if (blank[t] != 0)
          for (int i = 0; i < kOut * kOut; ++i)
            if (blank[t] >> i & 1) y[i / kOut][i % kOut] = Float{};
        for (int i = 0; i < rows; ++i)
          for (int j = 0; j < columns; ++j)
            store(corner + i * line + j * features + start, y[i][j]);
      });
    }
  }
}

void winograd_images_gradient(const Shape& shape, const float* kernel, const float* grad,
                              float* images_grad) {
  const Index channels = shape.channels, features = shape.features;
  std::vector<float> turned(9 * channels * features);
  for (int i = 0; i < 9; ++i)
    for (Index f = 0; f < features; ++f)
      for (Index c = 0; c < channels; ++c)
        turned[(i * features + f) * channels + c] = kernel[((8 - i) * channels + c) * features + f];
  Shape back = shape;
  back.height = shape.out_height();
  back.width = shape.out_width();
  std::swap(back.channels, back.features);
  back.pad = 2 - shape.pad;
  winograd_convolve(back, grad, turned.data(), images_grad);
}

constexpr int kProductRows = kHeld / 3;

// Adds a^T b of a [count, m], m a multiple of kProductRows, and b [count, n].
void add_transposed_product(Index count, Index m, Index n, const float* a, const float* b,
                            float* c) {
  for_panels<kSideBySide>(n, [&](auto width, auto vectors, Index start) {
    for (Index i = 0; i < m; i += kProductRows)
      columns_times_grad<width, kProductRows, vectors>(count, a + i, m, b + start, n,
                                                       c + i * n + start);
  });
}

void winograd_kernel_gradient(const Shape& shape, const float* images, const float* grad,
                              float* kernel_grad) {
  const Tiles tiles(shape);
  const Index channels = shape.channels, features = shape.features, most = tiles_at_a_time(shape);
  const Index u_apart = stride(channels, features);
  const Index v_apart = stride(most, channels), m_apart = stride(most, features);
  const Index widest = std::max(channels, features);
  float* zeros = scratch(widest + kPositions * (u_apart + v_apart + m_apart));
  float* u = zeros + widest;
  float* v = u + kPositions * u_apart;
  float* m = v + kPositions * v_apart;
  std::fill(zeros, v, 0.0f);
  for (Index first = 0; first < tiles.count(); first += most) {
    const Index count = std::min(most, tiles.count() - first);
    images_in(tiles, images, zeros, first, count, v_apart, v, [](Index, auto&) {});
    for (Index t = 0; t < count; ++t) {
      const Index top = tiles.top(first + t), left = tiles.left(first + t);
      const Index line = shape.out_width() * features;
      const float* corner =
          grad + (tiles.image(first + t) * shape.out_height() + top) * line + left * features;
      for_chunks(features, [&](auto width, Index start) INLINE_LAMBDA {
        using Float = typename Lanes<width>::Float;
        Float y[kOut][kOut], to[kTile][kTile];
        for (int i = 0; i < kOut; ++i)
          for (int j = 0; j < kOut; ++j)
            y[i][j] = top + i < shape.out_height() && left + j < shape.out_width()
                          ? load<Float>(corner + i * line + j * features + start)
                          : Float{};
        transform<GradIn>(y, to);
        float* place = m + t * features + start;
        for_positions([&](int i, int j, int p)
                          INLINE_LAMBDA { store(place + p * m_apart, to[i][j]); });
      });
    }
    for (int p = 0; p < kPositions; ++p)
      add_transposed_product(count, channels, features, v + p * v_apart, m + p * m_apart,
                             u + p * u_apart);
  }
  const Index n = channels * features;
  for_chunks(n, [&](auto width, Index start) INLINE_LAMBDA {
    using Float = typename Lanes<width>::Float;
    Float in[kTile][kTile], g[3][3];
    const float* from = u + start;
    for_positions([&](int i, int j, int p)
                      INLINE_LAMBDA { in[i][j] = load<Float>(from + p * u_apart); });
    transform<KernelOut>(in, g);
    for (int i = 0; i < 9; ++i) store(kernel_grad + i * n + start, g[i / 3][i % 3]);
  });
}

// ---- Sums over all places of a channel, for batch normalisation ----
// Values are [n, places, channels]. Partial sums are of what the first-level cache holds.

constexpr Index kSummed = 3072;  // floats at a time

struct Batch {
  Index n, places, channels;

  explicit Batch(const ffi::AnyBuffer::Dimensions& values)
      : n(values[0]), places(1), channels(values[values.size() - 1]) {
    for (std::size_t i = 1; i + 1 < values.size(); ++i) places *= values[i];
  }

  // Calls `body(image, first, rows)` for parts of an image: first of its places, how many.
  template <class Body>
  void for_parts(Body body) const {
    const Index most = std::max<Index>(kSummed / channels, 8);
    for (Index image = 0; image < n; ++image)
      for (Index first = 0; first < places; first += most)
        body(image, (image * places + first) * channels, std::min(most, places - first));
  }
};

// The sum of `term(row)` over rows, several at once since each addition waits for the one before.
template <class Float, class Term>
INLINE Float sum_terms(Index rows, Term term) {
  Float sums[4] = {};
  Index row = 0;
  for (; row + 4 <= rows; row += 4)
    for (int i = 0; i < 4; ++i) sums[i] += term(row + i);
  for (; row < rows; ++row) sums[0] += term(row);
  return (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

// Of each channel the mean, and the sum of squared deviations from it, each image counting for its
// weight. Those of parts are put together by Chan, Golub and LeVeque 1983, equations 2.1.
void batch_moments(const Batch& batch, const float* values, const float* weights, float* mean,
                   float* deviations) {
  const Index channels = batch.channels;
  std::vector<double> means(channels), sums(channels);
  double seen = 0;
  batch.for_parts([&](Index image, Index start, Index rows) {
    const double weight = weights[image];
    if (weight == 0) return;
    const double before = seen, share = (seen += weight * rows, weight * rows / seen);
    const float* part = values + start;
    for_chunks(channels, [&](auto width, Index c) INLINE_LAMBDA {
      using Float = typename Lanes<width>::Float;
      const float* from = part + c;
      const Float middle = sum_terms<Float>(rows, [&](Index row) INLINE_LAMBDA {
        return load<Float>(from + row * channels);
      }) / static_cast<float>(rows);
      const Float squares = sum_terms<Float>(rows, [&](Index row) INLINE_LAMBDA {
        const Float apart = load<Float>(from + row * channels) - middle;
        return apart * apart;
      });
      for (int i = 0; i < width; ++i) {
        const double step = middle[i] - means[c + i];
        means[c + i] += step * share;
        sums[c + i] += weight * squares[i] + step * step * before * share;
      }
    });
  });
  std::copy_n(means.begin(), channels, mean);
  std::copy_n(sums.begin(), channels, deviations);
}

// Of each channel the sum of `grad`, and of it times how far the values are from `mean`.
void batch_products(const Batch& batch, const float* values, const float* grad, const float* mean,
                    float* sums, float* products) {
  const Index channels = batch.channels;
  std::vector<double> totals(2 * channels);
  batch.for_parts([&](Index, Index start, Index rows) {
    for_chunks(channels, [&](auto width, Index c) INLINE_LAMBDA {
      using Float = typename Lanes<width>::Float;
      const float *x = values + start + c, *g = grad + start + c;
      const Float middle = load<Float>(mean + c);
      Float sum{}, product{};
      for (Index row = 0; row < rows; ++row) {
        const Float back = load<Float>(g + row * channels);
        sum += back;
        product += back * (load<Float>(x + row * channels) - middle);
      }
      for (int i = 0; i < width; ++i) {
        totals[c + i] += sum[i];
        totals[channels + c + i] += product[i];
      }
    });
  });
  std::copy_n(totals.begin(), channels, sums);
  std::copy_n(totals.begin() + channels, channels, products);
}

// ---- Pools of any window ----

struct Pool {
  Index n, height, width, channels, window, stride, pad, out_height, out_width;

  Pool(const ffi::AnyBuffer::Dimensions& images, const ffi::AnyBuffer::Dimensions& out,
       Index window, Index stride, Index pad)
      : n(images[0]),
        height(images[1]),
        width(images[2]),
        channels(images[3]),
        window(window),
        stride(stride),
        pad(pad),
        out_height(out[1]),
        out_width(out[2]) {}

  // Calls `body(output, place, pixel)` for the pixels of each output's window: which output, which
  // place of the window, and the pixel's first value.
  template <class Before, class Body>
  INLINE void for_windows(Before before, Body body) const {
    Index output = 0;
    for (Index image = 0; image < n; ++image)
      for (Index y = -pad; y < out_height * stride - pad; y += stride)
        for (Index x = -pad; x < out_width * stride - pad; x += stride, ++output) {
          before(output);
          for (Index i = std::max<Index>(-y, 0); i < std::min(window, height - y); ++i)
            for (Index j = std::max<Index>(-x, 0); j < std::min(window, width - x); ++j)
              body(output, i * window + j, ((image * height + y + i) * width + x + j) * channels);
        }
  }
};

// The largest value of each window, and the first place where it is.
void pool_windows(const Pool& pool, const float* images, float* out, Byte* places) {
  const Index channels = pool.channels;
  pool.for_windows(
      [&](Index output) {
        std::fill_n(out + output * channels, channels, -std::numeric_limits<float>::infinity());
        std::fill_n(places + output * channels, channels, Byte{255});
      },
      [&](Index output, Index place, Index pixel) INLINE_LAMBDA {
        for_chunks(channels, [&](auto width, Index start) INLINE_LAMBDA {
          using Float = typename Lanes<width>::Float;
          using Int = typename Lanes<width>::Int;
          const Index at = output * channels + start;
          const auto top = load<Float>(out + at), value = load<Float>(images + pixel + start);
          const Int found = load_places<width>(places + at);
          const Int larger = (top < value) | (value != value);
          store(out + at, larger ? value : top);
          store(places + at,
                __builtin_convertvector(larger ? Int{} + static_cast<std::int32_t>(place) : found,
                                        typename Lanes<width>::Bytes));
        });
      });
}

void pool_gradient(const Pool& pool, const Byte* places, const float* grad, float* images_grad) {
  const Index channels = pool.channels;
  std::fill_n(images_grad, pool.n * pool.height * pool.width * channels, 0.0f);
  pool.for_windows([](Index) {}, [&](Index output, Index place, Index pixel) INLINE_LAMBDA {
    for_chunks(channels, [&](auto width, Index start) INLINE_LAMBDA {
      using Float = typename Lanes<width>::Float;
      const Index at = output * channels + start;
      const auto here = load_places<width>(places + at) == static_cast<std::int32_t>(place);
      const Float back = here ? load<Float>(grad + at) : Float{};
      store(images_grad + pixel + start, load<Float>(images_grad + pixel + start) + back);
    });
  });
}

// ---- What XLA calls ----

using F32 = ffi::Buffer<ffi::F32>;
using U8 = ffi::Buffer<ffi::U8>;

ffi::Error forward(Index pad, F32 images, F32 kernel, F32 bias, ffi::Result<F32> pooled,
                   ffi::Result<U8> places) {
  const Shape shape(images.dimensions(), kernel.dimensions(), pad);
  auto run = shape.channels > 1 ? winograd_forward
             : shape.size == 3  ? direct_forward<3>
                                : direct_forward<5>;
  run(shape, images.typed_data(), kernel.typed_data(), bias.typed_data(), pooled->typed_data(),
      places->typed_data());
  return ffi::Error::Success();
}

ffi::Error backward(Index pad, F32 images, F32 kernel, U8 places, F32 grad,
                    ffi::Result<F32> images_grad, ffi::Result<F32> kernel_grad,
                    ffi::Result<F32> bias_grad) {
  conv_backward(Shape(images.dimensions(), kernel.dimensions(), pad), images.typed_data(),
                kernel.typed_data(), places.typed_data(), grad.typed_data(),
                images_grad->typed_data(), kernel_grad->typed_data(), bias_grad->typed_data());
  return ffi::Error::Success();
}

ffi::Error backward_one_channel(Index pad, F32 images, F32 kernel, U8 places, F32 grad,
                                ffi::Result<F32> kernel_grad, ffi::Result<F32> bias_grad) {
  const Shape shape(images.dimensions(), kernel.dimensions(), pad);
  auto run = shape.size == 3 ? direct_backward<3> : direct_backward<5>;
  run(shape, images.typed_data(), places.typed_data(), grad.typed_data(), kernel_grad->typed_data(),
      bias_grad->typed_data());
  return ffi::Error::Success();
}

ffi::Error multiply(F32 inputs, F32 kernel, ffi::Result<F32> outputs) {
  const Index n = inputs.dimensions()[0], depth = kernel.dimensions()[0];
  const Index features = kernel.dimensions()[1];
  sparse_product(n, features, depth, {inputs.typed_data(), depth, 1},
                 {kernel.typed_data(), features, 1}, outputs->typed_data());
  return ffi::Error::Success();
}

ffi::Error multiply_backward(F32 inputs, F32 kernel, F32 grad, ffi::Result<F32> inputs_grad,
                             ffi::Result<F32> kernel_grad) {
  const Index n = inputs.dimensions()[0], depth = kernel.dimensions()[0];
  const Index features = kernel.dimensions()[1];
  sparse_product(n, depth, features, {grad.typed_data(), features, 1},
                 {kernel.typed_data(), 1, features}, inputs_grad->typed_data());
  sparse_product(depth, features, n, {inputs.typed_data(), 1, depth},
                 {grad.typed_data(), features, 1}, kernel_grad->typed_data());
  return ffi::Error::Success();
}

// Whether Winograd's way is one for a convolution, and its gradients.
bool is_for_tiles(const Convolution& shape) {
  return shape.down == 3 && shape.across == 3 && shape.stride == 1 && shape.pad <= 2 &&
         shape.channels % kFewestLanes == 0 && shape.features % kFewestLanes == 0;
}

ffi::Error convolution_forward(Index stride, Index pad, F32 images, F32 kernel,
                               ffi::Result<F32> out) {
  const Convolution shape(images.dimensions(), kernel.dimensions(), stride, pad);
  if (is_for_tiles(shape))
    winograd_convolve(Shape(images.dimensions(), kernel.dimensions(), pad), images.typed_data(),
                      kernel.typed_data(), out->typed_data());
  else
    convolve(shape, images.typed_data(), kernel.typed_data(), out->typed_data());
  return ffi::Error::Success();
}

ffi::Error convolution_images_backward(Index stride, Index pad, F32 kernel, F32 grad,
                                       ffi::Result<F32> images_grad) {
  const Convolution shape(images_grad->dimensions(), kernel.dimensions(), stride, pad);
  if (is_for_tiles(shape))
    winograd_images_gradient(Shape(images_grad->dimensions(), kernel.dimensions(), pad),
                             kernel.typed_data(), grad.typed_data(), images_grad->typed_data());
  else
    images_gradient(shape, kernel.typed_data(), grad.typed_data(), images_grad->typed_data());
  return ffi::Error::Success();
}

ffi::Error convolution_kernel_backward(Index stride, Index pad, F32 images, F32 grad,
                                       ffi::Result<F32> kernel_grad) {
  const Convolution shape(images.dimensions(), kernel_grad->dimensions(), stride, pad);
  if (is_for_tiles(shape))
    winograd_kernel_gradient(Shape(images.dimensions(), kernel_grad->dimensions(), pad),
                             images.typed_data(), grad.typed_data(), kernel_grad->typed_data());
  else
    kernel_gradient(shape, images.typed_data(), grad.typed_data(), kernel_grad->typed_data());
  return ffi::Error::Success();
}

ffi::Error moments(F32 values, F32 weights, ffi::Result<F32> mean, ffi::Result<F32> deviations) {
  batch_moments(Batch(values.dimensions()), values.typed_data(), weights.typed_data(),
                mean->typed_data(), deviations->typed_data());
  return ffi::Error::Success();
}

ffi::Error products(F32 values, F32 grad, F32 mean, ffi::Result<F32> sums,
                    ffi::Result<F32> products) {
  batch_products(Batch(values.dimensions()), values.typed_data(), grad.typed_data(),
                 mean.typed_data(), sums->typed_data(), products->typed_data());
  return ffi::Error::Success();
}

ffi::Error pool_forward(Index window, Index stride, Index pad, F32 images, ffi::Result<F32> out,
                        ffi::Result<U8> places) {
  pool_windows(Pool(images.dimensions(), out->dimensions(), window, stride, pad),
               images.typed_data(), out->typed_data(), places->typed_data());
  return ffi::Error::Success();
}

ffi::Error pool_backward(Index window, Index stride, Index pad, U8 places, F32 grad,
                         ffi::Result<F32> images_grad) {
  pool_gradient(Pool(images_grad->dimensions(), grad.dimensions(), window, stride, pad),
                places.typed_data(), grad.typed_data(), images_grad->typed_data());
  return ffi::Error::Success();
}

}  // namespace

#ifdef MNIST_JAX_LABS
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    conv_pool_relu, forward,
    ffi::Ffi::Bind().Attr<Index>("pad").Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Ret<U8>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(conv_pool_relu_grad, backward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<U8>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(conv_pool_relu_grad_one_channel, backward_one_channel,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Arg<U8>()
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(matmul, multiply, ffi::Ffi::Bind().Arg<F32>().Arg<F32>().Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    matmul_grad, multiply_backward,
    ffi::Ffi::Bind().Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Ret<F32>());
#endif

#ifdef MNIST_JAX_WINDOWS
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution, convolution_forward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("stride")
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_images_grad, convolution_images_backward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("stride")
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(convolution_kernel_grad, convolution_kernel_backward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("stride")
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Arg<F32>()
                                  .Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(channel_moments, moments,
                              ffi::Ffi::Bind().Arg<F32>().Arg<F32>().Ret<F32>().Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(
    channel_products, products,
    ffi::Ffi::Bind().Arg<F32>().Arg<F32>().Arg<F32>().Ret<F32>().Ret<F32>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(max_pool, pool_forward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("window")
                                  .Attr<Index>("stride")
                                  .Attr<Index>("pad")
                                  .Arg<F32>()
                                  .Ret<F32>()
                                  .Ret<U8>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(max_pool_grad, pool_backward,
                              ffi::Ffi::Bind()
                                  .Attr<Index>("window")
                                  .Attr<Index>("stride")
                                  .Attr<Index>("pad")
                                  .Arg<U8>()
                                  .Arg<F32>()
                                  .Ret<F32>());
#endif
