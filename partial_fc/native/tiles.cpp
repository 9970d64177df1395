// Tiles of the sampled heads and of margin softmax. Tiles of cosines are [T, N]: a row is a center, a column a sample.
#include <algorithm>
#include <vector>

#include "half.h"

using namespace pfc;

namespace {

constexpr int64_t BLOCK = 16;  // rows whose maxima are taken together: they stay in the first cache

// exp(x), and 0 where float32 would leave its normal range: what is multiplied by such numbers takes a hundred times longer.
inline float exponential_or_zero(float x) { return x > -87.0f ? exponential(x) : 0.0f; }

}  // namespace

extern "C" {

// Unit rows [count, D] and inverse norms [count] of `list`, or of the rows from `start` on where it is null. The table is
// float32, or bfloat16 where `half`.
void pfc_unit_rows(const void* table, int half, const int64_t* list, int64_t start, int64_t count, int64_t dim,
                   float norm_floor, float* unit, float* inverse, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < count; ++i) {
        const int64_t at = (list ? list[i] : start + i) * dim;
        float* out = unit + i * dim;
        const float* row = static_cast<const float*>(table) + at;
        if (half) {
            const uint16_t* stored = static_cast<const uint16_t*>(table) + at;
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) out[d] = widened(stored[d]);
            row = out;
        }
        const float norm = std::sqrt(dot(row, row, dim)), by = norm > norm_floor ? 1.0f / norm : 0.0f;
        inverse[i] = by;
#pragma omp simd
        for (int64_t d = 0; d < dim; ++d) out[d] = row[d] * by;
    }
}

// Streaming log-sum-exp, with z = scale * cosine: maxima [N] and sums [N] of exp(z - maximum) take up T more rows.
void pfc_add_exponentials(const float* cosines, int64_t count, int64_t batch, float scale, float* maxima, float* sums,
                          int threads) {
    std::vector<float> partial(threads * batch * 2);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) {
        float* highest = partial.data() + t * batch * 2;
        float* sum = highest + batch;
        std::copy_n(maxima, batch, highest);
        std::fill_n(sum, batch, 0.0f);
        std::vector<float> higher(batch);
        const int64_t end = count * (t + 1) / threads;
        for (int64_t begin = count * t / threads; begin < end; begin += BLOCK) {
            const int64_t stop = std::min(begin + BLOCK, end);
            std::copy_n(highest, batch, higher.data());
            for (int64_t j = begin; j < stop; ++j) {
                const float* row = cosines + j * batch;
#pragma omp simd
                for (int64_t i = 0; i < batch; ++i) higher[i] = std::max(higher[i], scale * row[i]);
            }
#pragma omp simd
            for (int64_t i = 0; i < batch; ++i) {
                sum[i] *= exponential_or_zero(highest[i] - higher[i]);
                highest[i] = higher[i];
            }
            for (int64_t j = begin; j < stop; ++j) {
                const float* row = cosines + j * batch;
#pragma omp simd
                for (int64_t i = 0; i < batch; ++i) sum[i] += exponential_or_zero(scale * row[i] - highest[i]);
            }
        }
    }
    for (int t = 0; t < threads; ++t) {
        const float* highest = partial.data() + t * batch * 2;
        const float* sum = highest + batch;
        for (int64_t i = 0; i < batch; ++i) {
            const float higher = std::max(maxima[i], highest[i]);
            sums[i] = sums[i] * exponential_or_zero(maxima[i] - higher) + sum[i] * exponential_or_zero(highest[i] - higher);
            maxima[i] = higher;
        }
    }
}

// Cosines become exp(scale * cosine + offset) in place; offsets [N]. Returns how many reach `cut`.
int64_t pfc_softmax_coefficients(float* cosines, int64_t count, int64_t batch, float scale, const float* offsets, float cut,
                                 int threads) {
    int64_t active = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : active)
    for (int64_t j = 0; j < count; ++j) {
        float* row = cosines + j * batch;
        int here = 0;
#pragma omp simd reduction(+ : here)
        for (int64_t i = 0; i < batch; ++i) {
            const float coefficient = exponential_or_zero(scale * row[i] + offsets[i]);
            row[i] = coefficient;
            here += coefficient >= cut;
        }
        active += here;
    }
    return active;
}

// Gradients [T, D] of unit rows become those of the rows, in place: (g - (g.u)u) / |row|.
void pfc_through_unit_rows(float* gradient, const float* unit, const float* inverse, int64_t count, int64_t dim,
                           int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < count; ++j) {
        float* g = gradient + j * dim;
        const float* u = unit + j * dim;
        const float radial = dot(g, u, dim), by = inverse[j];
#pragma omp simd
        for (int64_t d = 0; d < dim; ++d) g[d] = (g[d] - radial * u[d]) * by;
    }
}

// torch.optim.SGD on the rows of `list`, or on those from `start` on where it is null; momentum may be null. Weights are
// float32, or bfloat16 where `half`: then written with stochastic rounding, row i as class classes[i] or, where that is
// null, as first_class + its number.
void pfc_sgd_rows(void* weights, int half, float* momentum, const int64_t* list, int64_t start, int64_t count, int64_t dim,
                  const float* gradient, float lr, float momentum_factor, float weight_decay, uint32_t key_low,
                  uint32_t key_high, int64_t first_class, const int64_t* classes, int threads) {
    const Rounding rounding{key_low, key_high, first_class};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t row = list ? list[i] : start + i;
            uint16_t* stored = static_cast<uint16_t*>(weights) + row * dim;
            float* w = half ? buffer.data() : static_cast<float*>(weights) + row * dim;
            if (half) {
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) w[d] = widened(stored[d]);
            }
            const float* g = gradient + i * dim;
            if (!momentum) {
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) w[d] -= lr * (g[d] + weight_decay * w[d]);
            } else {
                float* m = momentum + row * dim;
                // On its own: torch rounds this product, and fused into the sum below it would not be.
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) m[d] *= momentum_factor;
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) {
                    m[d] += g[d] + weight_decay * w[d];
                    w[d] -= lr * m[d];
                }
            }
            if (half) round_row(rounding, classes ? classes[i] : first_class + row, w, stored, dim);
        }
    }
}

}  // extern "C"
