// The kernels of one instruction set, as a table of functions chosen once, at load.
//
// Activations come in chunks of up to `max_chunk` tokens, interleaved so that a kernel reads them forward:
// float k of token t at [k * n + t], bytes and pairs group by group, in each token after token. Every token's
// result is computed by the same operations in the same order whatever the chunk holds besides, so that an
// answer does not depend on who else is served.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "../tensor_type.h"

namespace quarry {

constexpr std::size_t kMaxChunk = 12;
constexpr std::size_t kKeysPerBlock = 32;  // tokens of one KV cache block

// Activations rounded to bytes have a scale for each run of groups; the last run may be shorter. Products of
// a run are summed in units of its scale: before the next one, the sum is multiplied by the ratio of the two
// scales, and at the end by the last scale. So longer runs cost fewer products, and round more coarsely.
struct Chunk {
    std::size_t n;              // tokens, 1 to max_chunk
    float* floats;              // [width][n]; for float layouts
    std::int8_t* bytes;         // [width / kGroup][n][kGroup]; for quantised layouts
    std::size_t run_groups;     // groups of a run, a power of two
    float* ratios;              // [runs][n]: the scale of the run before over this one's; 0 in the first
    float* last_scales;         // [n]
    float* sums;                // [width / kGroup][n], of the bytes
    float* half_sums;           // [2 * width / kGroup][n], of the halves of each group
    std::int32_t* starts;       // as sums, times -kMostOffset
    std::int32_t* half_starts;  // as half_sums, times -kMostOffset
    std::int32_t* pairs;        // [width / kGroup][n][kGroup / 2] of two bf16 numbers; for Layout::bf16_pairs
};
// Of the integers of a layout; the other offsets are parts of it.
constexpr int kMostOffset = 128;
template <int kOffset>
constexpr std::int32_t part_of(std::int32_t most) {
    if constexpr (kOffset == 0)
        return 0;
    else
        return most / (kMostOffset / kOffset);
}

// Where a tile's results go: out[t * stride + row], rows < n_rows.
struct TileOutput {
    float* out;
    std::size_t stride;
    std::size_t n_rows;
    const float* bias;  // kTileRows values to add, or nullptr
    bool accumulate;    // add to what is there
};

using MatmulTile = void (*)(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y);

// Two tiles unpacked for many tokens; group_bytes for each group of the width. Multiplies like MatmulTile,
// but kPanelTiles * kTileRows rows.
constexpr std::size_t kPanelTiles = 2;
struct PanelKernels {
    std::size_t group_bytes = 0;
    void (*unpack)(const std::byte* const* tiles, std::size_t width, std::byte* panel) = nullptr;
    MatmulTile multiply = nullptr;
};

// One block of cached keys and values of one head: keys [head_dim][kKeysPerBlock], values
// [kKeysPerBlock][head_dim], f16.
struct KeyValueBlock {
    const std::uint16_t* keys;
    const std::uint16_t* values;
};

// The same in 8 bits, each group of dimensions of each token with a scale of its own: keys [head_dim]
// [kKeysPerBlock], key_scales [groups][kKeysPerBlock], values [kKeysPerBlock][head_dim], value_scales
// [kKeysPerBlock][groups].
struct PackedBlock {
    const std::int8_t* keys;
    const float* key_scales;
    const std::int8_t* values;
    const float* value_scales;
};

constexpr std::size_t kCacheGroup = 32;
constexpr std::size_t cache_groups(std::size_t head_dim) {
    return (head_dim + kCacheGroup - 1) / kCacheGroup;
}

// Attention of up to max_chunk query rows that share keys. Row r sees keys [first_visible[r], n_visible[r]).
struct AttentionTask {
    std::size_t n_rows;
    std::size_t head_dim;         // multiple of kTileRows
    const float* const* queries;  // n_rows pointers to head_dim floats, already scaled
    const std::size_t* first_visible;
    const std::size_t* n_visible;         // > first_visible, each
    float soft_cap;                       // scores become cap * tanh(score / cap); 0: they stay
    float slope;                          // what a score loses for each place between query and key
    const std::size_t* positions;         // of the queries, n_rows; read where slope is not 0
    const KeyValueBlock* blocks;          // enough for max(n_visible)
    float* const* out;                    // n_rows pointers to head_dim floats
    float* scratch;                       // attention_scratch(head_dim) floats
    const PackedBlock* packed = nullptr;  // read instead of `blocks`, where not null
};

constexpr std::size_t attention_scratch(std::size_t head_dim) {
    // Queries, sums and weights, and an unpacked block: keys and values in f16.
    return kMaxChunk * (2 * head_dim + kKeysPerBlock) + head_dim * kKeysPerBlock;
}

// Attention among the tokens of one passage, of one head: row t of each at [t * stride].
struct WithinTask {
    std::size_t n_tokens;
    std::size_t head_dim;
    std::size_t stride;
    const float* queries;
    const float* keys;
    const float* values;
    float* out;
    float scale;         // of the products of queries and keys
    float slope;         // what a score loses for each place between query and key
    std::size_t reach;   // keys on either side that a query sees; 0: all
    std::byte* scratch;  // aligned
};
struct WithinKernel {
    void (*run)(const WithinTask& task);
    std::size_t (*scratch_bytes)(std::size_t n_tokens, std::size_t head_dim);
};

// A loop that keeps the multipliers of one core busy; what a round of it computes.
struct PeakLoop {
    void (*run)(std::size_t rounds);  // nullptr where the instruction set has no such products
    double operations;
};
constexpr std::size_t kReadUnit = 512;  // bytes

struct Kernels {
    const char* name;
    std::size_t max_chunk;
    // n rows x[t * stride .. + width] to one chunk.
    void (*interleave)(const float* x, std::size_t stride, std::size_t n, std::size_t width, float* out);
    // out.n rows x[t * width ..] rounded to the bytes of `out`, and all that goes with them. `residual`,
    // where not null, gets what the rounding left over, [n][width].
    void (*quantize)(const float* x, std::size_t width, const Chunk& out, float* residual);
    MatmulTile matmul[kLayouts];
    PanelKernels panels[kLayouts];  // empty for float layouts, and where registers are too few
    // As interleave, to pairs of bf16, `width` a multiple of 32; nullptr where nothing multiplies them.
    void (*pair_up)(const float* x, std::size_t stride, std::size_t n, std::size_t width, std::int32_t* out);
    void (*rms_norm)(const float* x, const float* weight, std::size_t width, float epsilon, float* out);
    void (*layer_norm)(const float* x, const float* weight, const float* bias, std::size_t width,
                       float epsilon, float* out);
    void (*silu_multiply)(const float* gate, const float* up, std::size_t n, float* out);
    // Approximated by tanh, as the models that multiply by it were trained.
    void (*gelu_multiply)(const float* gate, const float* up, std::size_t n, float* out);
    void (*gelu)(float* x, std::size_t n);  // exact, by erf
    void (*add)(const float* x, std::size_t n, float* out);
    void (*scale)(float* x, std::size_t n, float factor);
    void (*soft_cap)(float* x, std::size_t n, float cap);  // cap * tanh(x / cap)
    void (*to_f16)(const float* x, std::size_t n, std::uint16_t* out);
    // In place: pairs (x[i], x[half + i]) turned by the angles with these cosines and sines.
    void (*rotate)(float* x, const float* cosines, const float* sines, std::size_t half);
    void (*attend)(const AttentionTask& task);
    WithinKernel attend_within;          // in floats
    WithinKernel attend_within_rounded;  // its inputs and weights rounded to bf16, where that is quicker
    PeakLoop peak_int8, peak_bf16, peak_f32;
    void (*peak_read)(const std::byte* from, std::size_t n);  // n a multiple of kReadUnit
};

// Names of what this processor can run, slowest first.
std::vector<std::string_view> instruction_sets();

// "auto" is the fastest. Throws: std::invalid_argument naming those that there are.
const Kernels& kernels_for(std::string_view instruction_set);

namespace generic {
extern const Kernels kernels;
}
namespace avx2 {
extern const Kernels kernels;
}
namespace avx512 {
extern const Kernels kernels;
}
namespace avx512bf16 {
extern const Kernels kernels;
}

}  // namespace quarry
