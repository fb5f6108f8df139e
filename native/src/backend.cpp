#include "backend.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "float16.h"

namespace quarry {

namespace {

constexpr std::size_t kAlign = 64;

// Weights that stay in the second-level cache while the chunks of activations pass by.
constexpr std::size_t kPanelBytes = 256 * 1024;

bool is_quantized(Layout layout) {
    return layout != Layout::f32 && layout != Layout::f16 && layout != Layout::bf16 &&
           layout != Layout::bf16_pairs;
}

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

std::size_t tiles_of(std::size_t rows) {
    return (rows + kTileRows - 1) / kTileRows;
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

void grow(LazyMemory& memory, std::size_t bytes) {
    if (memory.size() < bytes) memory = LazyMemory(bytes + bytes / 4);
}

// Hands out aligned pieces of one allocation.
class Carver {
  public:
    explicit Carver(std::byte* at) : at_(at) {}
    template <class T>
    T* take(std::size_t n) {
        T* piece = reinterpret_cast<T*>(at_);
        at_ += (n * sizeof(T) + kAlign - 1) / kAlign * kAlign;
        return piece;
    }

  private:
    std::byte* at_;
};

}  // namespace

Backend::Backend(std::size_t n_threads, std::string_view instruction_set)
    : kernels_(kernels_for(instruction_set)), pool_(n_threads), scratch_(n_threads), panels_(n_threads) {}

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

void Backend::check_readable(const GgufTensor& table) const {
    std::vector<float> row(table.width());
    GgufFile::read_row(table, 0, row.data());
}

void Backend::reserve(Buffer& buffer, std::size_t rows) const {
    if (rows <= buffer.rows_) return;
    // Whole lanes may be read past the last row.
    buffer.memory_ = LazyMemory((rows * buffer.width_ + kTileRows) * sizeof(float));
    buffer.rows_ = rows;
}

void Backend::gather(const GgufTensor& table, std::span<const std::int32_t> ids, Buffer& out,
                     bool accumulate) {
    each_row(ids.size(), out.width(), [&](std::size_t i) {
        if (!accumulate) {
            GgufFile::read_row(table, static_cast<std::uint64_t>(ids[i]), out.row(i));
            return;
        }
        std::vector<float> row(out.width());
        GgufFile::read_row(table, static_cast<std::uint64_t>(ids[i]), row.data());
        kernels_.add(row.data(), row.size(), out.row(i));
    });
}

void Backend::select(const Buffer& x, std::span<const std::size_t> rows, Buffer& out) const {
    for (std::size_t i = 0; i < rows.size(); ++i) {
        std::memcpy(out.row(i), x.row(rows[i]), x.width() * sizeof(float));
    }
}

void Backend::average(const Buffer& x, std::span<const SequenceRows> sequences, Buffer& out) const {
    std::vector<double> sums(x.width());
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        std::fill(sums.begin(), sums.end(), 0.0);
        for (std::size_t r = 0; r < sequences[i].n_rows; ++r) {
            const float* row = x.row(sequences[i].first_row + r);
            for (std::size_t d = 0; d < sums.size(); ++d) sums[d] += static_cast<double>(row[d]);
        }
        const auto n = static_cast<double>(sequences[i].n_rows);
        for (std::size_t d = 0; d < sums.size(); ++d) out.row(i)[d] = static_cast<float>(sums[d] / n);
    }
}

void Backend::read(const Buffer& x, std::size_t row, float* out) const {
    std::memcpy(out, x.row(row), x.width() * sizeof(float));
}

void Backend::prepare_floats(const Buffer& x, std::size_t first, std::size_t n) {
    const std::size_t width = x.width();
    floats_.chunks.resize(n_chunks(n));
    grow(floats_.memory, n * width * sizeof(float) + floats_.chunks.size() * kAlign);
    Carver carver(floats_.memory.data());
    for (std::size_t c = 0; c < floats_.chunks.size(); ++c) {
        floats_.chunks[c] = {};
        floats_.chunks[c].n = std::min(kernels_.max_chunk, n - c * kernels_.max_chunk);
        floats_.chunks[c].floats = carver.take<float>(floats_.chunks[c].n * width);
    }
    each_row(floats_.chunks.size(), kernels_.max_chunk * width, [&](std::size_t c) {
        const Chunk& chunk = floats_.chunks[c];
        kernels_.interleave(x.row(first + c * kernels_.max_chunk), width, chunk.n, width,
                            const_cast<float*>(chunk.floats));
    });
}

void Backend::prepare_bytes(const float* x, std::size_t width, std::size_t n, Prepared& out,
                            float* residual) {
    const std::size_t groups = width / kGroup;
    out.chunks.resize(n_chunks(n));
    grow(out.memory, n * width + 5 * n * groups * sizeof(float) + 8 * out.chunks.size() * kAlign);
    Carver carver(out.memory.data());
    for (std::size_t c = 0; c < out.chunks.size(); ++c) {
        Chunk& chunk = out.chunks[c];
        chunk = {};
        chunk.n = std::min(kernels_.max_chunk, n - c * kernels_.max_chunk);
        chunk.bytes = carver.take<std::int8_t>(chunk.n * width);
        chunk.scales = carver.take<float>(chunk.n * groups);
        chunk.scaled_sums = carver.take<float>(chunk.n * groups);
        chunk.sums = carver.take<std::int32_t>(chunk.n * groups);
        chunk.half_sums = carver.take<std::int32_t>(2 * chunk.n * groups);
    }
    each_row(out.chunks.size(), kernels_.max_chunk * width, [&](std::size_t c) {
        const Chunk& chunk = out.chunks[c];
        const std::size_t first = c * kernels_.max_chunk * width;
        kernels_.quantize(x + first, width, chunk.n, width, const_cast<std::int8_t*>(chunk.bytes),
                          const_cast<float*>(chunk.scales), const_cast<float*>(chunk.scaled_sums),
                          const_cast<std::int32_t*>(chunk.sums), const_cast<std::int32_t*>(chunk.half_sums),
                          residual == nullptr ? nullptr : residual + first);
    });
}

void Backend::prepare_pairs(const Buffer& x, std::size_t first, std::size_t n) {
    const std::size_t width = x.width();
    pairs_.chunks.resize(n_chunks(n));
    grow(pairs_.memory, n * width / 2 * sizeof(std::int32_t) + pairs_.chunks.size() * kAlign);
    Carver carver(pairs_.memory.data());
    for (std::size_t c = 0; c < pairs_.chunks.size(); ++c) {
        pairs_.chunks[c] = {};
        pairs_.chunks[c].n = std::min(kernels_.max_chunk, n - c * kernels_.max_chunk);
        pairs_.chunks[c].pairs = carver.take<std::int32_t>(pairs_.chunks[c].n * width / 2);
    }
    each_row(pairs_.chunks.size(), kernels_.max_chunk * width, [&](std::size_t c) {
        const Chunk& chunk = pairs_.chunks[c];
        kernels_.pair_up(x.row(first + c * kernels_.max_chunk), width, chunk.n, width,
                         const_cast<std::int32_t*>(chunk.pairs));
    });
}

void Backend::matmul(const Buffer& x, std::size_t n, std::initializer_list<Projection> projections,
                     Rounding rounding) {
    matmul_rows(x, 0, n, projections, rounding, 0);
}

void Backend::matmul_rows(const Buffer& x, std::size_t first, std::size_t n,
                          std::initializer_list<Projection> projections, Rounding rounding,
                          std::size_t part) {
    if (observer_ != nullptr) {
        for (const Projection& p : projections) observer_->see(*p.weight, part, x.row(first), n, x.width());
    }
    const bool fine = rounding == Rounding::fine;
    bool bytes = false;
    bool pairs = false;
    bool floats = false;
    for (const Projection& projection : projections) {
        const Layout layout = projection.weight->layout;
        (is_quantized(layout) ? bytes : layout == Layout::bf16_pairs ? pairs : floats) = true;
    }
    if (bytes) {
        if (fine) grow(residual_, n * x.width() * sizeof(float));
        auto* residual = reinterpret_cast<float*>(residual_.data());
        prepare_bytes(x.row(first), x.width(), n, bytes_, fine ? residual : nullptr);
        if (fine) prepare_bytes(residual, x.width(), n, residual_bytes_, nullptr);
    }
    if (pairs) prepare_pairs(x, first, n);
    if (floats) prepare_floats(x, first, n);
    for (const Projection& projection : projections) {
        const auto layout = projection.weight->layout;
        Product product{projection, part, first, &floats_, nullptr};
        if (layout == Layout::bf16_pairs) product.x = &pairs_;
        if (is_quantized(layout)) {
            product.x = &bytes_;
            if (fine) product.residual = &residual_bytes_;
        }
        const bool panels =
            n > kernels_.max_chunk && kernels_.panels[static_cast<std::size_t>(layout)].unpack != nullptr;
        panels ? multiply_panels(product) : multiply_tiles(product);
    }
}

void Backend::multiply_tiles(const Product& product) {
    const Weight& weight = *product.to.weight;
    const MatmulTile kernel = kernels_.matmul[static_cast<std::size_t>(weight.layout)];
    const std::size_t step = tile_bytes(weight.layout, weight.width);
    const std::size_t n_tiles = tiles_of(weight.rows);
    const std::byte* tiles = weight.tiles.data() + product.part * n_tiles * step;
    // Few, large stacks reuse activations in the cache; enough of them keep the threads evenly busy.
    const std::size_t even = std::max<std::size_t>(1, n_tiles / (8 * pool_.size()));
    const std::size_t stack = std::clamp<std::size_t>(kPanelBytes / step, 1, even);
    pool_.parallel((n_tiles + stack - 1) / stack, [&](std::size_t p, std::size_t) {
        const std::size_t end = std::min(n_tiles, (p + 1) * stack);
        for (std::size_t c = 0; c < product.x->chunks.size(); ++c) {
            for (std::size_t tile = p * stack; tile < end; ++tile) {
                const std::size_t row = tile * kTileRows;
                const std::byte* packed = tiles + tile * step;
                TileOutput out{product.to.out->row(product.first_row + c * kernels_.max_chunk) + row,
                               product.to.out->width(), std::min(kTileRows, weight.rows - row),
                               weight.bias.empty() ? nullptr : weight.bias.data() + row,
                               product.to.accumulate};
                kernel(packed, weight.width, product.x->chunks[c], out);
                if (product.residual == nullptr) continue;
                out.bias = nullptr;
                out.accumulate = true;
                kernel(packed, weight.width, product.residual->chunks[c], out);
            }
        }
    });
}

void Backend::multiply_panels(const Product& product) {
    const Weight& weight = *product.to.weight;
    const PanelKernels& kernels = kernels_.panels[static_cast<std::size_t>(weight.layout)];
    const std::size_t step = tile_bytes(weight.layout, weight.width);
    const std::size_t n_tiles = tiles_of(weight.rows);
    const std::byte* packed = weight.tiles.data() + product.part * n_tiles * step;
    for (auto& panel : panels_) grow(panel, weight.width / kGroup * kernels.group_bytes);
    pool_.parallel((n_tiles + kPanelTiles - 1) / kPanelTiles, [&](std::size_t p, std::size_t thread) {
        const std::size_t tile = p * kPanelTiles;
        const std::size_t row = tile * kTileRows;
        const std::byte* tiles[kPanelTiles];
        // Where the matrix ends with half a panel, its last tile fills the other half, and is not stored.
        for (std::size_t i = 0; i < kPanelTiles; ++i)
            tiles[i] = packed + std::min(tile + i, n_tiles - 1) * step;
        std::byte* panel = panels_[thread].data();
        kernels.unpack(tiles, weight.width, panel);
        for (std::size_t c = 0; c < product.x->chunks.size(); ++c) {
            TileOutput out{product.to.out->row(product.first_row + c * kernels_.max_chunk) + row,
                           product.to.out->width(), std::min(kPanelTiles * kTileRows, weight.rows - row),
                           weight.bias.empty() ? nullptr : weight.bias.data() + row, product.to.accumulate};
            kernels.multiply(panel, weight.width, product.x->chunks[c], out);
            if (product.residual == nullptr) continue;
            out.bias = nullptr;
            out.accumulate = true;
            kernels.multiply(panel, weight.width, product.residual->chunks[c], out);
        }
    });
}

void Backend::rms_norm(const Buffer& x, std::size_t n, const std::vector<float>& weight, float epsilon,
                       Buffer& out) {
    each_row(n, x.width(), [&](std::size_t i) {
        for (std::size_t at = 0; at < x.width(); at += weight.size()) {
            kernels_.rms_norm(x.row(i) + at, weight.data(), weight.size(), epsilon, out.row(i) + at);
        }
    });
}

void Backend::layer_norm(const Buffer& x, std::size_t n, const std::vector<float>& weight,
                         const std::vector<float>& bias, float epsilon, Buffer& out) {
    each_row(n, x.width(), [&](std::size_t i) {
        kernels_.layer_norm(x.row(i), weight.data(), bias.data(), x.width(), epsilon, out.row(i));
    });
}

void Backend::silu_multiply(const Buffer& gate, const Buffer& up, std::size_t n, Buffer& out) {
    each_row(n, gate.width(), [&](std::size_t i) {
        kernels_.silu_multiply(gate.row(i), up.row(i), gate.width(), out.row(i));
    });
}

void Backend::gelu_multiply(const Buffer& gate, const Buffer& up, std::size_t n, Buffer& out) {
    each_row(n, gate.width(), [&](std::size_t i) {
        kernels_.gelu_multiply(gate.row(i), up.row(i), gate.width(), out.row(i));
    });
}

void Backend::gelu(Buffer& x, std::size_t n) {
    each_row(n, x.width(), [&](std::size_t i) { kernels_.gelu(x.row(i), x.width()); });
}

void Backend::tanh(Buffer& x, std::size_t n) {
    each_row(n, x.width(), [&](std::size_t i) {
        float* row = x.row(i);
        for (std::size_t d = 0; d < x.width(); ++d) row[d] = std::tanh(row[d]);
    });
}

void Backend::multiply(const Buffer& x, std::size_t n, Buffer& out) {
    each_row(n, x.width(), [&](std::size_t i) {
        const float* from = x.row(i);
        float* to = out.row(i);
        for (std::size_t d = 0; d < x.width(); ++d) to[d] *= from[d];
    });
}

void Backend::add(const Buffer& x, std::size_t n, Buffer& out) {
    each_row(n, x.width(), [&](std::size_t i) { kernels_.add(x.row(i), x.width(), out.row(i)); });
}

void Backend::scale(Buffer& x, std::size_t n, float factor) {
    each_row(n, x.width(), [&](std::size_t i) { kernels_.scale(x.row(i), x.width(), factor); });
}

void Backend::clear(Buffer& x, std::size_t n) const {
    if (n > 0) std::memset(x.row(0), 0, n * x.width() * sizeof(float));
}

void Backend::soft_cap(Buffer& x, std::size_t n, float cap) {
    each_row(n, x.width(), [&](std::size_t i) { kernels_.soft_cap(x.row(i), x.width(), cap); });
}

void Backend::set_angles(Buffer& angles, std::size_t row, std::size_t position,
                         std::span<const double> frequencies, double magnitude) const {
    float* cosines = angles.row(row);
    float* sines = cosines + frequencies.size();
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        const double angle = static_cast<double>(position) * frequencies[i];
        cosines[i] = static_cast<float>(std::cos(angle) * magnitude);
        sines[i] = static_cast<float>(std::sin(angle) * magnitude);
    }
}

