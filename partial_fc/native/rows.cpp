// What happens to whole rows: read as unit rows, coded, moved by the optimizer. One thread per block of rows.
#include <algorithm>
#include <vector>

#include "rows.h"

using namespace pfc;

extern "C" {

// Unit rows [count, D] and inverse norms [count] of `list`, or of the rows from `start` on where it is null.
void pfc_gather_unit(const Rows* rows, const int64_t* list, int64_t start, int64_t count, float* unit,
                     float* inverse, int threads) {
    const int64_t dim = rows->dim;
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; ++i) {
            const float* weights = current(*rows, list ? list[i] : start + i, buffer.data());
            inverse[i] = inverse_norm(*rows, dot(weights, weights, dim));
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) unit[i * dim + d] = weights[d] * inverse[i];
        }
    }
}

// int8 codes of `count` rows from `start` on.
void pfc_encode(const Rows* rows, int64_t start, int64_t count, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(rows->dim);
#pragma omp for schedule(static)
        for (int64_t row = start; row < start + count; ++row) {
            const float* weights = current(*rows, row, buffer.data());
            const float inverse = inverse_norm(*rows, dot(weights, weights, rows->dim));
            const int32_t slot = rows->slots[row];
            // The bound of the touch holds for all movement from then on, so also for the rest of it.
            const float drift = slot >= 0 && rows->unrest[slot] <= rows->calm ? rows->unrest[slot] : 0.0f;
            rows->slack[row] = encode(*rows, row, weights, inverse) + drift;
        }
    }
}

}  // extern "C"

namespace {

// Steps that a touched row keeps its momentum, however small: it may be touched again, and letting go costs a visit.
constexpr float SHORTEST_LIFE = 16.0f;

struct Motion {
    float reach, patient_reach, rounding, log_factor;
    int32_t longest;
};

// Write back a moved row: its time, how long its momentum matters, its codes.
void finish(const Rows& rows, int64_t row, const float* weights, const float* momentum, int32_t slot,
            const Motion& motion, bool encoded) {
    const float inverse = inverse_norm(rows, dot(weights, weights, rows.dim));
    float drift = 0.0f;
    if (slot >= 0) {
        const float speed = std::sqrt(dot(momentum, momentum, rows.dim)) * inverse;
        const float unrest = std::min(motion.reach * speed * 1.0001f, 1e3f), left = motion.patient_reach * speed;
        const float steps = left > motion.rounding ? std::ceil(std::log(motion.rounding / left) / motion.log_factor) : 0.0f;
        rows.touched[slot] = rows.now;
        const float life = std::min(std::max(steps, SHORTEST_LIFE), float(motion.longest));
        rows.expiry[slot] = rows.now + int32_t(life);
        // A row without direction cannot be screened by its angle: it is moved every step.
        rows.unrest[slot] = inverse > 0.0f ? unrest : 1e3f;
        drift = rows.unrest[slot] <= rows.calm ? rows.unrest[slot] : 0.0f;
    }
    if (encoded) rows.slack[row] = encode(rows, row, weights, inverse) + drift;
}

}  // namespace

