// Tensor types: how the file stores weights, and how they are repacked for the kernels.
//
// The kernels read tiles of 16 rows so that one row lies in each lane. A quantised type is
// w = scale * (q - offset) + min over groups of 32 weights, q unsigned. A tile holds, block after block, the
// scales of the block's groups and then the groups' integers, in lines of one 4-byte word a row:
//   2 bits: 2 lines of bit pairs: bits 8b + 2q.. of word h belong to weight 16h + 4q + b
//   3 bits: the same and a line of third bits: bit 8b + q of the word belongs to weight 4q + b
//   4 bits: 4 lines; line i holds weights 4i..4i+3 in its low nibbles and 16+4i.. in its high nibbles
//   5 bits: the same and a line of fifth bits, as the third ones
//   6 bits: the same as 4 bits and 2 lines of bit pairs
//   8 bits: 8 lines; line i holds weights 4i..4i+3
// Scales, one of each for every row: f16 (q8, q4, q5, t4), f16 and f16 minimum (q4_min, q5_min); for blocks
// of 8 groups: f16 and f16 minimum, 8 bytes that multiply the one and 8 that multiply the other, negated
// (q4_nested, q5_nested); f16 and f16 minimum, and for each of 16 half groups a byte whose nibbles multiply
// the one and the other, negated (q2_nested); f16 and a signed byte for each of 16 half groups (q3_nested,
// q6_nested) or for each of 8 groups (t4_nested). The 4 bits of t4 and t4_nested are places in kCodebook.
// Float layouts hold line after line the k-th weight of all 16 rows; bf16_pairs, which no type has and
// weights may be rounded to, weights 2k and 2k + 1 of all rows.
//
// A new type is one file in types/: dequantize(), pack() to one of the layouts, quantize(), and a line in the
// table.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace quarry {

constexpr std::size_t kTileRows = 16;
constexpr std::size_t kGroup = 32;

enum class Layout : std::uint8_t {
    f32,
    f16,
    bf16,
    q8,
    q4,
    q4_min,
    q5,
    q5_min,
    q4_nested,
    q5_nested,
    q6_nested,
    q2_nested,
    q3_nested,
    t4,
    t4_nested,
    bf16_pairs,
};
constexpr std::size_t kLayouts = 16;
constexpr std::size_t kNestedGroups = 8;

// What the 4 bits of IQ4_NL and IQ4_XS stand for. Source: kvalues_iq4nl of ggml.
constexpr std::int8_t kCodebook[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};

// Tiles that hold `rows` rows.
constexpr std::size_t tiles_of(std::size_t rows) {
    return (rows + kTileRows - 1) / kTileRows;
}

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
    // `width` floats, all finite, to one row. `importance`, where not nullptr, says how much each column
    // matters.
    void (*quantize)(const float* x, std::size_t width, const float* importance, std::byte* row);
};

// nullptr for an unknown id.
const TensorType* find_tensor_type(std::uint32_t id);

// nullptr for an unknown name.
const TensorType* find_tensor_type(std::string_view name);

// The types that the kernels multiply by; all of them can be written, too.
std::vector<std::string> readable_type_names();
std::string joined(const std::vector<std::string>& names);

namespace types {
extern const TensorType f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl,
    iq4_xs;
}

}  // namespace quarry
