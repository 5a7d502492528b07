// Convolutions of 3 x 3 by Winograd's way (arXiv 1509.09308), on float32 pictures [N, H, W, C], eight channels at a time.
//
// M x M results come from a patch of (M + 2) x (M + 2) inputs. Patches and weights are transformed, so that the whole
// is one product of matrices for each of the (M + 2)² places of a patch: for M = 4 a fourth of the multiplications.

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

// The product of matrices of the BLAS that torch was built with; they lie by columns.
typedef void Sgemm(const char *, const char *, const int *, const int *, const int *, const float *, const float *,
                   const int *, const float *, const int *, const float *, float *, const int *);

namespace {

typedef float Eight __attribute__((vector_size(32), aligned(4)));

// The transforms of inputs, weights and results for tiles of M.
template <int M> struct Transforms;

template <> struct Transforms<3> {
  static constexpr float input[5][5] = {
      {2, -1, -2, 1, 0}, {0, -2, -1, 1, 0}, {0, 2, -3, 1, 0}, {0, -1, 0, 1, 0}, {0, 2, -1, -2, 1}};
  static constexpr float weight[5][3] = {
      {1 / 2.f, 0, 0}, {-1 / 2.f, -1 / 2.f, -1 / 2.f}, {-1 / 6.f, 1 / 6.f, -1 / 6.f}, {1 / 6.f, 1 / 3.f, 2 / 3.f}, {0, 0, 1}};
  static constexpr float output[3][5] = {{1, 1, 1, 1, 0}, {0, 1, -1, 2, 0}, {0, 1, 1, 4, 1}};
};

template <> struct Transforms<4> {
  static constexpr float input[6][6] = {{4, 0, -5, 0, 1, 0},  {0, -4, -4, 1, 1, 0}, {0, 4, -4, -1, 1, 0},
                                        {0, -2, -1, 2, 1, 0}, {0, 2, -1, -2, 1, 0}, {0, 4, 0, -5, 0, 1}};
  static constexpr float weight[6][3] = {
      {1 / 4.f, 0, 0}, {-1 / 6.f, -1 / 6.f, -1 / 6.f}, {-1 / 6.f, 1 / 6.f, -1 / 6.f},
      {1 / 24.f, 1 / 12.f, 1 / 6.f}, {1 / 24.f, -1 / 12.f, 1 / 6.f}, {0, 0, 1}};
  static constexpr float output[4][6] = {
      {1, 1, 1, 1, 1, 0}, {0, 1, -1, 2, -2, 0}, {0, 1, 1, 4, 4, 0}, {0, 1, -1, 8, -8, 1}};
};

// result = matrix · block · matrixᵀ; TURNED: matrixᵀ · block · matrix, which is the gradient of the other.
template <const auto &MATRIX, bool TURNED, int FROM, int TO>
inline __attribute__((always_inline)) void both_sides(const Eight (&block)[FROM][FROM], Eight (&result)[TO][TO]) {
  constexpr auto entry = [](int i, int k) { return TURNED ? MATRIX[k][i] : MATRIX[i][k]; };
  Eight half[TO][FROM];
  // The outer loops stay loops: all at once needs more registers than there are.
#pragma GCC unroll 1
  for (int j = 0; j < FROM; j++)
#pragma GCC unroll 6
    for (int i = 0; i < TO; i++) {
      Eight sum = {};
#pragma GCC unroll 6
      for (int k = 0; k < FROM; k++)
        if (entry(i, k) != 0) sum += entry(i, k) * block[k][j];
      half[i][j] = sum;
    }
#pragma GCC unroll 1
  for (int i = 0; i < TO; i++)
#pragma GCC unroll 6
    for (int j = 0; j < TO; j++) {
      Eight sum = {};
#pragma GCC unroll 6
      for (int k = 0; k < FROM; k++)
        if (entry(j, k) != 0) sum += entry(j, k) * half[i][k];
      result[i][j] = sum;
    }
}

// One matrix [rows, columns] for each place of a patch. The lines in between keep them apart in the cache, which puts
// addresses at the distance of a power of two onto each other.
struct Matrices {
  int64_t places, rows, columns, distance;
  std::unique_ptr<float[]> memory;

