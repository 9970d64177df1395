// The rows of one class shard as partial_fc/center_rows.py keeps them; field for field the structure of kernels_native.py.
#pragma once
#include "half.h"

namespace pfc {

struct Rows {
    void* weights;          // [A, D] float32 or bfloat16, as of step `touched` of the row's slot; current where it has none
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
    const int32_t* places;  // [R] where in `weights` a row lies; null: row i at place i
    int64_t dim, code_width;
    Rounding rounding;      // of rows that are written
    int32_t half;           // whether `weights` is bfloat16
    int32_t now;            // steps taken
    float norm_floor;       // rows no longer than this have no direction
    float calm;             // rows with less unrest than this are left alone until they are touched
};

inline int64_t offset_of(const Rows& rows, int64_t row) { return (rows.places ? rows.places[row] : row) * rows.dim; }

// The row as it stands now: itself, or in `buffer` what is widened or moved by what its momentum did since its touch.
inline const float* current(const Rows& rows, int64_t row, float* buffer) {
    const int32_t slot = rows.slots[row];
    const bool still = slot < 0 || rows.touched[slot] == rows.now;
    const float* momentum = still ? nullptr : rows.momentum + int64_t(slot) * rows.dim;
    const float travel = still ? 0.0f : rows.travel[rows.now - rows.touched[slot]];
    if (rows.half) {
        const uint16_t* stored = static_cast<const uint16_t*>(rows.weights) + offset_of(rows, row);
        if (still) {
#pragma omp simd
            for (int64_t d = 0; d < rows.dim; ++d) buffer[d] = widened(stored[d]);
        } else {
#pragma omp simd
            for (int64_t d = 0; d < rows.dim; ++d) buffer[d] = widened(stored[d]) - travel * momentum[d];
        }
        return buffer;
    }
    const float* stored = static_cast<const float*>(rows.weights) + offset_of(rows, row);
    if (still) return stored;
#pragma omp simd
    for (int64_t d = 0; d < rows.dim; ++d) buffer[d] = stored[d] - travel * momentum[d];
    return buffer;
}

// Where new values of a row are computed: in the table, or in the `buffer` of current() until keep() rounds them.
inline float* target(const Rows& rows, int64_t row, float* buffer) {
    return rows.half ? buffer : static_cast<float*>(rows.weights) + offset_of(rows, row);
}

// The row as stored, to be changed in place and given to keep().
inline float* opened(const Rows& rows, int64_t row, float* buffer) {
    float* values = target(rows, row, buffer);
    if (rows.half) {
        const uint16_t* stored = static_cast<const uint16_t*>(rows.weights) + offset_of(rows, row);
#pragma omp simd
        for (int64_t d = 0; d < rows.dim; ++d) values[d] = widened(stored[d]);
    }
    return values;
}

// Store what was computed in target(); afterwards it holds what is stored.
inline void keep(const Rows& rows, int64_t row, float* values) {
    if (rows.half)
        round_row(rows.rounding, rows.rounding.first_class + row, values,
                  static_cast<uint16_t*>(rows.weights) + offset_of(rows, row), rows.dim);
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
    for (int64_t d = 0; d < rows.dim; ++d) {
        // Not std::fmax: where a number may be NaN that is a call per element.
        const float size = std::fabs(weights[d]);
        largest = size > largest ? size : largest;
    }
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
