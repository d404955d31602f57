// The kernels as a program of their own, to run where there is no JAX: by an emulator, say.
// Input: seven 64-bit numbers (images, height, width, channels, kernel size, features, padding),
// then float32 images, kernel, bias and the pooled values' gradient. Output: pooled values, places,
// and the gradients of images (zeros of one channel), kernel and bias; then of the given gradient
// as a matrix A of `features` columns, and its first rows G: AG, AG^T and A^T A.

#include <cstdio>

#include "kernels.cc"

template <class T>
std::vector<T> read(Index count) {
  std::vector<T> values(count);
  if (std::fread(values.data(), sizeof(T), count, stdin) != static_cast<std::size_t>(count))
    std::exit(1);
  return values;
}

template <class T>
void write(const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), stdout);
}

int main() {
  const auto sizes = read<Index>(7);
  const Index images_shape[] = {sizes[0], sizes[1], sizes[2], sizes[3]};
  const Index kernel_shape[] = {sizes[4], sizes[4], sizes[3], sizes[5]};
  const Shape shape({images_shape, 4}, {kernel_shape, 4}, sizes[6]);
  const auto images = read<float>(shape.n * shape.height * shape.width * shape.channels);
  const auto kernel = read<float>(shape.size * shape.size * shape.channels * shape.features);
  const auto bias = read<float>(shape.features);
  const Index outputs = shape.n * shape.pooled_height() * shape.pooled_width() * shape.features;
  const auto grad = read<float>(outputs);
  std::vector<float> pooled(outputs), images_grad(images.size()), kernel_grad(kernel.size());
  std::vector<float> bias_grad(shape.features);
  std::vector<Byte> places(outputs);

  if (shape.channels > 1) {
    winograd_forward(shape, images.data(), kernel.data(), bias.data(), pooled.data(),
                     places.data());
    conv_backward(shape, images.data(), kernel.data(), places.data(), grad.data(),
                  images_grad.data(), kernel_grad.data(), bias_grad.data());
  } else {
    direct_forward<3>(shape, images.data(), kernel.data(), bias.data(), pooled.data(),
                      places.data());
    direct_backward<3>(shape, images.data(), places.data(), grad.data(), kernel_grad.data(),
                       bias_grad.data());
  }
  write(pooled);
  write(places);
  write(images_grad);
  write(kernel_grad);
  write(bias_grad);

  const Index depth = shape.features, rows = outputs / depth;
  std::vector<float> product(outputs), transposed(outputs), square(depth * depth);
  const Factor a{grad.data(), depth, 1};
  sparse_product(rows, depth, depth, a, a, product.data());
  sparse_product(rows, depth, depth, a, {grad.data(), 1, depth}, transposed.data());
  sparse_product(depth, depth, rows, {grad.data(), 1, depth}, a, square.data());
  write(product);
  write(transposed);
  write(square);
}
