#include "decoders/weight_loader.h"

#include <array>

namespace quarry {

namespace {

// Tensors that files hold and nobody needs: what the keys say already.
bool is_known_spare(std::string_view name) {
    return name.ends_with(".attn_rot_embd.weight") || name.ends_with(".rope_freqs.weight");
}

GgufTensor cut_rows(const GgufTensor& tensor, std::size_t first, std::size_t n) {
    const std::size_t row_bytes = tensor.width() / tensor.type->block_weights * tensor.type->block_bytes;
    GgufTensor part = tensor;
    part.shape = {tensor.width(), n};
    part.bytes = tensor.bytes.subspan(first * row_bytes, n * row_bytes);
    return part;
}

}  // namespace

const GgufTensor& WeightLoader::find(const std::string& name, std::span<const std::uint64_t> shape) {
    const GgufTensor& tensor = file_.tensor(name, shape);
    read_.insert(name);
    return tensor;
}

Weight WeightLoader::matrix(const std::string& name, std::size_t rows, std::size_t width, RowOrder order,
                            HeadShape heads) {
    return some_rows(name, rows, width, 0, rows, order, heads);
}

Weight WeightLoader::some_rows(const std::string& name, std::size_t rows, std::size_t width,
                               std::size_t first, std::size_t n, RowOrder order, HeadShape heads) {
    // Of one row, files hold a vector.
    const std::array<std::uint64_t, 2> shape{width, rows};
    const GgufTensor& whole = find(name + ".weight", std::span(shape).first(rows == 1 ? 1 : 2));
    Weight weight = backend_.load(file_, n == rows ? whole : cut_rows(whole, first, n), order, heads);
    if (has(name + ".bias")) {
        const GgufTensor& bias = find(name + ".bias", std::array<std::uint64_t, 1>{rows});
        weight.bias = backend_.load_bias(bias, first, n, order, heads);
    }
    n_bytes_ += weight.tiles.size();
    return weight;
}

Weight WeightLoader::head_rows(const std::string& name, std::size_t n_heads, std::size_t width,
                               RowOrder order, HeadShape heads) {
    const std::array<std::uint64_t, 2> shape{width, n_heads * heads.file_dim};
    const GgufTensor& whole = find(name + ".weight", shape);
    GgufTensor part = whole;
    part.shape[1] = n_heads * heads.head_dim;
    Weight weight = backend_.load(file_, part, order, heads);
    if (has(name + ".bias")) {
        const GgufTensor& bias = find(name + ".bias", std::span(shape).subspan(1));
        weight.bias = backend_.load_bias(bias, 0, part.shape[1], order, heads);
    }
    n_bytes_ += weight.tiles.size();
    return weight;
}

std::vector<float> WeightLoader::columns(const std::string& name, std::size_t rows, std::size_t width) {
    const GgufTensor& tensor = find(name + ".weight", std::array<std::uint64_t, 2>{width, rows});
    std::vector<float> row(width);
    std::vector<float> out(rows * width);
    for (std::size_t r = 0; r < rows; ++r) {
        GgufFile::read_row(tensor, r, row.data());
        for (std::size_t c = 0; c < width; ++c) out[c * rows + r] = row[c];
    }
    return out;
}

Weight WeightLoader::experts(const std::string& name, std::size_t n_experts, std::size_t rows,
                             std::size_t width) {
    const auto& tensor = find(name + ".weight", std::array<std::uint64_t, 3>{width, rows, n_experts});
    Weight weight = backend_.load_experts(file_, tensor);
    n_bytes_ += weight.tiles.size();
    return weight;
}

std::vector<float> WeightLoader::vector(const std::string& name, std::size_t width, const std::string& part) {
    return backend_.load_vector(find(name + part, std::array<std::uint64_t, 1>{width}));
}

const GgufTensor& WeightLoader::table(const std::string& name, std::size_t rows, std::size_t width) {
    const GgufTensor& tensor = find(name + ".weight", std::array<std::uint64_t, 2>{width, rows});
    backend_.check_readable(tensor);
    return tensor;
}

void WeightLoader::check_all_read(std::size_t n_layers) const {
    std::set<std::string, std::less<>> layers;
    for (std::size_t i = 0; i < n_layers; ++i) layers.insert(layer_tensor(i, ""));
    for (const auto& tensor : file_.tensors()) {
        const std::string_view name = tensor.name;
        // Behind the layers that are run there may be others, which guess further tokens.
        if (!layers.contains(name.substr(0, name.find('.', 4) + 1)) || read_.contains(name) ||
            is_known_spare(name)) {
            continue;
        }
        throw GgufError("tensor '" + tensor.name + "' is not one that a " +
                        std::string(file_.string("general.architecture")) +
                        " has as this engine knows it; its answers would be wrong");
    }
}

}  // namespace quarry
