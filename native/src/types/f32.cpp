#include "blocks.h"

namespace quarry::types {

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    std::memcpy(out, row, width * sizeof(float));
}

const TensorType f32{0, "F32", 1, 4, Layout::f32, dequantize, pack_numbers<std::uint32_t>};

}  // namespace quarry::types
