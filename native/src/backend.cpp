#include "backend.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace quarry {

namespace {

// Weights that stay in the second-level cache while the chunks of activations pass by.
constexpr std::size_t kPanelBytes = 256 * 1024;

// Groups of activations that share a scale. Fine products take long runs: the second one makes good for it.
constexpr std::size_t kMediumRun = 1;
constexpr std::size_t kCoarseRun = 2;

bool is_quantized(Layout layout) {
    return layout != Layout::f32 && layout != Layout::f16 && layout != Layout::bf16 &&
           layout != Layout::bf16_pairs;
}

}  // namespace

Backend::Backend(std::size_t n_threads, std::string_view instruction_set)
    : kernels_(kernels_for(instruction_set)),
      pool_(n_threads),
      leftovers_(n_threads),
      scratch_(n_threads),
      panels_(n_threads) {}

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

void Backend::gather(const GgufTensor& table, std::span<const std::int32_t> ids, Buffer& out, bool accumulate,
                     std::size_t first_row) {
    each_row(ids.size(), out.width(), [&](std::size_t i) {
        float* to = out.row(first_row + i);
        if (!accumulate) {
            GgufFile::read_row(table, static_cast<std::uint64_t>(ids[i]), to);
            return;
        }
        std::vector<float> row(out.width());
        GgufFile::read_row(table, static_cast<std::uint64_t>(ids[i]), row.data());
        kernels_.add(row.data(), row.size(), to);
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
        kernels_.interleave(x.row(first + c * kernels_.max_chunk), width, chunk.n, width, chunk.floats);
    });
}

void Backend::carve_bytes(std::size_t width, std::size_t n, std::size_t run_groups, Prepared& out) {
    const std::size_t groups = width / kGroup;
    out.chunks.resize(n_chunks(n));
    const std::size_t runs = (groups + run_groups - 1) / run_groups;
    const std::size_t numbers = runs + 1 + 6 * groups;
    grow(out.memory, n * (width + numbers * sizeof(float)) + 8 * out.chunks.size() * kAlign);
    Carver carver(out.memory.data());
    for (std::size_t c = 0; c < out.chunks.size(); ++c) {
        Chunk& chunk = out.chunks[c];
        chunk = {};
        chunk.n = std::min(kernels_.max_chunk, n - c * kernels_.max_chunk);
        chunk.bytes = carver.take<std::int8_t>(chunk.n * width);
        chunk.run_groups = run_groups;
        chunk.ratios = carver.take<float>(chunk.n * runs);
        chunk.last_scales = carver.take<float>(chunk.n);
        chunk.sums = carver.take<float>(chunk.n * groups);
        chunk.half_sums = carver.take<float>(2 * chunk.n * groups);
        chunk.starts = carver.take<std::int32_t>(chunk.n * groups);
        chunk.half_starts = carver.take<std::int32_t>(2 * chunk.n * groups);
    }
}

void Backend::prepare_bytes(const float* x, std::size_t width, std::size_t n, Rounding rounding) {
    const bool fine = rounding == Rounding::fine;
    const std::size_t run_groups = rounding == Rounding::medium ? kMediumRun : kCoarseRun;
    carve_bytes(width, n, run_groups, bytes_);
    if (fine) {
        carve_bytes(width, n, run_groups, residual_bytes_);
        for (auto& leftover : leftovers_) grow(leftover, kernels_.max_chunk * width * sizeof(float));
    }
    each_row(bytes_.chunks.size(), kernels_.max_chunk * width, [&](std::size_t c, std::size_t thread) {
        auto* leftover = fine ? reinterpret_cast<float*>(leftovers_[thread].data()) : nullptr;
        kernels_.quantize(x + c * kernels_.max_chunk * width, width, bytes_.chunks[c], leftover);
        if (fine) kernels_.quantize(leftover, width, residual_bytes_.chunks[c], nullptr);
    });
}

void Backend::prepare_joined(const float* x, std::size_t width, std::size_t n) {
    grow(leftovers_[0], kernels_.max_chunk * width * sizeof(float));
    auto* rows = reinterpret_cast<float*>(leftovers_[0].data());
    carve_bytes(width, n, kCoarseRun, bytes_);
    kernels_.quantize(x, width, bytes_.chunks[0], rows + n * width);
    std::memcpy(rows, x, n * width * sizeof(float));
    carve_bytes(width, 2 * n, kCoarseRun, bytes_);
    kernels_.quantize(rows, width, bytes_.chunks[0], nullptr);
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
        kernels_.pair_up(x.row(first + c * kernels_.max_chunk), width, chunk.n, width, chunk.pairs);
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
    // The weights of a few rows are read once for both products.
    const bool joined = fine && 2 * n <= kernels_.max_chunk;
    if (bytes && joined) prepare_joined(x.row(first), x.width(), n);
    if (bytes && !joined) prepare_bytes(x.row(first), x.width(), n, rounding);
    if (pairs) prepare_pairs(x, first, n);
    if (floats) prepare_floats(x, first, n);
    for (const Projection& projection : projections) {
        const auto layout = projection.weight->layout;
        Product product{projection, part, first, &floats_, nullptr, false};
        if (layout == Layout::bf16_pairs) product.x = &pairs_;
        if (is_quantized(layout)) {
            product.x = &bytes_;
            product.joined = joined;
            if (fine && !joined) product.residual = &residual_bytes_;
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
                if (product.joined) {
                    multiply_joined(product, kernel, packed, out);
                    continue;
                }
                kernel(packed, weight.width, product.x->chunks[c], out);
                if (product.residual == nullptr) continue;
                out.bias = nullptr;
                out.accumulate = true;
                kernel(packed, weight.width, product.residual->chunks[c], out);
            }
        }
    });
}

// In the order in which two products one after the other are added up.
void Backend::multiply_joined(const Product& product, MatmulTile kernel, const std::byte* tile,
                              const TileOutput& out) const {
    const Chunk& chunk = product.x->chunks[0];
    const std::size_t n = chunk.n / 2;
    alignas(kAlign) float sums[kMaxChunk * kTileRows];
    kernel(tile, product.to.weight->width, chunk, {sums, kTileRows, kTileRows, nullptr, false});
    for (std::size_t t = 0; t < n; ++t) {
        float* to = out.out + t * out.stride;
        for (std::size_t r = 0; r < out.n_rows; ++r) {
            float sum = sums[t * kTileRows + r];
            if (out.bias != nullptr) sum += out.bias[r];
            if (out.accumulate) sum += to[r];
            to[r] = sums[(n + t) * kTileRows + r] + sum;
        }
    }
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

}  // namespace quarry
