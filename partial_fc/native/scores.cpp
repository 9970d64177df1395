// SFace coefficients of pairs. Tiles are [T, N]: a center's row holds its cosines with all samples of the batch.
#include <algorithm>
#include <vector>

#include "loss.h"
#include "rows.h"

using namespace pfc;

namespace {

double exact_cosine(const float* x, const float* y, int64_t n, bool directed) {
    double product = 0.0, first = 0.0, second = 0.0;
#pragma omp simd reduction(+ : product, first, second)
    for (int64_t d = 0; d < n; ++d) {
        product += double(x[d]) * y[d];
        first += double(x[d]) * x[d];
        second += double(y[d]) * y[d];
    }
    return directed && first > 0.0 ? product / std::sqrt(first * second) : 0.0;
}

// Where `row` begins among the own pairs, which are sorted by row.
int64_t own_begin(const int64_t* own_rows, int64_t count, int64_t row) {
    return std::lower_bound(own_rows, own_rows + count, row) - own_rows;
}

}  // namespace

extern "C" {

// Screen one tile and score what is left. N is a multiple of 16. dots [T, N] are int8 products of codes (rows from `start` on) and coded
// samples, whose own scales and residual norms [N] are given. A pair is scored in float32 when its bound reaches
// `lowest`, kept when its coefficient reaches `cut`; own pairs are always kept, with minus their pull. Kept pairs are
// appended, sorted by row. gradient [blocks, N, D] (or null) takes coefficient * unit center, a block per thread.
// sums [8]: inter, intra, kept negatives, scored pairs, own pi/2 - theta, own pairs, negatives' and own pairs'
// coefficient^2 sin^2 / |weights|^2. Returns the number of kept pairs.
int64_t pfc_score_tile(const Rows* rows, int64_t start, int64_t count, int64_t batch, const int32_t* dots,
                       const float* sample_scales, const float* sample_residuals, const float* embeddings,
                       const int64_t* own_rows, const int64_t* own_samples, int64_t own_count, const float* loss_values,
                       float lowest, float cut, int64_t* kept_rows, int32_t* kept_samples, float* kept_coefficients,
                       float* kept_cosines, float* gradient, double* sums, int threads) {
    const Loss loss{loss_values[0], loss_values[1], loss_values[2], loss_values[3]};
    const int64_t dim = rows->dim;
    std::vector<int64_t> kept(threads, 0), begins(threads + 1);
    std::vector<double> partial(threads * 8, 0.0);
    for (int t = 0; t <= threads; ++t) begins[t] = count * t / threads;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) {
        std::vector<float> buffer(dim), unit(dim);
        std::vector<int32_t> candidates(batch);
        std::vector<float> bounds(batch);
        double* sum = partial.data() + t * 8;
        // A thread's part of the output can hold all its pairs; the gaps are closed below.
        int64_t out = begins[t] * batch;
        int64_t own = own_begin(own_rows, own_count, start + begins[t]);
        for (int64_t j = begins[t]; j < begins[t + 1]; ++j) {
            const int64_t row = start + j;
            const int32_t* dot_row = dots + j * batch;
            const float scale = rows->scales[row], wide = 1.0f + rows->slack[row], enough = lowest - rows->slack[row];
            const int64_t own_end_limit = own_count;
            int64_t found = 0;
            // Most rows have no candidate: the largest bound tells.
            float largest = -8.0f;
#pragma omp simd reduction(max : largest)
            for (int64_t i = 0; i < batch; ++i) {
                const float bound = float(dot_row[i]) * sample_scales[i] * scale + sample_residuals[i] * wide;
                bounds[i] = bound;
                largest = bound > largest ? bound : largest;
            }
            if (largest >= enough)
                for (int64_t i = 0; i < batch; i += 16) {
                    int any = 0;
#pragma omp simd reduction(| : any)
                    for (int64_t lane = 0; lane < 16; ++lane) any |= bounds[i + lane] >= enough;
                    if (any)
                        for (int64_t lane = i; lane < i + 16; ++lane)
                            if (bounds[lane] >= enough) candidates[found++] = int32_t(lane);
                }
            int64_t own_end = own;
            while (own_end < own_end_limit && own_rows[own_end] == row) ++own_end;
            if (found == 0 && own == own_end) continue;
            const float* weights = current(*rows, row, buffer.data());
            const float inverse = inverse_norm(*rows, dot(weights, weights, dim));
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) unit[d] = weights[d] * inverse;
            const double inverse2 = double(inverse) * inverse;
            auto keep = [&](int32_t sample, float cosine, float coefficient) {
                kept_rows[out] = row;
                kept_samples[out] = sample;
                kept_coefficients[out] = coefficient;
                kept_cosines[out] = cosine;
                ++out;
                if (gradient)
                    add_scaled(gradient + (int64_t(t) * batch + sample) * dim, coefficient, unit.data(), dim);
                return double(coefficient) * coefficient * std::max(0.0, 1.0 - double(cosine) * cosine) * inverse2;
            };
            for (int64_t c = 0; c < found; ++c) {
                const int32_t sample = candidates[c];
                bool is_own = false;
                for (int64_t o = own; o < own_end; ++o) is_own |= own_samples[o] == sample;
                if (is_own) continue;
                const float cosine = dot(embeddings + int64_t(sample) * dim, unit.data(), dim);
                const double theta = std::acos(std::max(-1.0, std::min(1.0, double(cosine))));
                const float coefficient = float(loss.scale / (1.0 + std::exp(loss.slope * (theta - loss.b))));
                sum[3] += 1;
                if (coefficient < cut) continue;
                sum[0] += double(coefficient) * cosine;
                sum[2] += 1;
                sum[6] += keep(sample, cosine, coefficient);
            }
            for (int64_t o = own; o < own_end; ++o) {
                const int32_t sample = int32_t(own_samples[o]);
                // In float64: pulls are most of a gradient, and steep in the angle.
                const double exact = exact_cosine(embeddings + int64_t(sample) * dim, weights, dim, inverse > 0.0f);
                const float cosine = float(exact);
                const double theta = std::acos(std::max(-1.0, std::min(1.0, exact)));
                const float pull = float(loss.scale / (1.0 + std::exp(loss.slope * (loss.a - theta))));
                sum[1] -= double(pull) * cosine;
                sum[4] += HALF_PI - theta;
                sum[5] += 1;
                sum[7] += keep(sample, cosine, -pull);
            }
            own = own_end;
        }
        kept[t] = out - begins[t] * batch;
    }
    int64_t total = kept[0];
    for (int t = 1; t < threads; ++t) {
        const int64_t from = begins[t] * batch;
        std::copy_n(kept_rows + from, kept[t], kept_rows + total);
        std::copy_n(kept_samples + from, kept[t], kept_samples + total);
        std::copy_n(kept_coefficients + from, kept[t], kept_coefficients + total);
        std::copy_n(kept_cosines + from, kept[t], kept_cosines + total);
        total += kept[t];
    }
    for (int t = 0; t < threads; ++t)
        for (int s = 0; s < 8; ++s) sums[s] += partial[t * 8 + s];
    return total;
}

