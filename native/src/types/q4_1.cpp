// 20 bytes: scale f16, min f16, 16 bytes as in Q4_0 without the offset.
#include "plain.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 20, out += kGroup) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        const float min = f16_to_f32(load<std::uint16_t>(row + 2));
        for (std::size_t j = 0; j < 16; ++j) {
            const int byte = load<std::uint8_t>(row + 4 + j);
            out[j] = scale * static_cast<float>(byte & 15) + min;
            out[16 + j] = scale * static_cast<float>(byte >> 4) + min;
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 20, tile, tile_bytes(Layout::q4_min, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    store_half(out, 1, row, load<std::uint16_t>(block + 2));
                    store_split_nibbles(out + 2 * kHalves, row, block + 4);
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    fit_plain(
        x, width, importance, row, 20,
        [](std::span<const float> group, const float* weights, PlainBlock& block) {
            fit_plain_affine(group, weights, 15, block);
        },
        [](const PlainBlock& block, std::byte* out) {
            store(out, f32_to_f16(block.scale));
            store(out + 2, f32_to_f16(block.minimum));
            store_nibble_pairs(block.q, out + 4);
        });
}

const TensorType q4_1{3, "Q4_1", kGroup, 20, Layout::q4_min, dequantize, pack, quantize};

}  // namespace quarry::types
