// What Q4_0, Q4_1, Q5_0 and Q5_1 share when they are written: one scale for 32 weights, and where the type
// has one, a minimum.
#pragma once

#include "fit.h"
#include "planes.h"

namespace quarry::types {

struct PlainBlock {
    float scale;
    float minimum;           // <= 0, added; 0 for signed types
    std::uint8_t q[kGroup];  // of signed types with offset `most`
};

// Calls each(block, bytes of the row) for each group of 32 weights.
template <class Fit, class Each>
void fit_plain(const float* x, std::size_t width, const float* importance, std::byte* row,
               std::size_t block_bytes, Fit fit, Each each) {
    const float square = importance != nullptr ? mean_square({x, width}) : 0.0f;
    for (std::size_t b = 0; b < width / kGroup; ++b, row += block_bytes) {
        const std::span<const float> group(x + b * kGroup, kGroup);
        float weights[kGroup];
        if (importance != nullptr) weigh(group, importance + b * kGroup, square, weights);
        PlainBlock block{};
        fit(group, importance != nullptr ? weights : nullptr, block);
        each(block, row);
    }
}

// Integers in [-most, most): without importance the largest weight becomes -most exactly.
inline void fit_plain_signed(std::span<const float> x, const float* weights, int most, PlainBlock& block) {
    if (weights != nullptr) {
        block.scale = fit_signed(x, weights, most, block.q);
        return;
    }
    float largest = 0;
    for (const float v : x) largest = std::fabs(v) > std::fabs(largest) ? v : largest;
    block.scale = largest / static_cast<float>(-most);
    const float inverse = block.scale != 0 ? 1.0f / block.scale : 0.0f;
    for (std::size_t k = 0; k < kGroup; ++k) {
        const float at = x[k] * inverse + static_cast<float>(most) + 0.5f;
        block.q[k] = static_cast<std::uint8_t>(std::clamp(static_cast<int>(at), 0, 2 * most - 1));
    }
}

// Integers in [0, most]: without importance from the least weight to the largest.
inline void fit_plain_affine(std::span<const float> x, const float* weights, int most, PlainBlock& block) {
    if (weights != nullptr) {
        const Affine fit = fit_affine(x, weights, most, kStepsByImportance, block.q);
        block.scale = fit.scale;
        block.minimum = -fit.minimum;
        return;
    }
    const auto [least, largest] = std::minmax_element(x.begin(), x.end());
    block.scale = (*largest - *least) / static_cast<float>(most);
    block.minimum = *least;
    const float inverse = block.scale != 0 ? 1.0f / block.scale : 0.0f;
    for (std::size_t k = 0; k < kGroup; ++k) {
        const int at = static_cast<int>((x[k] - *least) * inverse + 0.5f);
        block.q[k] = static_cast<std::uint8_t>(std::clamp(at, 0, most));
    }
}

// Low nibbles to 16 bytes: weight j low, weight 16 + j high.
inline void store_nibble_pairs(const std::uint8_t* q, std::byte* out) {
    for (std::size_t j = 0; j < 16; ++j) out[j] = static_cast<std::byte>((q[j] & 15) | (q[16 + j] & 15) << 4);
}

inline std::uint32_t fifth_bits(const std::uint8_t* q) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < kGroup; ++k) bits |= std::uint32_t{q[k] >> 4 & 1u} << k;
    return bits;
}

}  // namespace quarry::types
