// The rows of one class shard as partial_fc/center_rows.py keeps them; field for field the structure of kernels_native.py.
#pragma once
#include "mathematics.h"

namespace pfc {

struct Rows {
    float* weights;         // [R, D] as of step `touched` of the row's slot; current where it has none
    int8_t* codes;          // [R, W] int8 unit rows, D of the W columns used; may be null
    float* scales;          // [R] unit row = scale * code + residual
    float* slack;           // [R] bound on |unit row - scale * code|, drift until the next touch included
    int32_t* slots;         // [R] place of the row's momentum, -1 for none
    float* momentum;        // [capacity, D] as of `touched`
    int32_t* touched;       // [capacity] step
    int32_t* expiry;        // [capacity] step from which the rest of the movement is below rounding
    float* unrest;          // [capacity] bound on the angle still to be moved, rad
    const float* travel;    // [ages] sum over the steps since a touch of rate * decay^age
    const float* decay;     // [ages] momentum factor ^ age
    int64_t dim, code_width;
    int32_t now;            // steps taken
    float norm_floor;       // rows no longer than this have no direction
    float calm;             // rows with less unrest than this are left alone until they are touched
};

// The row as it stands now: itself, or moved in `buffer` by what its momentum did since it was touched.
inline const float* current(const Rows& rows, int64_t row, float* buffer) {
    const float* stored = rows.weights + row * rows.dim;
    const int32_t slot = rows.slots[row];
    if (slot < 0 || rows.touched[slot] == rows.now) return stored;
    const float* momentum = rows.momentum + int64_t(slot) * rows.dim;
    const float travel = rows.travel[rows.now - rows.touched[slot]];
#pragma omp simd
    for (int64_t d = 0; d < rows.dim; ++d) buffer[d] = stored[d] - travel * momentum[d];
    return buffer;
}

inline float inverse_norm(const Rows& rows, float squared) {
    const float norm = std::sqrt(squared);
    return norm > rows.norm_floor ? 1.0f / norm : 0.0f;
}

// int8 codes of a current row; returns the bound on |unit row - scale * code|.
inline float encode(const Rows& rows, int64_t row, const float* weights, float inverse) {
    int8_t* codes = rows.codes + row * rows.code_width;
    float largest = 0.0f;
#pragma omp simd reduction(max : largest)
    for (int64_t d = 0; d < rows.dim; ++d) largest = std::fmax(largest, std::fabs(weights[d]));
    const float scale = largest * inverse / 127.0f;
    const float to_code = scale > 0.0f ? inverse / scale : 0.0f;
    float residual = 0.0f;
#pragma omp simd reduction(+ : residual)
    for (int64_t d = 0; d < rows.dim; ++d) {
        // The same rounding trick as in exponential(): |weights * to_code| <= 127.
        const float rounded = (weights[d] * to_code + 12582912.0f) - 12582912.0f;
        codes[d] = int8_t(int32_t(rounded));
        const float rest = weights[d] * inverse - scale * rounded;
        residual += rest * rest;
    }
    rows.scales[row] = scale;
    return std::sqrt(residual) * 1.00001f + 1e-6f;  // what the float32 sums themselves may be off
}

}  // namespace pfc
