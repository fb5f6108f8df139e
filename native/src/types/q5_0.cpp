// 22 bytes: scale f16, 32 fifth bits, 16 bytes; byte j holds weight j in its low and weight 16 + j in its
// high nibble. Offset 16.
#include "plain.h"

namespace quarry::types {

static std::uint32_t weight(const std::byte* block, std::size_t k) {
    const std::uint32_t byte = load<std::uint8_t>(block + 6 + k % 16);
    return (k < 16 ? byte & 15u : byte >> 4) | (load<std::uint32_t>(block + 2) >> k & 1u) << 4;
}

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 22) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        for (std::size_t k = 0; k < kGroup; ++k)
            *out++ = scale * (static_cast<float>(weight(row, k)) - 16.0f);
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 22, tile, tile_bytes(Layout::q5, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    std::byte* group = out + kHalves;
                    const auto bits = load<std::uint32_t>(block + 2);
                    store_split_nibbles(group, row, block + 6);
                    store_bits(group, 4, row, [&](std::size_t i) { return spread(bits >> 4 * i); });
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    fit_plain(
        x, width, importance, row, 22,
        [](std::span<const float> group, const float* weights, PlainBlock& block) {
            fit_plain_signed(group, weights, 16, block);
        },
        [](const PlainBlock& block, std::byte* out) {
            store(out, f32_to_f16(block.scale));
            store(out + 2, fifth_bits(block.q));
            store_nibble_pairs(block.q, out + 6);
        });
}

const TensorType q5_0{6, "Q5_0", kGroup, 22, Layout::q5, dequantize, pack, quantize};

}  // namespace quarry::types
