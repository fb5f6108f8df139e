// 18 bytes: scale f16, 16 bytes; byte j holds weight j in its low and weight 16 + j in its high nibble, as
// places in kCodebook.
#include "plain.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 18, out += kGroup) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        for (std::size_t j = 0; j < 16; ++j) {
            const int byte = load<std::uint8_t>(row + 2 + j);
            out[j] = scale * static_cast<float>(kCodebook[byte & 15]);
            out[16 + j] = scale * static_cast<float>(kCodebook[byte >> 4]);
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 18, tile, tile_bytes(Layout::t4, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    store_split_nibbles(out + kHalves, row, block + 2);
                });
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    for (std::size_t at = 0; at < width; at += kGroup, row += 18) {
        const std::span<const float> group(x + at, kGroup);
        float weights[kGroup];
        if (importance != nullptr) weigh(group, importance + at, 2 * mean_square(group), weights);
        std::uint8_t q[kGroup];
        store(row, f32_to_f16(fit_codebook(group, importance != nullptr ? weights : nullptr, q)));
        store_nibble_pairs(q, row + 2);
    }
}

const TensorType iq4_nl{20, "IQ4_NL", kGroup, 18, Layout::t4, dequantize, pack, quantize};

}  // namespace quarry::types
