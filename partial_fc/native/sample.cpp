// What a sample of centers says of all: levels of coefficients, and the forces of what a cut would drop.
#include <vector>

#include "loss.h"

using namespace pfc;

extern "C" {

// What a sample of centers says of all negatives. cosines [S, N] become the coefficients below `cut`, 0 elsewhere;
// entries of -2 are own pairs, left out. levels [count, 4]: pairs, coefficients, coefficient^2 sin^2 / |x|^2 and
// coefficient^2 sin^2 / |weights|^2 by half octaves of coefficient / scale: 1 or 1.5 times a power of two is a border.
// The last level takes everything smaller. sums [3]: negatives, their pi/2 - theta and its square.
void pfc_sample_levels(float* cosines, int64_t count, int64_t batch, const float* inverses,
                       const float* sample_inverses, const float* loss_values, float cut, double* levels,
                       int64_t level_count, double* sums, int threads) {
    const Loss loss{loss_values[0], loss_values[1], loss_values[2], loss_values[3]};
    std::vector<double> partial(threads * (level_count * 4 + 3), 0.0);
    const float share = 1.0f / loss.scale;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) {
        double* level = partial.data() + t * (level_count * 4 + 3);
        double* sum = level + level_count * 4;
        std::vector<float> coefficients(batch);
        for (int64_t j = count * t / threads; j < count * (t + 1) / threads; ++j) {
            float* values = cosines + j * batch;
            const float inverse2 = inverses[j] * inverses[j];
            float angles = 0.0f, squares = 0.0f;
            int negatives = 0;
#pragma omp simd reduction(+ : angles, squares, negatives)
            for (int64_t i = 0; i < batch; ++i) {
                const float theta = arccos(values[i]), below = HALF_PI - theta;
                const bool negative = values[i] > OWN_PAIR + 0.5f;
                coefficients[i] = negative ? loss.scale * sigmoid(loss.slope * (loss.b - theta)) : 0.0f;
                angles += negative ? below : 0.0f;
                squares += negative ? below * below : 0.0f;
                negatives += negative;
            }
            sum[0] += negatives;
            sum[1] += angles;
            sum[2] += squares;
            for (int64_t i = 0; i < batch; ++i) {
                const float coefficient = coefficients[i], cosine = values[i];
                values[i] = coefficient < cut ? coefficient : 0.0f;
                if (cosine < OWN_PAIR + 0.5f) continue;
                const int64_t place = 253 - (to_bits(coefficient * share) >> 22);
                double* at = level + 4 * std::max<int64_t>(0, std::min<int64_t>(level_count - 1, place));
                const double force = double(coefficient) * coefficient * std::max(0.0f, 1.0f - cosine * cosine);
                at[0] += 1.0;
                at[1] += coefficient;
                at[2] += force * sample_inverses[i] * sample_inverses[i];
                at[3] += force * inverse2;
            }
        }
    }
    const int64_t width = level_count * 4;
    for (int t = 0; t < threads; ++t) {
        for (int64_t s = 0; s < width; ++s) levels[s] += partial[t * (width + 3) + s];
        for (int s = 0; s < 3; ++s) sums[s] += partial[t * (width + 3) + width + s];
    }
}

