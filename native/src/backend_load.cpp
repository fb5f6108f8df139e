// Weights from the file: laid out anew in tiles, as the kernels read them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend.h"
#include "float16.h"

namespace quarry {

namespace {

// One row to blocks of Q8_0.
void round_to_q8(const float* x, std::size_t width, std::byte* out) {
    for (std::size_t first = 0; first < width; first += kGroup, out += types::q8_0.block_bytes) {
        float top = 0;
        for (std::size_t k = first; k < first + kGroup; ++k) top = std::max(top, std::fabs(x[k]));
        const std::uint16_t scale = f32_to_f16(top / 127);
        const float inverse = f16_to_f32(scale) > 0 ? 1 / f16_to_f32(scale) : 0;
        std::memcpy(out, &scale, sizeof scale);
        for (std::size_t k = 0; k < kGroup; ++k) {
            const float q = std::clamp(std::nearbyint(x[first + k] * inverse), -127.0f, 127.0f);
            out[2 + k] = static_cast<std::byte>(static_cast<std::int8_t>(q));
        }
    }
}

// Row r of a tile of bf16_pairs.
void round_to_pairs(const float* x, std::size_t width, std::size_t r, std::byte* tile) {
    for (std::size_t k = 0; k < width; ++k) {
        const std::uint16_t number = f32_to_bf16(x[k]);
        std::memcpy(tile + (k / 2 * kTileRows + r) * 4 + k % 2 * 2, &number, sizeof number);
    }
}

// Where the row that belongs at `row` lies in the file.
std::size_t source_row(std::size_t row, RowOrder order, HeadShape heads) {
    const std::size_t within = row % heads.head_dim;
    const std::size_t file_dim = heads.file_dim == 0 ? heads.head_dim : heads.file_dim;
    const std::size_t first = row / heads.head_dim * file_dim + heads.first_in_file;
    if (order == RowOrder::halves || within >= heads.n_rotated) return first + within;
    const std::size_t half = heads.n_rotated / 2;
    return first + (within < half ? 2 * within : 2 * (within - half) + 1);
}

// While a matrix is laid out anew, so much of it is resident twice: as it lies in the file, and as tiles.
constexpr std::size_t kResidentBytes = std::size_t{16} << 20;

}  // namespace

Weight Backend::load(const GgufFile& file, const GgufTensor& tensor, RowOrder order, HeadShape heads) {
    const TensorType& type = *tensor.type;
    GgufFile::check_readable(tensor);
    Weight weight{type.layout, tensor.rows(), tensor.width(), {}, {}, tensor.name};
    const std::size_t row_bytes = weight.width / type.block_weights * type.block_bytes;
    const std::size_t step = tile_bytes(type.layout, weight.width);
    const std::size_t n_tiles = tiles_of(weight.rows);
    weight.tiles = LazyMemory(n_tiles * step);
    const std::size_t stretch =
        std::max<std::size_t>(1, kResidentBytes / std::max<std::size_t>(1, kTileRows * row_bytes));
    for (std::size_t first = 0; first < n_tiles; first += stretch) {
        pool_.parallel(std::min(stretch, n_tiles - first), [&](std::size_t nth, std::size_t) {
            const std::size_t tile = first + nth;
            const std::byte* rows[kTileRows] = {};
            for (std::size_t r = 0; r < kTileRows && tile * kTileRows + r < weight.rows; ++r) {
                rows[r] = tensor.bytes.data() + source_row(tile * kTileRows + r, order, heads) * row_bytes;
            }
            type.pack(rows, weight.width, weight.tiles.data() + tile * step);
        });
        file.mapping().drop(tensor.bytes);
    }
    return weight;
}

Weight Backend::load_rounded(const GgufFile& file, const GgufTensor& tensor, Rounding rounding) {
    const bool rounds = tensor.type == &types::f16 || tensor.type == &types::bf16;
    const bool pairs = rounding == Rounding::fine;
    if (!rounds || tensor.width() % kGroup != 0 || (pairs && kernels_.pair_up == nullptr))
        return load(file, tensor);
    GgufFile::check_readable(tensor);
    Weight weight{
        pairs ? Layout::bf16_pairs : Layout::q8, tensor.rows(), tensor.width(), {}, {}, tensor.name};
    const std::size_t step = tile_bytes(weight.layout, weight.width);
    const std::size_t row_bytes = weight.width / kGroup * types::q8_0.block_bytes;
    weight.tiles = LazyMemory(tiles_of(weight.rows) * step);
    pool_.parallel(tiles_of(weight.rows), [&](std::size_t tile, std::size_t) {
        std::vector<float> row(weight.width);
        std::vector<std::byte> blocks(pairs ? 0 : kTileRows * row_bytes);
        const std::byte* rows[kTileRows] = {};
        std::byte* out = weight.tiles.data() + tile * step;
        for (std::size_t r = 0; r < kTileRows && tile * kTileRows + r < weight.rows; ++r) {
            GgufFile::read_row(tensor, tile * kTileRows + r, row.data());
            if (pairs) {
                round_to_pairs(row.data(), weight.width, r, out);
                continue;
            }
            round_to_q8(row.data(), weight.width, blocks.data() + r * row_bytes);
            rows[r] = blocks.data() + r * row_bytes;
        }
        if (!pairs) types::q8_0.pack(rows, weight.width, out);
    });
    file.mapping().drop(tensor.bytes);
    return weight;
}

std::vector<float> Backend::load_vector(const GgufTensor& tensor) const {
    std::vector<float> out(tensor.width());
    GgufFile::read_row(tensor, 0, out.data());
    return out;
}

std::vector<float> Backend::load_bias(const GgufTensor& tensor, std::size_t first, std::size_t n,
                                      RowOrder order, HeadShape heads) const {
    const std::vector<float> stored = load_vector(tensor);
    std::vector<float> bias(tiles_of(n) * kTileRows);
    for (std::size_t r = 0; r < n; ++r) bias[r] = stored[first + source_row(r, order, heads)];
    return bias;
}

}  // namespace quarry
