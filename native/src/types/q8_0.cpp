// 34 bytes: scale f16, 32 signed bytes.
#include "fit.h"
#include "planes.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 34) {
        const float scale = f16_to_f32(load<std::uint16_t>(row));
        for (std::size_t k = 0; k < kGroup; ++k) *out++ = scale * load<std::int8_t>(row + 2 + k);
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    pack_blocks(rows, width / kGroup, 34, tile, tile_bytes(Layout::q8, kGroup),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block));
                    for (std::size_t i = 0; i < 8; ++i) {  // signed to offset 128
                        store_word(out + kHalves, i, row,
                                   load<std::uint32_t>(block + 2 + 4 * i) ^ 0x80808080u);
                    }
                });
}

static void quantize(const float* x, std::size_t width, const float*, std::byte* row) {
    for (std::size_t b = 0; b < width / kGroup; ++b, row += 34, x += kGroup) {
        float top = 0;
        for (std::size_t k = 0; k < kGroup; ++k) top = std::max(top, std::fabs(x[k]));
        store(row, f32_to_f16(top / 127.0f));
        const float inverse = top > 0 ? 127.0f / top : 0.0f;
        for (std::size_t k = 0; k < kGroup; ++k) {
            store(row + 2 + k, static_cast<std::int8_t>(std::round(x[k] * inverse)));
        }
    }
}

const TensorType q8_0{8, "Q8_0", kGroup, 34, Layout::q8, dequantize, pack, quantize};

}  // namespace quarry::types
