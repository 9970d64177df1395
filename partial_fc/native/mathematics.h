// Single-precision building blocks that the compiler can vectorise: no libm calls, no branches.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

namespace pfc {

constexpr float HALF_PI = 1.57079632679489662f;
constexpr float PI = 3.14159265358979324f;

inline float from_bits(int32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int32_t to_bits(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// arccos(clamp(c, -1, 1)) to 2e-7: Abramowitz and Stegun 4.4.46, sqrt(1 - |c|) times a polynomial.
inline float arccos(float c) {
    float x = std::fabs(c);
    x = x < 1.0f ? x : 1.0f;
    float p = -0.0012624911f;
    p = p * x + 0.0066700901f;
    p = p * x - 0.0170881256f;
    p = p * x + 0.0308918810f;
    p = p * x - 0.0501743046f;
    p = p * x + 0.0889789874f;
    p = p * x - 0.2145988016f;
    p = p * x + 1.5707963050f;
    const float acute = std::sqrt(1.0f - x) * p;
    return c < 0.0f ? PI - acute : acute;
}

// exp(x) to 2e-7 relative for |x| <= 87, held at the ends outside: 2^n times the exponential of the rest.
inline float exponential(float x) {
    x = x < 87.0f ? x : 87.0f;
    x = x > -87.0f ? x : -87.0f;
    // Adding 1.5 * 2^23 rounds to the nearest integer and leaves it in the low mantissa bits.
    const float shifted = x * 1.44269504f + 12582912.0f;
    const int32_t n = to_bits(shifted) - 0x4B400000;
    const float whole = shifted - 12582912.0f;
    const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    float p = 1.9875691e-4f;
    p = p * r + 1.3981999e-3f;
    p = p * r + 8.3334519e-3f;
    p = p * r + 4.1665796e-2f;
    p = p * r + 1.6666665e-1f;
    p = p * r + 5.0000001e-1f;
    p = p * r * r + r + 1.0f;
    return p * from_bits((n + 127) << 23);
}

inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

inline float dot(const float* x, const float* y, int64_t n) {
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t d = 0; d < n; ++d) sum += x[d] * y[d];
    return sum;
}

inline void add_scaled(float* to, float factor, const float* x, int64_t n) {
#pragma omp simd
    for (int64_t d = 0; d < n; ++d) to[d] += factor * x[d];
}

}  // namespace pfc
