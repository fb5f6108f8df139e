// 18 bytes: scale f16, 16 bytes; byte j holds weight j in its low and weight 16 + j in its high nibble,
// offset 8.
#include "plain.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 18, out += kGroup) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        for (std::size_t j = 0; j < 16; ++j) {
            const int byte = load<std::uint8_t>(row + 2 + j);
            out[j] = scale * static_cast<float>((byte & 15) - 8);
            out[16 + j] = scale * static_cast<float>((byte >> 4) - 8);
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 18, tile, tile_bytes(Layout::q4, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    store_split_nibbles(out + kHalves, row, block + 2);
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    fit_plain(
        x, width, importance, row, 18,
        [](std::span<const float> group, const float* weights, PlainBlock& block) {
            fit_plain_signed(group, weights, 8, block);
        },
        [](const PlainBlock& block, std::byte* out) {
            store(out, f32_to_f16(block.scale));
            store_nibble_pairs(block.q, out + 2);
        });
}

const TensorType q4_0{2, "Q4_0", kGroup, 18, Layout::q4, dequantize, pack, quantize};

}  // namespace quarry::types