extern "C" {

// One optimizer step of `list`; now is the step before. Row i has the pairs [offsets[i], offsets[i + 1]), or none where
// offsets is null: momentum <- factor * momentum + gradient, weights <- weights - rate * momentum, with
//   gradient = (sum_p coefficient_p * x_p - (sum_p coefficient_p * cosine_p) * unit) / |weights|.
void pfc_update(Rows* rows, const int64_t* list, int64_t count, const int64_t* offsets, const int32_t* samples,
                const float* coefficients, const float* cosines, const float* embeddings, float rate, float factor,
                float reach, float patient_reach, float rounding, int32_t longest, int threads) {
    const int64_t dim = rows->dim;
    Rows after = *rows;
    after.now = rows->now + 1;
    const Motion motion{reach, patient_reach, rounding, std::log(factor), longest};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(dim), gradient(dim);
        // Chunks, as hubs with many pairs may lie together; each row's result depends on itself alone.
#pragma omp for schedule(dynamic, 64)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t row = list[i];
            const int32_t slot = rows->slots[row];
            const float* now = current(*rows, row, buffer.data());
            float* weights = target(*rows, row, buffer.data());
            const int64_t first = offsets ? offsets[i] : 0, last = offsets ? offsets[i + 1] : 0;
            if (first < last) {
                const float inverse = inverse_norm(*rows, dot(now, now, dim));
                float radial = 0.0f;
                std::fill(gradient.begin(), gradient.end(), 0.0f);
                for (int64_t p = first; p < last; ++p) {
                    add_scaled(gradient.data(), coefficients[p], embeddings + int64_t(samples[p]) * dim, dim);
                    radial += coefficients[p] * cosines[p];
                }
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d)
                    gradient[d] = (gradient[d] - radial * inverse * now[d]) * inverse;
            }
            if (slot < 0) {
                if (first < last) {
                    for (int64_t d = 0; d < dim; ++d) weights[d] = now[d] - rate * gradient[d];
                    keep(*rows, row, weights);
                }
                finish(after, row, weights, nullptr, -1, motion, rows->codes != nullptr);
                continue;
            }
            float* momentum = rows->momentum + int64_t(slot) * dim;
            const float held = factor * rows->decay[rows->now - rows->touched[slot]];
            if (first < last) {
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) {
                    momentum[d] = held * momentum[d] + gradient[d];
                    weights[d] = now[d] - rate * momentum[d];
                }
            } else {
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) {
                    momentum[d] = held * momentum[d];
                    weights[d] = now[d] - rate * momentum[d];
                }
            }
            keep(*rows, row, weights);
            finish(after, row, weights, momentum, slot, motion, rows->codes != nullptr);
        }
    }
}

// The same step for the rows [start, start + count) from a dense gradient of their cosines: sums [count, D] holds
// sum_i coefficient_i * x_i. Codes are left as they are: nobody screens in a dense phase.
void pfc_update_dense(Rows* rows, int64_t start, int64_t count, const float* sums, float rate, float factor,
                      float reach, float patient_reach, float rounding, int32_t longest, int threads) {
    const int64_t dim = rows->dim;
    Rows after = *rows;
    after.now = rows->now + 1;
    const Motion motion{reach, patient_reach, rounding, std::log(factor), longest};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t row = start + i;
            const int32_t slot = rows->slots[row];
            const float* now = current(*rows, row, buffer.data());
            const float* sum = sums + i * dim;
            const float inverse = inverse_norm(*rows, dot(now, now, dim));
            const float radial = dot(sum, now, dim) * inverse * inverse;
            float* weights = target(*rows, row, buffer.data());
            if (slot < 0) {
#pragma omp simd
                for (int64_t d = 0; d < dim; ++d) weights[d] = now[d] - rate * inverse * (sum[d] - radial * now[d]);
                keep(*rows, row, weights);
                continue;
            }
            float* momentum = rows->momentum + int64_t(slot) * dim;
            const float held = factor * rows->decay[rows->now - rows->touched[slot]];
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) {
                momentum[d] = held * momentum[d] + (sum[d] - radial * now[d]) * inverse;
                weights[d] = now[d] - rate * momentum[d];
            }
            keep(*rows, row, weights);
            finish(after, row, weights, momentum, slot, motion, false);
        }
    }
}

// Bring `list` to now. Where `rest` is given (a rate times factor / (1 - factor)), also the movement still to come.
void pfc_settle(Rows* rows, const int64_t* list, int64_t count, float rest, float factor, float reach,
                float patient_reach, float rounding, int32_t longest, int threads) {
    const int64_t dim = rows->dim;
    const Motion motion{reach, patient_reach, rounding, std::log(factor), longest};
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> buffer(dim);
#pragma omp for schedule(static)
        for (int64_t i = 0; i < count; ++i) {
            const int64_t row = list[i];
            const int32_t slot = rows->slots[row];
            if (slot < 0) continue;
            float* weights = opened(*rows, row, buffer.data());
            float* momentum = rows->momentum + int64_t(slot) * dim;
            const int32_t age = rows->now - rows->touched[slot];
            const float held = rows->decay[age], travel = rows->travel[age] + rest * held;
#pragma omp simd
            for (int64_t d = 0; d < dim; ++d) {
                weights[d] -= travel * momentum[d];
                momentum[d] *= held;
            }
            if (rest > 0.0f) rows->unrest[slot] = 0.0f;
            keep(*rows, row, weights);
            finish(*rows, row, weights, momentum, rest > 0.0f ? -1 : slot, motion, rows->codes != nullptr);
        }
    }
}

}  // extern "C"
