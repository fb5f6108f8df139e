// 24 bytes: scale f16, min f16, 32 fifth bits, 16 bytes as in Q5_0. No offset.
#include "plain.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 24) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        const float min = f16_to_f32(load<std::uint16_t>(row + 2));
        const auto bits = load<std::uint32_t>(row + 4);
        for (std::size_t k = 0; k < kGroup; ++k) {
            const std::uint32_t byte = load<std::uint8_t>(row + 8 + k % 16);
            const std::uint32_t q = (k < 16 ? byte & 15u : byte >> 4) | (bits >> k & 1u) << 4;
            *out++ = scale * static_cast<float>(q) + min;
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 24, tile, tile_bytes(Layout::q5_min, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    store_half(out, 1, row, load<std::uint16_t>(block + 2));
                    std::byte* group = out + 2 * kHalves;
                    const auto bits = load<std::uint32_t>(block + 4);
                    store_split_nibbles(group, row, block + 8);
                    store_bits(group, 4, row, [&](std::size_t i) { return spread(bits >> 4 * i); });
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    fit_plain(
        x, width, importance, row, 24,
        [](std::span<const float> group, const float* weights, PlainBlock& block) {
            fit_plain_affine(group, weights, 31, block);
        },
        [](const PlainBlock& block, std::byte* out) {
            store(out, f32_to_f16(block.scale));
            store(out + 2, f32_to_f16(block.minimum));
            store(out + 4, fifth_bits(block.q));
            store_nibble_pairs(block.q, out + 8);
        });
}

const TensorType q5_1{7, "Q5_1", kGroup, 24, Layout::q5_min, dequantize, pack, quantize};

}  // namespace quarry::types
