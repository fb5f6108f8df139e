#include "blocks.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t k = 0; k < width; ++k) out[k] = bf16_to_f32(load<std::uint16_t>(row + 2 * k));
}

static void quantize(const float* x, std::size_t width, const float*, std::byte* row) {
    for (std::size_t k = 0; k < width; ++k) store(row + 2 * k, f32_to_bf16(x[k]));
}

const TensorType bf16{30, "BF16", 1, 2, Layout::bf16, dequantize, pack_numbers<std::uint16_t>, quantize};

}  // namespace quarry::types
