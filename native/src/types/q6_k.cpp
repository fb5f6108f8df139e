// 210 bytes for 256 weights: 128 bytes of low nibbles, 64 bytes of upper bit pairs, 16 signed scales, scale
// f16. Each half of 128 weights: byte j < 64 of the nibbles holds weight j low and weight 64 + j high; pair p
// of byte j of the upper bits belongs to weight 32p + j. Offset 32.
#include "fit.h"
#include "planes.h"

namespace quarry::types {

constexpr std::size_t kUpper = 128;
constexpr std::size_t kScales = 192;
constexpr std::size_t kScale = 208;

// Where the nibbles and pairs of group g begin, and how far they are shifted.
static const std::byte* nibbles_of(const std::byte* block, std::size_t g) {
    return block + g / 4 * 64 + g % 2 * 32;
}
static const std::byte* pairs_of(const std::byte* block, std::size_t g) {
    return block + kUpper + g / 4 * 32;
}

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kBlockWeights; ++b, row += 210) {
        const float scale = f16_to_f32(load<std::uint16_t>(row + kScale));
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            const std::size_t g = k / kGroup;
            const int low = load<std::uint8_t>(nibbles_of(row, g) + k % kGroup) >> g % 4 / 2 * 4 & 15;
            const int high = load<std::uint8_t>(pairs_of(row, g) + k % kGroup) >> g % 4 * 2 & 3;
            const auto factor = static_cast<float>(load<std::int8_t>(row + kScales + k / 16));
            *out++ = scale * factor * static_cast<float>((low | high << 4) - 32);
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    constexpr std::size_t kIntegers = kHalves + 2 * kNestedGroups * kTileRows;
    const std::size_t tile_block_bytes = tile_bytes(Layout::q6_nested, kBlockWeights);
    pack_blocks(
        rows, width / kBlockWeights, 210, tile, tile_block_bytes,
        [&](const std::byte* block, std::size_t row, std::byte* out) {
            store_half(out, 0, row, load<std::uint16_t>(block + kScale));
            for (std::size_t half = 0; half < 2 * kNestedGroups; ++half) {
                out[kTileRows * (sizeof(std::uint16_t) + half) + row] = block[kScales + half];
            }
            for (std::size_t g = 0; g < kNestedGroups; ++g) {
                std::byte* group = out + kIntegers + g * (tile_block_bytes - kIntegers) / kNestedGroups;
                store_nibbles(group, row, [&](std::size_t i) {
                    return load<std::uint32_t>(nibbles_of(block, g) + 4 * i) >> g % 4 / 2 * 4 & 0x0f0f0f0fu;
                });
                store_pairs(group, 4, row, [&](std::size_t i) {
                    return load<std::uint32_t>(pairs_of(block, g) + 4 * i) >> g % 4 * 2 & 0x03030303u;
                });
            }
        });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    constexpr int kMost = 32;
    for (std::size_t at = 0; at < width; at += kBlockWeights, x += kBlockWeights, row += 210) {
        SignedBlock block{};
        float scales[kMostGroups];
        for (std::size_t half = 0; half < kMostGroups; ++half) {
            const std::size_t first = half * kHalfGroup;
            scales[half] =
                fit_signed({x + first, kHalfGroup}, importance == nullptr ? nullptr : importance + at + first,
                           kMost, block.q + first);
        }
        round_to_largest(scales, -128, block);
        round_signed(x, kMost, block);
        std::memset(row, 0, kScales);
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            const std::size_t g = k / kGroup;
            const std::size_t j = k % kGroup;
            row[g / 4 * 64 + g % 2 * 32 + j] |= static_cast<std::byte>((block.q[k] & 15) << g % 4 / 2 * 4);
            row[kUpper + g / 4 * 32 + j] |= static_cast<std::byte>(block.q[k] >> 4 << g % 4 * 2);
        }
        std::memcpy(row + kScales, block.factors, sizeof block.factors);
        store(row + kScale, block.scale);
    }
}

const TensorType q6_k{14, "Q6_K", kBlockWeights, 210, Layout::q6_nested, dequantize, pack, quantize};

}  // namespace quarry::types
