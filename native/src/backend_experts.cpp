// Experts on the CPU: rows are grouped, so that each expert's weights are read once a batch.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "backend.h"

namespace quarry {

Weight Backend::load_experts(const GgufFile& file, const GgufTensor& tensor) {
    const TensorType& type = *tensor.type;
    GgufFile::check_readable(tensor);
    const std::size_t width = tensor.width();
    const std::size_t rows = tensor.shape[1];
    const std::size_t n_experts = tensor.rows() / rows;
    const std::size_t n_tiles = (rows + kTileRows - 1) / kTileRows;
    const std::size_t row_bytes = width / type.block_weights * type.block_bytes;
    const std::size_t step = tile_bytes(type.layout, width);
    Weight weight{type.layout, rows, width, LazyMemory(n_experts * n_tiles * step), {}, tensor.name};
    pool_.parallel(n_experts * n_tiles, [&](std::size_t i, std::size_t) {
        const std::size_t first = i % n_tiles * kTileRows;
        const std::byte* packed_rows[kTileRows] = {};
        for (std::size_t r = 0; r < kTileRows && first + r < rows; ++r) {
            packed_rows[r] = tensor.bytes.data() + (i / n_tiles * rows + first + r) * row_bytes;
        }
        type.pack(packed_rows, width, weight.tiles.data() + i * step);
    });
    file.mapping().drop(tensor.bytes);
    return weight;
}

void Backend::route(const Buffer& scores, std::size_t n, std::size_t n_used, bool normalize, float scale,
                    Routes& out) const {
    const std::size_t n_experts = scores.width();
    out.n_used_ = n_used;
    out.weights_.resize(n * n_used);
    std::vector<std::size_t> chosen(n * n_used);
    std::vector<std::size_t> order(n_experts);
    for (std::size_t i = 0; i < n; ++i) {
        const float* row = scores.row(i);
        std::iota(order.begin(), order.end(), std::size_t{0});
        // Broken scores count as the lowest: an order needs numbers.
        const auto score = [&](std::size_t e) { return std::isnan(row[e]) ? -INFINITY : row[e]; };
        std::partial_sort(
            order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n_used), order.end(),
            [&](std::size_t a, std::size_t b) { return score(a) != score(b) ? score(a) > score(b) : a < b; });
        const float top = row[order[0]];
        float total = 0;
        for (std::size_t e = 0; e < n_experts; ++e) total += std::exp(row[e] - top);
        std::sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n_used));
        float used = 0;
        for (std::size_t u = 0; u < n_used; ++u) used += std::exp(row[order[u]] - top);
        for (std::size_t u = 0; u < n_used; ++u) {
            chosen[i * n_used + u] = order[u];
            out.weights_[i * n_used + u] = std::exp(row[order[u]] - top) / (normalize ? used : total) * scale;
        }
    }
    out.first_.assign(n_experts + 1, 0);
    for (const auto e : chosen) ++out.first_[e + 1];
    std::partial_sum(out.first_.begin(), out.first_.end(), out.first_.begin());
    out.rows_.resize(chosen.size());
    out.places_.resize(chosen.size());
    std::vector<std::size_t> next(out.first_.begin(), out.first_.end() - 1);
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        out.places_[i] = next[chosen[i]]++;
        out.rows_[out.places_[i]] = i / n_used;
    }
}

void Backend::gather_routed(const Buffer& x, const Routes& routes, Buffer& out) {
    each_row(routes.rows_.size(), x.width(), [&](std::size_t i) {
        std::memcpy(out.row(i), x.row(routes.rows_[i]), x.width() * sizeof(float));
    });
}

void Backend::matmul_routed(const Buffer& x, const Routes& routes,
                            std::initializer_list<Projection> projections, Rounding rounding) {
    for (std::size_t e = 0; e + 1 < routes.first_.size(); ++e) {
        const std::size_t first = routes.first_[e];
        const std::size_t n = routes.first_[e + 1] - first;
        if (n > 0) matmul_rows(x, first, n, projections, rounding, e);
    }
}

void Backend::add_routed(const Buffer& x, const Routes& routes, std::size_t n, Buffer& out) {
    each_row(n, x.width() * routes.n_used_, [&](std::size_t i) {
        for (std::size_t u = i * routes.n_used_; u < (i + 1) * routes.n_used_; ++u) {
            const float* from = x.row(routes.places_[u]);
            float* to = out.row(i);
            for (std::size_t d = 0; d < x.width(); ++d) to[d] += routes.weights_[u] * from[d];
        }
    });
}

void Backend::sigmoid_scale(const Buffer& gate, std::size_t n, Buffer& x) {
    each_row(n, x.width(), [&](std::size_t i) {
        kernels_.scale(x.row(i), x.width(), 1 / (1 + std::exp(-gate.row(i)[0])));
    });
}

}  // namespace quarry
