// SFace's numbers, as partial_fc/sface.py names them.
#pragma once
#include <algorithm>

#include "mathematics.h"

namespace pfc {

constexpr float OWN_PAIR = -2.0f;  // stands for the cosine of an own pair among negatives

struct Loss {
    float scale, slope, a, b;
};

// s * sig(k(theta - a)) in float64: pulls of own pairs are most of a gradient, and steep in the angle.
inline double pull_at(const Loss& loss, double theta) {
    return loss.scale / (1.0 + std::exp(loss.slope * (loss.a - theta)));
}

}  // namespace pfc