  Matrices(int64_t places, int64_t rows, int64_t columns)
      : places(places), rows(rows), columns(columns), distance(rows * columns + 16), memory(new float[places * distance]) {}
  float *data(int64_t place = 0) const { return memory.get() + place * distance; }
};

template <class Number> struct Pictures {
  Number *data;
  int64_t count, height, width, channels;

  Number *at(int64_t picture, int64_t y, int64_t x) const { return data + ((picture * height + y) * width + x) * channels; }
  int64_t tiles(int m) const { return (height / m) * (width / m); }
};

// work(picture, y, x, tile) for every tile of `count` pictures from the `first` on.
template <int M, class Number, class Work>
void each_tile(const Pictures<Number> &pictures, int64_t first, int64_t count, const Work &work) {
  int64_t tile = 0;
  for (int64_t picture = first; picture < first + count; picture++)
    for (int64_t y = 0; y < pictures.height; y += M)
      for (int64_t x = 0; x < pictures.width; x += M) work(picture, y, x, tile++);
}

// Blocks of SIZE x SIZE that begin BEFORE the tile, zero outside of the picture, transformed, into rows of `to`.
template <int M, int SIZE, int BEFORE, const auto &MATRIX, bool TURNED>
void read(const Pictures<const float> &from, int64_t first, int64_t count, const Matrices &to) {
  const std::vector<float> outside(from.channels);
  each_tile<M>(from, first, count, [&](int64_t picture, int64_t y, int64_t x, int64_t tile) {
    const float *places[SIZE][SIZE];
    for (int i = 0; i < SIZE; i++)
      for (int j = 0; j < SIZE; j++) {
        const int64_t row = y + i - BEFORE, column = x + j - BEFORE;
        const bool inside = row >= 0 && row < from.height && column >= 0 && column < from.width;
        places[i][j] = inside ? from.at(picture, row, column) : outside.data();
      }
    for (int64_t c = 0; c < from.channels; c += 8) {
      Eight block[SIZE][SIZE], transformed[M + 2][M + 2];
#pragma GCC unroll 6
      for (int i = 0; i < SIZE; i++)
#pragma GCC unroll 6
        for (int j = 0; j < SIZE; j++) block[i][j] = *(const Eight *)(places[i][j] + c);
      both_sides<MATRIX, TURNED>(block, transformed);
      float *target = to.data() + tile * from.channels + c;
      for (int i = 0; i < (M + 2) * (M + 2); i++)
        *(Eight *)(target + i * to.distance) = transformed[i / (M + 2)][i % (M + 2)];
    }
  });
}

template <int M> void read_patches(const Pictures<const float> &from, int64_t first, int64_t count, const Matrices &to) {
  read<M, M + 2, 1, Transforms<M>::input, false>(from, first, count, to);
}

template <int M> void read_gradients(const Pictures<const float> &from, int64_t first, int64_t count, const Matrices &to) {
  read<M, M, 0, Transforms<M>::output, true>(from, first, count, to);
}

template <int M>
void write_results(const Matrices &from, const float *bias, const Pictures<float> &to, int64_t first, int64_t count) {
  each_tile<M>(to, first, count, [&](int64_t picture, int64_t y, int64_t x, int64_t tile) {
    for (int64_t c = 0; c < to.channels; c += 8) {
      Eight block[M + 2][M + 2], results[M][M];
      const float *source = from.data() + tile * to.channels + c;
      for (int i = 0; i < (M + 2) * (M + 2); i++)
        block[i / (M + 2)][i % (M + 2)] = *(const Eight *)(source + i * from.distance);
      both_sides<Transforms<M>::output, false>(block, results);
      const Eight shift = bias ? *(const Eight *)(bias + c) : Eight{};
      for (int i = 0; i < M; i++)
        for (int j = 0; j < M; j++) *(Eight *)(to.at(picture, y + i, x + j) + c) = results[i][j] + shift;
    }
  });
}

// [in, out] for each place, of a weight [out, in, 3, 3]; `turned`: [out, in] of the weight turned by half a circle,
// which makes the gradient of the input from that of the result.
template <int M> Matrices transformed(const float *weight, int64_t in, int64_t out, bool turned) {
  const int64_t row_step = (turned ? in : 1) * 9, column_step = (turned ? 1 : in) * 9;
  Matrices result((M + 2) * (M + 2), turned ? out : in, turned ? in : out);
  for (int64_t row = 0; row < result.rows; row++)
    for (int64_t column = 0; column < result.columns; column += 8) {
      Eight block[3][3], places[M + 2][M + 2];
      const float *source = weight + row * row_step + column * column_step;
      for (int i = 0; i < 9; i++)
        for (int lane = 0; lane < 8; lane++)
          block[i / 3][i % 3][lane] = source[lane * column_step + (turned ? 8 - i : i)];
      both_sides<Transforms<M>::weight, false>(block, places);
      float *target = result.data() + row * result.columns + column;
      for (int i = 0; i < (M + 2) * (M + 2); i++)
        *(Eight *)(target + i * result.distance) = places[i / (M + 2)][i % (M + 2)];
    }
  return result;
}

// The gradient of a weight [out, in, 3, 3] from that of what it is transformed into, [in, out] for each place.
template <int M> void write_weight(const Matrices &gradients, float *target) {
  const int64_t in = gradients.rows, out = gradients.columns;
  for (int64_t row = 0; row < in; row++)
    for (int64_t column = 0; column < out; column += 8) {
      Eight block[M + 2][M + 2], weight[3][3];
      const float *source = gradients.data() + row * out + column;
      for (int i = 0; i < (M + 2) * (M + 2); i++)
        block[i / (M + 2)][i % (M + 2)] = *(const Eight *)(source + i * gradients.distance);
      both_sides<Transforms<M>::weight, true>(block, weight);
      for (int lane = 0; lane < 8; lane++)
        for (int i = 0; i < 9; i++) target[((column + lane) * in + row) * 9 + i] = weight[i / 3][i % 3][lane];
    }
}

// result [rows, columns] = left [rows, inner] · right [inner, columns], all by rows.
void multiply(Sgemm *sgemm, const float *left, const float *right, float *result, int rows, int inner, int columns) {
  const float one = 1, zero = 0;
  sgemm("N", "N", &columns, &rows, &inner, &one, right, &columns, left, &inner, &zero, result, &columns);
}

// result [rows, columns] (+)= leftᵀ · right, of left [inner, rows] and right [inner, columns].
void multiply_turned(Sgemm *sgemm, const float *left, const float *right, float *result, int rows, int inner,
                     int columns, bool add) {
  const float one = 1, kept = add;
  sgemm("N", "T", &columns, &rows, &inner, &one, right, &columns, left, &rows, &kept, result, &columns);
}

// How many pictures are worked on at a time, so that their patches are still in the cache when they are multiplied.
template <int M> int64_t together(const Pictures<const float> &pictures) {
  const int64_t parts = std::max<int64_t>(1, pictures.count * pictures.tiles(M) / 128);
  return (pictures.count + parts - 1) / parts;
}

template <int M>
void convolve(Sgemm *sgemm, const Pictures<const float> &from, const Matrices &weights, const float *bias,
              const Pictures<float> &to) {
  const int64_t most = together<M>(from), tiles = from.tiles(M);
  const Matrices patches(weights.places, most * tiles, from.channels);
  const Matrices products(weights.places, most * tiles, to.channels);
  for (int64_t first = 0; first < from.count; first += most) {
    const int64_t count = std::min(most, from.count - first);
    read_patches<M>(from, first, count, patches);
    for (int64_t i = 0; i < weights.places; i++)
      multiply(sgemm, patches.data(i), weights.data(i), products.data(i), count * tiles, from.channels, to.channels);
    write_results<M>(products, bias, to, first, count);
  }
}

template <int M>
void differentiate(Sgemm *sgemm, const Pictures<const float> &from, const Pictures<const float> &gradient, float *weight) {
  const int64_t places = (M + 2) * (M + 2), most = together<M>(from), tiles = from.tiles(M);
  const Matrices patches(places, most * tiles, from.channels), gradients(places, most * tiles, gradient.channels);
  const Matrices weights(places, from.channels, gradient.channels);
  for (int64_t first = 0; first < from.count; first += most) {
    const int64_t count = std::min(most, from.count - first);
    read_patches<M>(from, first, count, patches);
    read_gradients<M>(gradient, first, count, gradients);
    for (int64_t i = 0; i < places; i++)
      multiply_turned(sgemm, patches.data(i), gradients.data(i), weights.data(i), from.channels, count * tiles,
                      gradient.channels, first > 0);
  }
  write_weight<M>(weights, weight);
}

}  // namespace