// Five numbers of the coefficients [S, N] below the cut, see partial_fc/sample_kernels_torch.py: coherent, mass, chance,
// radial and center force. push [N, D], gram [N, N] and pull [S, D] are its products with centers [S, D], itself and unit
// embeddings [N, D]; weights [S] and sample_weights [N] are inverse norms. below: what `coherent` leaves out.
void pfc_drop_forces(const float* dropped, const float* push, const float* gram, const float* pull, const float* centers,
                     const float* unit, int64_t count, int64_t batch, int64_t dim, const float* weights,
                     const float* sample_weights, double below, double* out, int threads) {
    const int64_t width = 2 * batch + 5;  // of each sample: sum and sum of squares; then the numbers
    std::vector<double> partial(threads * width, 0.0);
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int t = 0; t < threads; ++t) {
        double* sums = partial.data() + t * width;
        double* squares = sums + batch;
        double* number = squares + batch;
        for (int64_t j = count * t / threads; j < count * (t + 1) / threads; ++j) {
            const float* row = dropped + j * batch;
            double own = 0.0;
#pragma omp simd reduction(+ : own)
            for (int64_t i = 0; i < batch; ++i) {
                const double d = row[i], weighted = d * sample_weights[i];
                sums[i] += d;
                squares[i] += d * d;
                own += weighted * weighted;
            }
            number[2] -= own * own;
            const float* force = pull + j * dim;
            const float* center = centers + j * dim;
            double whole = 0.0, radial = 0.0;
#pragma omp simd reduction(+ : whole, radial)
            for (int64_t d = 0; d < dim; ++d) {
                whole += double(force[d]) * force[d];
                radial += double(force[d]) * center[d];
            }
            number[4] += std::max(0.0, whole - radial * radial) * weights[j] * weights[j];
        }
        for (int64_t i = batch * t / threads; i < batch * (t + 1) / threads; ++i) {
            const float* force = push + i * dim;
            const float* x = unit + i * dim;
            const float* products = gram + i * batch;
            double whole = 0.0, radial = 0.0, together = 0.0;
#pragma omp simd reduction(+ : whole, radial)
            for (int64_t d = 0; d < dim; ++d) {
                whole += double(force[d]) * force[d];
                radial += double(force[d]) * x[d];
            }
#pragma omp simd reduction(+ : together)
            for (int64_t k = 0; k < batch; ++k) {
                const double weighted = double(products[k]) * sample_weights[k];
                together += weighted * weighted;
            }
            const double weight2 = double(sample_weights[i]) * sample_weights[i];
            number[0] += (whole - radial * radial) * weight2;
            number[2] += together * weight2;
            number[3] += radial;
        }
    }
    for (int t = 1; t < threads; ++t)
        for (int64_t s = 0; s < width; ++s) partial[s] += partial[t * width + s];
    const double* number = partial.data() + 2 * batch;
    double mass = 0.0;
    for (int64_t i = 0; i < batch; ++i)
        mass += (partial[i] * partial[i] - partial[batch + i]) * sample_weights[i] * sample_weights[i];
    out[0] = number[0] - below;
    out[1] = mass;
    out[2] = 2.0 * std::max(0.0, number[2]);
    out[3] = number[3];
    out[4] = number[4];
}

// [2]: coefficient^2 sin^2 of own pairs over |x|^2 and over |w|^2. centers [M, D] unit, with inverse norms [M]; samples
// [M], into unit embeddings [N, D] with inverse norms [N].
void pfc_own_forces(const float* centers, const float* inverses, const int64_t* samples, int64_t count, const float* unit,
                    const float* sample_inverses, int64_t dim, const float* loss_values, double* out, int threads) {
    const Loss loss{loss_values[0], loss_values[1], loss_values[2], loss_values[3]};
    double on_samples = 0.0, on_rows = 0.0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : on_samples, on_rows)
    for (int64_t m = 0; m < count; ++m) {
        const double cosine = dot(centers + m * dim, unit + samples[m] * dim, dim);
        const double coefficient = pull_at(loss, std::acos(std::max(-1.0, std::min(1.0, cosine))));
        const double force = coefficient * coefficient * std::max(0.0, 1.0 - cosine * cosine);
        on_samples += force * sample_inverses[samples[m]] * sample_inverses[samples[m]];
        on_rows += force * inverses[m] * inverses[m];
    }
    out[0] = on_samples;
    out[1] = on_rows;
}

// Unit rows [N, D] as int8: codes [M, W] with unit = scale * code + residual, scales and bounds on |residual| [M]. M is N
// padded with rows that reach no threshold.
void pfc_code_batch(const float* unit, int64_t count, int64_t dim, int64_t padded, int64_t width, int8_t* codes,
                    float* scales, float* residuals, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t i = 0; i < padded; ++i) {
        int8_t* code = codes + i * width;
        std::fill_n(code, width, int8_t(0));
        scales[i] = 0.0f;
        residuals[i] = -4.0f;
        if (i >= count) continue;
        const float* row = unit + i * dim;
        float largest = 0.0f, residual = 0.0f;
#pragma omp simd reduction(max : largest)
        for (int64_t d = 0; d < dim; ++d) {
            const float size = std::fabs(row[d]);
            largest = size > largest ? size : largest;
        }
        const float scale = largest / 127.0f, to_code = scale > 0.0f ? 1.0f / scale : 0.0f;
#pragma omp simd reduction(+ : residual)
        for (int64_t d = 0; d < dim; ++d) {
            // The same rounding trick as in exponential(): |row * to_code| <= 127.
            const float rounded = (row[d] * to_code + 12582912.0f) - 12582912.0f;
            code[d] = int8_t(int32_t(rounded));
            const float rest = row[d] - scale * rounded;
            residual += rest * rest;
        }
        scales[i] = scale;
        residuals[i] = std::sqrt(residual) * 1.00001f + 1e-6f;
    }
}

}  // extern "C"
