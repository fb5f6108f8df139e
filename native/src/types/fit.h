// How scales and integers are chosen for weights, so that the weighted squared error is small.
//
// Each search tries a few scales around the one that the largest weight asks for, solves for the best scale
// with the integers that it gives, and keeps the best pair. The step widths are those of llama.cpp's
// quantizer, so that a model quantised here and there is as good.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

#include "../tensor_type.h"

namespace quarry::types {

constexpr std::size_t kBlockWeights = kNestedGroups * kGroup;
constexpr std::size_t kHalfGroup = kGroup / 2;
constexpr std::size_t kMostGroups = kBlockWeights / kHalfGroup;

// To the nearest integer, ties to even; |x| < 2^22. Beyond, any integer: clamp what is not known to be in
// range.
inline int nearest(float x) {
    // The sum's last mantissa bit is worth one.
    return static_cast<int>(std::bit_cast<std::uint32_t>(x + 0x1.8p23f) - 0x4b400000u);
}

inline int nearest_within(float x, int least, int most) {
    return std::clamp(nearest(x), least, most);
}

// The one of the largest magnitude; 0 of none.
float largest_of(std::span<const float> x);

// x ~ scale * (q - most) with q in [0, 2 * most). `weights` nullptr: x squared.
float fit_signed(std::span<const float> x, const float* weights, int most, std::uint8_t* q);

// The same without trying scales: one integer after the other moves to where it fits best. Weights: x
// squared.
float fit_signed_stepwise(std::span<const float> x, int most, std::uint8_t* q);

struct Affine {
    float scale;
    float minimum;  // >= 0, subtracted
};

// Scales tried: (most + first + i * step) / range for i in [0, n].
struct Steps {
    float first;
    float step;
    int n;
    bool absolute;  // weigh absolute errors, not squares
};

constexpr Steps kStepsByImportance{-0.9f, 0.05f, 36, false};

// x ~ scale * q - minimum with q in [0, most].
Affine fit_affine(std::span<const float> x, const float* weights, int most, const Steps& steps,
                  std::uint8_t* q);

// x ~ scale * kCodebook[q].
float fit_codebook(std::span<const float> x, const float* weights, std::uint8_t* q);

// The place in kCodebook next to x.
std::uint8_t codebook_place(float x);

// weights[i] = importance[i] * sqrt(square + x[i]^2): what a column matters, and large weights more than
// small.
void weigh(std::span<const float> x, const float* importance, float square, float* weights);

float mean_square(std::span<const float> x);

// 256 weights in groups with a scale and a minimum each, which multiply those of the block.
struct AffineShape {
    std::size_t group;
    int most;          // of the integers
    int most_factor;   // of the groups' scales and minima
    Steps steps;       // without importance
    bool add_average;  // without importance, weights are |x|, or |x| + root mean square of the group
    float square;      // with importance, weigh() gets the block's mean square times this
};

struct AffineBlock {
    std::uint16_t scale, minimum;  // f16
    std::uint8_t scales[kMostGroups], minima[kMostGroups];
    std::uint8_t q[kBlockWeights];
};

AffineBlock fit_affine_block(const float* x, const float* importance, const AffineShape& shape);

// 256 weights in groups of 16 with a signed factor each that multiplies the scale of the block.
struct SignedBlock {
    std::uint16_t scale;  // f16
    std::int8_t factors[kMostGroups];
    std::uint8_t q[kBlockWeights];  // offset `most`
};

// Rounds the groups' scales so that the largest gets the factor `least`, and the weights to those scales. `q`
// is kept where a scale is zero.
void round_to_largest(std::span<const float> scales, int least, SignedBlock& block);
void round_signed(const float* x, int most, SignedBlock& block);

}  // namespace quarry::types