void Backend::rotate(Buffer& x, std::size_t n, std::size_t head_dim, const Buffer& angles) {
    const std::size_t half = angles.width() / 2;
    each_row(n, x.width(), [&](std::size_t i) {
        for (std::size_t at = 0; at < x.width(); at += head_dim) {
            kernels_.rotate(x.row(i) + at, angles.row(i), angles.row(i) + half, half);
        }
    });
}

void Backend::attention(const Buffer& queries, const Buffer& keys, const Buffer& values,
                        std::span<const SequenceRows> sequences, std::size_t n_query_heads, bool causal,
                        KvCache& cache, std::size_t layer, Buffer& out, const Scoring& scoring) {
    const std::size_t dim = cache.head_dim();
    const std::size_t padded = cache.padded_head_dim();
    const std::size_t n_heads = cache.n_heads();
    const std::size_t group = n_query_heads / n_heads;
    std::size_t most_blocks = 0;
    for (const auto& sequence : sequences) {
        most_blocks = std::max(most_blocks, sequence.blocks.size());
        each_row(sequence.n_rows, keys.width(), [&](std::size_t i) {
            const std::size_t position = sequence.first_position + i;
            std::array<std::uint16_t, kMaxHeadDim> key{};
            std::array<std::uint16_t, kMaxHeadDim> value{};
            for (std::size_t head = 0; head < n_heads; ++head) {
                kernels_.to_f16(keys.row(sequence.first_row + i) + head * dim, dim, key.data());
                kernels_.to_f16(values.row(sequence.first_row + i) + head * dim, dim, value.data());
                cache.store(layer, sequence.blocks[position / kKeysPerBlock], head, position % kKeysPerBlock,
                            key.data(), value.data());
            }
        });
    }

    // One item is up to max_chunk query rows that read the same keys: (token, query head of the group) pairs.
    struct Item {
        const SequenceRows* sequence;
        std::size_t head;
        std::size_t first;
        std::size_t n;
    };
    std::vector<Item> items;
    for (const auto& sequence : sequences) {
        const std::size_t n_pairs = sequence.n_rows * group;
        for (std::size_t head = 0; head < n_heads; ++head) {
            for (std::size_t first = 0; first < n_pairs; first += kernels_.max_chunk) {
                items.push_back({&sequence, head, first, std::min(kernels_.max_chunk, n_pairs - first)});
            }
        }
    }
    const std::size_t row_floats = 2 * kMaxChunk * padded;
    for (auto& scratch : scratch_) {
        grow(scratch, (row_floats + attention_scratch(padded)) * sizeof(float) +
                          most_blocks * (sizeof(KeyValueBlock) + sizeof(PackedBlock)) + 4 * kAlign);
    }
    const bool is_packed = cache.type() == CacheType::q8_0;
    const float scale = scoring.scale > 0 ? scoring.scale : 1.0f / std::sqrt(static_cast<float>(dim));
    pool_.parallel(items.size(), [&](std::size_t index, std::size_t thread) {
        const Item& item = items[index];
        Carver carver(scratch_[thread].data());
        float* staged = carver.take<float>(row_floats);
        auto* blocks = carver.take<KeyValueBlock>(is_packed ? 0 : most_blocks);
        auto* packed = carver.take<PackedBlock>(is_packed ? most_blocks : 0);
        const float* query_rows[kMaxChunk];
        float* out_rows[kMaxChunk];
        std::size_t n_visible[kMaxChunk];
        std::size_t first_visible[kMaxChunk];
        std::size_t positions[kMaxChunk];
        const auto place = [&](std::size_t r) {
            const std::size_t pair = item.first + r;
            return std::pair(item.sequence->first_row + pair / group,
                             (item.head * group + pair % group) * dim);
        };
        for (std::size_t r = 0; r < item.n; ++r) {
            float* query = staged + 2 * r * padded;
            const auto [row, at] = place(r);
            for (std::size_t d = 0; d < padded; ++d)
                query[d] = d < dim ? queries.row(row)[at + d] * scale : 0.0f;
            query_rows[r] = query;
            out_rows[r] = query + padded;
            n_visible[r] = item.sequence->first_position +
                           (causal ? (item.first + r) / group + 1 : item.sequence->n_rows);
            first_visible[r] =
                scoring.window > 0 && n_visible[r] > scoring.window ? n_visible[r] - scoring.window : 0;
            positions[r] = item.sequence->first_position + (item.first + r) / group;
            if (!causal && scoring.reach > 0) {
                n_visible[r] = std::min(n_visible[r], positions[r] + scoring.reach + 1);
                first_visible[r] = positions[r] > scoring.reach ? positions[r] - scoring.reach : 0;
            }
        }
        const std::size_t n_blocks = (n_visible[item.n - 1] + kKeysPerBlock - 1) / kKeysPerBlock;
        for (std::size_t b = 0; b < n_blocks; ++b) {
            if (is_packed)
                packed[b] = cache.packed_block(layer, item.sequence->blocks[b], item.head);
            else
                blocks[b] = cache.block(layer, item.sequence->blocks[b], item.head);
        }
        // Query heads that share keys have slopes of their own; models with slopes share none.
        const float slope = scoring.slopes.empty() ? 0 : scoring.slopes[item.head * group];
        kernels_.attend({item.n, padded, query_rows, first_visible, n_visible, scoring.soft_cap, slope,
                         positions, blocks, out_rows, carver.take<float>(attention_scratch(padded)),
                         is_packed ? packed : nullptr});
        for (std::size_t r = 0; r < item.n; ++r) {
            const auto [row, at] = place(r);
            std::memcpy(out.row(row) + at, out_rows[r], dim * sizeof(float));
        }
    });
}

}  // namespace quarry
