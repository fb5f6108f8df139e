#include "blocks.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t k = 0; k < width; ++k) out[k] = f16_to_f32(load<std::uint16_t>(row + 2 * k));
}

static void quantize(const float* x, std::size_t width, const float*, std::byte* row) {
    for (std::size_t k = 0; k < width; ++k) store(row + 2 * k, f32_to_f16(x[k]));
}

const TensorType f16{1, "F16", 1, 2, Layout::f16, dequantize, pack_numbers<std::uint16_t>, quantize};

}  // namespace quarry::types
