#include "blocks.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    std::memcpy(out, row, width * sizeof(float));
}

static void quantize(const float* x, std::size_t width, const float*, std::byte* row) {
    std::memcpy(row, x, width * sizeof(float));
}

const TensorType f32{0, "F32", 1, 4, Layout::f32, dequantize, pack_numbers<std::uint32_t>, quantize};

}  // namespace quarry::types
