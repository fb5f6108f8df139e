// Tensor types: how the file stores weights, and how they are repacked for the kernels.
//
// The kernels read tiles of 16 rows so that one row lies in each lane. A quantised type is
// w = scale * (q - offset) + min over groups of 32 weights, q unsigned. A tile holds, group after group,
// scale[16] as f16, min[16] as f16 (layouts with a minimum), then the integers of the group:
//   q4: 4 lines of 16 x 4 bytes; line i, row r holds weights 4i..4i+3 (low nibbles) and 16+4i.. (high)
//   q8: 8 lines of 16 x 4 bytes; line i, row r holds weights 4i..4i+3
// Float layouts hold line after line the k-th weight of all 16 rows.
//
// A new type is one file in types/: dequantize() and pack() to one of the layouts, and a line in the table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace quarry {

constexpr std::size_t kTileRows = 16;
constexpr std::size_t kGroup = 32;

enum class Layout : std::uint8_t { f32, f16, bf16, q8, q4, q4_min };
constexpr std::size_t kLayouts = 6;

// Bytes of a tile of kTileRows rows of `width` weights.
std::size_t tile_bytes(Layout layout, std::size_t width);

struct TensorType {
    std::uint32_t id;
    const char* name;
    std::size_t block_weights;
    std::size_t block_bytes;
    Layout layout;
    // `width` weights of one row to floats; nullptr where the engine cannot read the type.
    void (*dequantize)(const std::byte* row, std::size_t width, float* out);
    // kTileRows rows to one tile; rows[r] is nullptr past the end of the matrix (packed as zeros).
    void (*pack)(const std::byte* const* rows, std::size_t width, std::byte* tile);
};

// nullptr for an unknown id.
const TensorType* find_tensor_type(std::uint32_t id);

// The types that the kernels multiply by.
std::vector<std::string> readable_type_names();
std::string joined(const std::vector<std::string>& names);

namespace types {
extern const TensorType f32, f16, bf16, q8_0, q4_0, q4_1;
}

}  // namespace quarry
