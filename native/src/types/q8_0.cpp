// 34 bytes: scale f16, 32 signed bytes.
#include "blocks.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 34) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        for (std::size_t k = 0; k < kGroup; ++k) *out++ = scale * load<std::int8_t>(row + 2 + k);
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_words<34, 2, 8>(
        rows, width, tile, 32,
        [](const std::byte* block, std::size_t lane, std::uint16_t* scales) {
            scales[lane] = load<std::uint16_t>(block);
        },
        [](std::uint32_t word) { return word ^ 0x80808080u; });  // signed to offset 128
}

const TensorType q8_0{8, "Q8_0", kGroup, 34, Layout::q8, dequantize, pack};

}  // namespace quarry::types