// x [count, height, width, in] -> result [count, height, width, out]; height and width are multiples of tile, 3 or 4.
extern "C" void convolve(Sgemm *sgemm, const float *x, const float *weight, const float *bias, float *result,
                         int64_t count, int64_t height, int64_t width, int64_t in, int64_t out, int tile) {
  const Pictures<const float> from{x, count, height, width, in};
  const Pictures<float> to{result, count, height, width, out};
  if (tile == 4) convolve<4>(sgemm, from, transformed<4>(weight, in, out, false), bias, to);
  if (tile == 3) convolve<3>(sgemm, from, transformed<3>(weight, in, out, false), bias, to);
}

// The gradient of x from that of the result.
extern "C" void input_gradient(Sgemm *sgemm, const float *gradient, const float *weight, float *result, int64_t count,
                               int64_t height, int64_t width, int64_t in, int64_t out, int tile) {
  const Pictures<const float> from{gradient, count, height, width, out};
  const Pictures<float> to{result, count, height, width, in};
  if (tile == 4) convolve<4>(sgemm, from, transformed<4>(weight, in, out, true), nullptr, to);
  if (tile == 3) convolve<3>(sgemm, from, transformed<3>(weight, in, out, true), nullptr, to);
}

// The gradient of the weight from x and the gradient of the result.
extern "C" void weight_gradient(Sgemm *sgemm, const float *x, const float *gradient, float *weight, int64_t count,
                                int64_t height, int64_t width, int64_t in, int64_t out, int tile) {
  const Pictures<const float> from{x, count, height, width, in}, other{gradient, count, height, width, out};
  if (tile == 4) differentiate<4>(sgemm, from, other, weight);
  if (tile == 3) differentiate<3>(sgemm, from, other, weight);
}