// Which rows of a tile pfc_score_tile scores a pair of, own pairs left aside: found [T]. Arguments as there.
void pfc_candidate_rows(const Rows* rows, int64_t start, int64_t count, int64_t batch, const int32_t* dots,
                        const float* sample_scales, const float* sample_residuals, float lowest, bool* found,
                        int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t j = 0; j < count; ++j) {
        const int64_t row = start + j;
        const int32_t* dot_row = dots + j * batch;
        const float scale = rows->scales[row], wide = 1.0f + rows->slack[row];
        float largest = -8.0f;
#pragma omp simd reduction(max : largest)
        for (int64_t i = 0; i < batch; ++i) {
            const float bound = float(dot_row[i]) * sample_scales[i] * scale + sample_residuals[i] * wide;
            largest = bound > largest ? bound : largest;
        }
        found[j] = largest >= lowest - rows->slack[row];
    }
}

// Cosines [T, N] become coefficients in place, own pairs minus their pull. own_columns: row within the tile.
// sums [7], skipped where null: inter, intra, negatives that reach `cut`, own pi/2 - theta, negatives' pi/2 - theta and
// its square, own pairs.
void pfc_dense_coefficients(float* cosines, int64_t count, int64_t batch, const int64_t* own_rows,
                            const int64_t* own_samples, int64_t own_count, const float* loss_values, float cut,
                            double* sums, int threads) {
    const Loss loss{loss_values[0], loss_values[1], loss_values[2], loss_values[3]};
    std::vector<double> partial(threads * 7, 0.0);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) {
        double* sum = partial.data() + t * 7;
        const int64_t begin = count * t / threads, end = count * (t + 1) / threads;
        int64_t own = own_begin(own_rows, own_count, begin);
        std::vector<float> own_cosines;
        for (int64_t j = begin; j < end; ++j) {
            float* values = cosines + j * batch;
            int64_t own_end = own;
            own_cosines.clear();
            for (; own_end < own_count && own_rows[own_end] == j; ++own_end) {
                own_cosines.push_back(values[own_samples[own_end]]);
                values[own_samples[own_end]] = OWN_PAIR;
            }
            float inter = 0.0f, angles = 0.0f, squares = 0.0f;
            int active = 0;
#pragma omp simd reduction(+ : inter, angles, squares, active)
            for (int64_t i = 0; i < batch; ++i) {
                const float cosine = values[i], theta = arccos(cosine);
                const bool negative = cosine > OWN_PAIR + 0.5f;
                const float below = negative ? HALF_PI - theta : 0.0f;
                const float coefficient = negative ? loss.scale * sigmoid(loss.slope * (loss.b - theta)) : 0.0f;
                values[i] = coefficient;
                inter += coefficient * cosine;
                angles += below;
                squares += below * below;
                active += negative && coefficient >= cut;
            }
            for (int64_t o = own; o < own_end; ++o) {
                const float cosine = own_cosines[o - own];
                const double theta = std::acos(std::max(-1.0, std::min(1.0, double(cosine))));
                const float pull = float(loss.scale / (1.0 + std::exp(loss.slope * (loss.a - theta))));
                values[own_samples[o]] = -pull;
                sum[1] -= double(pull) * cosine;
                sum[3] += HALF_PI - theta;
                sum[6] += 1;
            }
            own = own_end;
            sum[0] += inter;
            sum[2] += active;
            sum[4] += angles;
            sum[5] += squares;
        }
    }
    if (sums)
        for (int t = 0; t < threads; ++t)
            for (int s = 0; s < 7; ++s) sums[s] += partial[t * 7 + s];
}

}  // extern "C"
