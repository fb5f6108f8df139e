// 84 bytes for 256 weights: 16 bytes, each the 4-bit scale (low) and minimum (high) of 16 weights, 64 bytes
// of bit pairs, scale f16, minimum f16. Pair p of byte j of either half of the pairs: weight 128 h + 32 p +
// j.
#include "fit.h"
#include "planes.h"

namespace quarry::types {

constexpr std::size_t kBytes = 84;
constexpr std::size_t kPairs = 16;
constexpr std::size_t kScale = 80;

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kBlockWeights; ++b, row += kBytes) {
        const float scale = f16_to_f32(load<std::uint16_t>(row + kScale));
        const float minimum = f16_to_f32(load<std::uint16_t>(row + kScale + 2));
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            const int factors = load<std::uint8_t>(row + k / 16);
            const int q = load<std::uint8_t>(row + kPairs + k / 128 * 32 + k % 32) >> k % 128 / 32 * 2 & 3;
            *out++ = scale * static_cast<float>(factors & 15) * static_cast<float>(q) -
                     minimum * static_cast<float>(factors >> 4);
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    constexpr std::size_t kIntegers = 2 * kHalves + 2 * kNestedGroups * kTileRows;
    pack_blocks(rows, width / kBlockWeights, kBytes, tile, tile_bytes(Layout::q2_nested, kBlockWeights),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block + kScale));
                    store_half(out, 1, row, load<std::uint16_t>(block + kScale + 2));
                    for (std::size_t half = 0; half < 2 * kNestedGroups; ++half) {
                        out[2 * kHalves + half * kTileRows + row] = block[half];
                    }
                    for (std::size_t g = 0; g < kNestedGroups; ++g) {
                        const std::byte* run = block + kPairs + g / 4 * 32;
                        store_pairs(out + kIntegers + g * 2 * kLine, 0, row, [&](std::size_t i) {
                            return load<std::uint32_t>(run + 4 * i) >> g % 4 * 2 & 0x03030303u;
                        });
                    }
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    constexpr AffineShape kShape{kHalfGroup, 3, 15, {-0.5f, 0.1f, 15, true}, false, 1.0f};
    for (std::size_t at = 0; at < width; at += kBlockWeights, row += kBytes) {
        const AffineBlock block =
            fit_affine_block(x + at, importance == nullptr ? nullptr : importance + at, kShape);
        for (std::size_t half = 0; half < kMostGroups; ++half) {
            row[half] = static_cast<std::byte>(block.scales[half] | block.minima[half] << 4);
        }
        store_pair_runs(block.q, row + kPairs);
        store(row + kScale, block.scale);
        store(row + kScale + 2, block.minimum);
    }
}

const TensorType q2_k{10, "Q2_K", kBlockWeights, kBytes, Layout::q2_nested, dequantize, pack, quantize};

}  // namespace quarry::types
