// Centers kept in bfloat16: read as they are, written with stochastic rounding. partial_fc/stochastic_rounding.py states
// the formula; bits are the same here, there and in triton_rounding.py.
#pragma once
#include "mathematics.h"

namespace pfc {

// A float32 whose lower half is 0.
inline float widened(uint16_t half) { return from_bits(int32_t(uint32_t(half) << 16)); }

// An invertible hash of 32 bits (C. Wellons, lowbias32).
inline uint32_t mixed(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

struct Rounding {
    uint32_t key_low, key_high;  // of (seed, step, purpose)
    int64_t first_class;         // global class id of row 0
};

// Round the float32 `values` of a class into `stored`; afterwards `values` is what was stored.
inline void round_row(const Rounding& rounding, int64_t number, float* values, uint16_t* stored, int64_t dim) {
    const uint32_t low = uint32_t(number), high = uint32_t(uint64_t(number) >> 32);
    const uint32_t start = mixed(mixed(rounding.key_low ^ low) ^ rounding.key_high ^ high);
#pragma omp simd
    for (int64_t d = 0; d < dim; ++d) {
        const uint32_t noise = mixed(start + uint32_t(d) * 0x9E3779B9u) & 0xFFFFu;
        const uint32_t bits = uint32_t(to_bits(values[d]));
        const uint32_t quiet = (bits & 0x007FFFFFu) != 0 ? 0x40u : 0u;
        const bool finite = (bits & 0x7F800000u) != 0x7F800000u;
        const uint32_t half = finite ? (bits + noise) >> 16 : (bits >> 16) | quiet;
        stored[d] = uint16_t(half);
        values[d] = from_bits(int32_t(half << 16));
    }
}

}  // namespace pfc
