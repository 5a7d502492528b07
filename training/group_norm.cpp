// Group normalization of pictures whose channels come last, with or without SiLU after it, and its backward pass.
//
// Torch's own goes over a picture more often, and in half precision needs a float32 copy of it first. Here a picture is
// read once for its moments and once for the result, in float32 but for loads and stores; one thread has a whole
// picture at a time. Pictures are [count, places, channels] without gaps; `Value` is float or the upper half of one
// (bfloat16). Sums over places are taken in blocks, so that float32 is enough for them.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

constexpr int64_t BLOCK = 64;

struct Half {
    uint16_t bits;
};

inline float read(float value) { return value; }

inline float read(Half value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

inline void write(float &to, float value) { to = value; }

inline void write(Half &to, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    to.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline float sigmoid(float value) { return 1.0f / (1.0f + std::exp(-value)); }

// Sums over places of what `terms(place, first, second)` adds for every channel.
template <class Terms> void sum_over(int64_t places, int64_t channels, std::vector<float> &sums, Terms terms) {
    std::vector<float> block(2 * channels);
    std::vector<double> total(2 * channels, 0.0);
    for (int64_t start = 0; start < places; start += BLOCK) {
        std::fill(block.begin(), block.end(), 0.0f);
        int64_t end = start + BLOCK < places ? start + BLOCK : places;
        for (int64_t place = start; place < end; ++place) terms(place, block.data(), block.data() + channels);
        for (int64_t i = 0; i < 2 * channels; ++i) total[i] += block[i];
    }
    for (int64_t i = 0; i < 2 * channels; ++i) sums[i] = float(total[i]);
}

struct Shape {
    int64_t count, places, channels, groups;
};

template <class Value>
void forward(const Value *x, const float *weight, const float *bias, Value *result, float *moments, Shape shape,
             float epsilon, bool silu) {
    const int64_t channels = shape.channels, width = channels / shape.groups;
#pragma omp parallel for
    for (int64_t n = 0; n < shape.count; ++n) {
        const Value *picture = x + n * shape.places * channels;
        Value *out = result + n * shape.places * channels;
        std::vector<float> sums(2 * channels), scale(channels), shift(channels);
        sum_over(shape.places, channels, sums, [&](int64_t place, float *first, float *second) {
            const Value *row = picture + place * channels;
#pragma GCC ivdep
            for (int64_t c = 0; c < channels; ++c) {
                float value = read(row[c]);
                first[c] += value;
                second[c] += value * value;
            }
        });
        for (int64_t g = 0; g < shape.groups; ++g) {
            double sum = 0, squares = 0, size = double(shape.places * width);
            for (int64_t c = g * width; c < (g + 1) * width; ++c) sum += sums[c], squares += sums[channels + c];
            double mean = sum / size, variance = squares / size - mean * mean;
            float inverse = float(1 / std::sqrt((variance > 0 ? variance : 0) + epsilon));
            moments[2 * (n * shape.groups + g)] = float(mean);
            moments[2 * (n * shape.groups + g) + 1] = inverse;
            for (int64_t c = g * width; c < (g + 1) * width; ++c) {
                scale[c] = weight[c] * inverse;
                shift[c] = bias[c] - float(mean) * scale[c];
            }
        }
        const float *a = scale.data(), *b = shift.data();
        for (int64_t place = 0; place < shape.places; ++place) {
            const Value *row = picture + place * channels;
            Value *to = out + place * channels;
#pragma GCC ivdep
            for (int64_t c = 0; c < channels; ++c) {
                float value = read(row[c]) * a[c] + b[c];
                write(to[c], silu ? value * sigmoid(value) : value);
            }
        }
    }
}

// `of_weight` and `of_bias` are [count, channels], to be summed by the caller.
template <class Value>
void backward(const Value *gradient, const Value *x, const float *moments, const float *weight, const float *bias,
              Value *result, float *of_weight, float *of_bias, Shape shape, bool silu) {
    const int64_t channels = shape.channels, width = channels / shape.groups;
#pragma omp parallel
    {
        // The gradient before SiLU, kept from the first reading for the second.
        std::vector<float> kept(shape.places * channels), sums(2 * channels), scale(channels), shift(channels);
        std::vector<float> of_x(channels), constant(channels);
#pragma omp for
        for (int64_t n = 0; n < shape.count; ++n) {
            const Value *picture = x + n * shape.places * channels, *from = gradient + n * shape.places * channels;
            const float *moment = moments + 2 * n * shape.groups;
            for (int64_t c = 0; c < channels; ++c) {
                scale[c] = weight[c] * moment[2 * (c / width) + 1];
                shift[c] = bias[c] - moment[2 * (c / width)] * scale[c];
            }
            const float *a = scale.data(), *b = shift.data();
            sum_over(shape.places, channels, sums, [&](int64_t place, float *first, float *second) {
                const Value *row = picture + place * channels, *back = from + place * channels;
                float *keep = kept.data() + place * channels;
#pragma GCC ivdep
                for (int64_t c = 0; c < channels; ++c) {
                    float value = read(row[c]), slope = read(back[c]);
                    if (silu) {
                        float z = value * a[c] + b[c], s = sigmoid(z);
                        slope *= s * (1 + z * (1 - s));
                    }
                    keep[c] = slope;
                    first[c] += slope;
                    second[c] += slope * value;
                }
            });
            for (int64_t g = 0; g < shape.groups; ++g) {
                float mean = moment[2 * g], inverse = moment[2 * g + 1];
                double plain = 0, along = 0, size = double(shape.places * width);
                for (int64_t c = g * width; c < (g + 1) * width; ++c) {
                    float normal = (sums[channels + c] - mean * sums[c]) * inverse;
                    of_weight[n * channels + c] = normal;
                    of_bias[n * channels + c] = sums[c];
                    plain += weight[c] * sums[c];
                    along += weight[c] * normal;
                }
                float by_x = float(-along / size) * inverse * inverse;
                for (int64_t c = g * width; c < (g + 1) * width; ++c) {
                    of_x[c] = by_x;
                    constant[c] = float(-plain / size) * inverse - by_x * mean;
                }
            }
            for (int64_t place = 0; place < shape.places; ++place) {
                const Value *row = picture + place * channels;
                const float *keep = kept.data() + place * channels;
                Value *to = result + (n * shape.places + place) * channels;
#pragma GCC ivdep
                for (int64_t c = 0; c < channels; ++c)
                    write(to[c], keep[c] * a[c] + read(row[c]) * of_x[c] + constant[c]);
            }
        }
    }
}

} // namespace

extern "C" void normalize(const void *x, const float *weight, const float *bias, void *result, float *moments,
                          int64_t count, int64_t places, int64_t channels, int64_t groups, float epsilon, bool silu,
                          bool half) {
    Shape shape{count, places, channels, groups};
    if (half)
        forward((const Half *)x, weight, bias, (Half *)result, moments, shape, epsilon, silu);
    else
        forward((const float *)x, weight, bias, (float *)result, moments, shape, epsilon, silu);
}

extern "C" void normalize_backward(const void *gradient, const void *x, const float *moments, const float *weight,
                                   const float *bias, void *result, float *of_weight, float *of_bias, int64_t count,
                                   int64_t places, int64_t channels, int64_t groups, bool silu, bool half) {
    Shape shape{count, places, channels, groups};
    if (half)
        backward((const Half *)gradient, (const Half *)x, moments, weight, bias, (Half *)result, of_weight, of_bias,
                 shape, silu);
    else
        backward((const float *)gradient, (const float *)x, moments, weight, bias, (float *)result, of_weight, of_bias,
                 shape, silu);
}
