// 176 bytes for 256 weights: nested scales, 32 bytes of fifth bits (bit g of byte j: weight 32g + j), then
// nibbles as in Q4_K.
#include "nested.h"

namespace quarry::types {

constexpr std::size_t kNibbles = kNestedHeader + 32;

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    dequantize_nested(row, width, 176, out, [](const std::byte* block, std::size_t k) {
        const int nibble =
            load<std::uint8_t>(block + kNibbles + k / 64 * 32 + k % 32) >> k % 64 / 32 * 4 & 15;
        return nibble | (load<std::uint8_t>(block + kNestedHeader + k % 32) >> k / 32 & 1) << 4;
    });
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_nested(rows, width, 176, Layout::q5_nested, tile,
                [](const std::byte* block, std::size_t row, std::size_t g, std::byte* group) {
                    const std::byte* run = block + kNibbles + g / 2 * 32;
                    store_nibbles(group, row, [&](std::size_t i) {
                        return load<std::uint32_t>(run + 4 * i) >> g % 2 * 4 & 0x0f0f0f0fu;
                    });
                    store_bits(group, 4, row, [&](std::size_t i) {
                        return load<std::uint32_t>(block + kNestedHeader + 4 * i) >> g & 0x01010101u;
                    });
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    constexpr AffineShape kShape{kGroup, 31, 63, {-0.5f, 0.1f, 15, false}, true, 2.0f};
    quantize_nested(x, width, importance, 176, kShape, row, [](const AffineBlock& block, std::byte* out) {
        std::memset(out + kNestedHeader, 0, 32);
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            out[kNestedHeader + k % 32] |= static_cast<std::byte>(block.q[k] >> 4 << k / 32);
        }
        store_nibble_runs(block.q, out + kNibbles);
    });
}

const TensorType q5_k{13, "Q5_K", kBlockWeights, 176, Layout::q5_nested, dequantize, pack, quantize};

}  // namespace quarry::types
