// The scales of Q4_K and Q5_K: f16 scale, f16 minimum, then eight 6-bit scales and eight 6-bit minima in 12
// bytes.
#pragma once

#include "fit.h"
#include "planes.h"

namespace quarry::types {

constexpr std::size_t kNestedHeader = 16;

struct NestedFactors {
    std::uint8_t scale;
    std::uint8_t minimum;
};

inline NestedFactors nested_factors(const std::byte* block, std::size_t group) {
    const auto byte = [&](std::size_t i) { return load<std::uint8_t>(block + 4 + i); };
    if (group < 4) {
        return {static_cast<std::uint8_t>(byte(group) & 63), static_cast<std::uint8_t>(byte(group + 4) & 63)};
    }
    const int low = byte(group + 4);
    return {static_cast<std::uint8_t>((low & 15) | (byte(group - 4) >> 6) << 4),
            static_cast<std::uint8_t>(low >> 4 | (byte(group) >> 6) << 4)};
}

// weight(block, k): the k-th integer of a block.
template <class Weight>
void dequantize_nested(const std::byte* row, std::size_t width, std::size_t block_bytes, float* out,
                       Weight weight) {
    for (std::size_t b = 0; b < width / kBlockWeights; ++b, row += block_bytes) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        const float minimum = f16_to_f32(load<std::uint16_t>(row + 2));
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            const NestedFactors factors = nested_factors(row, k / kGroup);
            *out++ = scale * static_cast<float>(factors.scale) * static_cast<float>(weight(row, k)) -
                     minimum * static_cast<float>(factors.minimum);
        }
    }
}

inline void store_nested_factors(const AffineBlock& block, std::byte* out) {
    std::uint8_t bytes[12] = {};
    for (std::size_t g = 0; g < 4; ++g) {
        const int scale = block.scales[4 + g];
        const int minimum = block.minima[4 + g];
        bytes[g] = static_cast<std::uint8_t>(block.scales[g] | scale >> 4 << 6);
        bytes[4 + g] = static_cast<std::uint8_t>(block.minima[g] | minimum >> 4 << 6);
        bytes[8 + g] = static_cast<std::uint8_t>((scale & 15) | (minimum & 15) << 4);
    }
    std::memcpy(out, bytes, sizeof bytes);
}

// Low nibbles of 256 weights to 4 x 32 bytes.
inline void store_nibble_runs(const std::uint8_t* q, std::byte* out) {
    for (std::size_t at = 0; at < kBlockWeights / 2; ++at) {
        const std::uint8_t* run = q + at / 32 * 64 + at % 32;
        out[at] = static_cast<std::byte>((run[0] & 15) | (run[32] & 15) << 4);
    }
}

// Writes the header of each block; store(block, bytes) writes the integers.
template <class Store>
void quantize_nested(const float* x, std::size_t width, const float* importance, std::size_t block_bytes,
                     const AffineShape& shape, std::byte* row, Store store_integers) {
    for (std::size_t at = 0; at < width; at += kBlockWeights, row += block_bytes) {
        const AffineBlock block =
            fit_affine_block(x + at, importance == nullptr ? nullptr : importance + at, shape);
        store(row, block.scale);
        store(row + 2, block.minimum);
        store_nested_factors(block, row + 4);
        store_integers(block, row);
    }
}

// Packs the scales and calls each(block, row, group index, group in the tile).
template <class Each>
void pack_nested(const std::byte* const* rows, std::size_t width, std::size_t block_bytes, Layout layout,
                 std::byte* tile, Each each) {
    const std::size_t tile_block_bytes = tile_bytes(layout, kBlockWeights);
    constexpr std::size_t kScales = 2 * kTileRows * sizeof(std::uint16_t);
    constexpr std::size_t kIntegers = kScales + 2 * kNestedGroups * kTileRows;
    const std::size_t group_bytes = (tile_block_bytes - kIntegers) / kNestedGroups;
    pack_blocks(rows, width / kBlockWeights, block_bytes, tile, tile_block_bytes,
                [&](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    store_half(out, 1, row, load<std::uint16_t>(block + 2));
                    for (std::size_t g = 0; g < kNestedGroups; ++g) {
                        const NestedFactors factors = nested_factors(block, g);
                        out[kScales + g * kTileRows + row] = std::byte{factors.scale};
                        out[kScales + (kNestedGroups + g) * kTileRows + row] = std::byte{factors.minimum};
                        each(block, row, g, out + kIntegers + g * group_bytes);
                    }
                });
}

}  // namespace quarry::types
