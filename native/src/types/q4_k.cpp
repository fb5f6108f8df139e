// 144 bytes for 256 weights: nested scales, then 4 x 32 bytes; byte j of run c holds weight 64c + j in its
// low and weight 64c + 32 + j in its high nibble.
#include "nested.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    dequantize_nested(row, width, 144, out, [](const std::byte* block, std::size_t k) {
        return load<std::uint8_t>(block + kNestedHeader + k / 64 * 32 + k % 32) >> k % 64 / 32 * 4 & 15;
    });
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_nested(rows, width, 144, Layout::q4_nested, tile,
                [](const std::byte* block, std::size_t row, std::size_t g, std::byte* group) {
                    const std::byte* run = block + kNestedHeader + g / 2 * 32;
                    store_nibbles(group, row, [&](std::size_t i) {
                        return load<std::uint32_t>(run + 4 * i) >> g % 2 * 4 & 0x0f0f0f0fu;
                    });
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    constexpr AffineShape kShape{kGroup, 15, 63, {-1.0f, 0.1f, 20, false}, true, 2.0f};
    quantize_nested(x, width, importance, 144, kShape, row, [](const AffineBlock& block, std::byte* out) {
        store_nibble_runs(block.q, out + kNestedHeader);
    });
}

const TensorType q4_k{12, "Q4_K", kBlockWeights, 144, Layout::q4_nested, dequantize, pack, quantize};

}  // namespace quarry::types
