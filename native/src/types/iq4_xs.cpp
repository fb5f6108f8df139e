// 136 bytes for 256 weights: scale f16, the upper bit pairs of 8 scales in 2 bytes, their low nibbles in 4,
// then for each group of 32 weights 16 bytes as in IQ4_NL. Scales have offset 32.
#include "plain.h"

namespace quarry::types {

constexpr std::size_t kBytes = 136;
constexpr std::size_t kNibbles = 8;

static std::int8_t factor_of(const std::byte* block, std::size_t g) {
    const int low = load<std::uint8_t>(block + 4 + g / 2) >> g % 2 * 4 & 15;
    const int high = load<std::uint16_t>(block + 2) >> 2 * g & 3;
    return static_cast<std::int8_t>((low | high << 4) - 32);
}

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kBlockWeights; ++b, row += kBytes) {
        for (std::size_t g = 0; g < kNestedGroups; ++g, out += kGroup) {
            const float scale = f16_to_f32(load<std::uint16_t>(row)) * static_cast<float>(factor_of(row, g));
            for (std::size_t j = 0; j < 16; ++j) {
                const int byte = load<std::uint8_t>(row + kNibbles + 16 * g + j);
                out[j] = scale * static_cast<float>(kCodebook[byte & 15]);
                out[16 + j] = scale * static_cast<float>(kCodebook[byte >> 4]);
            }
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    constexpr std::size_t kIntegers = kHalves + kNestedGroups * kTileRows;
    pack_blocks(rows, width / kBlockWeights, kBytes, tile, tile_bytes(Layout::t4_nested, kBlockWeights),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    for (std::size_t g = 0; g < kNestedGroups; ++g) {
                        out[kHalves + g * kTileRows + row] = static_cast<std::byte>(factor_of(block, g));
                        store_split_nibbles(out + kIntegers + g * 4 * kLine, row, block + kNibbles + 16 * g);
                    }
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    for (std::size_t at = 0; at < width; at += kBlockWeights, x += kBlockWeights, row += kBytes) {
        const float square = 2 * mean_square({x, kBlockWeights});
        SignedBlock block{};
        float scales[kNestedGroups];
        for (std::size_t g = 0; g < kNestedGroups; ++g) {
            const std::span<const float> group(x + g * kGroup, kGroup);
            float weights[kGroup];
            if (importance != nullptr) weigh(group, importance + at + g * kGroup, square, weights);
            scales[g] = fit_codebook(group, importance != nullptr ? weights : nullptr, block.q + g * kGroup);
        }
        round_to_largest(scales, -32, block);
        // By the scale before it became f16, as llama.cpp does: the weights are then the same.
        const float block_scale = largest_of(scales) / -32.0f;
        std::uint16_t upper = 0;
        std::memset(row, 0, kNibbles);
        for (std::size_t g = 0; g < kNestedGroups; ++g) {
            const float scale = block_scale * static_cast<float>(block.factors[g]);
            const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
            for (std::size_t k = g * kGroup; k < (g + 1) * kGroup; ++k) {
                block.q[k] = codebook_place(inverse * x[k]);
            }
            store_nibble_pairs(block.q + g * kGroup, row + kNibbles + 16 * g);
            const int factor = block.factors[g] + 32;
            row[4 + g / 2] |= static_cast<std::byte>((factor & 15) << g % 2 * 4);
            upper |= static_cast<std::uint16_t>(factor >> 4 << 2 * g);
        }
        store(row, block.scale);
        store(row + 2, upper);
    }
}

const TensorType iq4_xs{23, "IQ4_XS", kBlockWeights, kBytes, Layout::t4_nested, dequantize, pack, quantize};

}  // namespace quarry::types
