#include "quantizer.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

namespace quarry {

namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

bool all_finite(std::span<const float> values) {
    return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

// Keeps the smaller of what is there and `row`.
void note(std::atomic<std::size_t>& first, std::size_t row) {
    std::size_t seen = first.load();
    while (row < seen && !first.compare_exchange_weak(seen, row)) {
    }
}

const TensorType& writable(std::string_view name) {
    const TensorType* type = find_tensor_type(name);
    if (type == nullptr || type->quantize == nullptr) {
        throw std::invalid_argument("type '" + std::string(name) +
                                    "' cannot be written; those that can are " +
                                    joined(readable_type_names()));
    }
    return *type;
}

const GgufTensor& checked(const GgufFile& file, std::string_view name, std::size_t first, std::size_t n) {
    const GgufTensor* tensor = file.find_tensor(name);
    if (tensor == nullptr) throw std::invalid_argument("there is no tensor '" + std::string(name) + "'");
    if (first > tensor->rows() || n > tensor->rows() - first) {
        throw std::invalid_argument("tensor '" + tensor->name + "' has " + std::to_string(tensor->rows()) +
                                    " rows, not " + std::to_string(n) + " from " + std::to_string(first));
    }
    return *tensor;
}

std::span<const std::byte> stored_rows(const GgufTensor& tensor, std::size_t first, std::size_t n) {
    const std::size_t row_bytes = tensor.width() / tensor.type->block_weights * tensor.type->block_bytes;
    return tensor.bytes.subspan(first * row_bytes, n * row_bytes);
}

}  // namespace

std::span<const std::byte> Quantizer::copy(std::string_view name, std::size_t first, std::size_t n) const {
    return stored_rows(checked(*file_, name, first, n), first, n);
}

std::vector<std::byte> Quantizer::rows(std::string_view name, std::size_t first, std::size_t n,
                                       std::string_view type_name, std::span<const float> importance) {
    const TensorType& type = writable(type_name);
    const GgufTensor& tensor = checked(*file_, name, first, n);
    GgufFile::check_readable(tensor);
    const std::size_t width = tensor.width();
    const std::string where = "tensor '" + tensor.name + "'";
    if (width % type.block_weights != 0) {
        throw std::invalid_argument(where + " has rows of " + std::to_string(width) + ", which blocks of " +
                                    std::to_string(type.block_weights) + " (" + type.name +
                                    ") do not divide");
    }
    if (!importance.empty() && (importance.size() != width || !all_finite(importance))) {
        throw std::invalid_argument("the importance of " + where + " is not " + std::to_string(width) +
                                    " finite numbers");
    }
    const std::size_t row_bytes = width / type.block_weights * type.block_bytes;
    std::vector<std::byte> out(n * row_bytes);
    std::vector<std::vector<float>> scratch(pool_.size(), std::vector<float>(width));
    std::atomic<std::size_t> broken = kNone;
    std::atomic<std::size_t> unfit = kNone;
    pool_.parallel(n, [&](std::size_t i, std::size_t thread) {
        std::vector<float>& values = scratch[thread];
        std::byte* row = out.data() + i * row_bytes;
        GgufFile::read_row(tensor, first + i, values.data());
        if (!all_finite(values)) return note(broken, first + i);
        type.quantize(values.data(), width, importance.empty() ? nullptr : importance.data(), row);
        type.dequantize(row, width, values.data());
        if (!all_finite(values)) note(unfit, first + i);
    });
    file_->mapping().drop(stored_rows(tensor, first, n));
    if (broken != kNone) {
        throw GgufError(where + " has values in row " + std::to_string(broken) +
                        " that are no finite numbers: the file is damaged");
    }
    if (unfit != kNone) {
        throw GgufError(where + " has values in row " + std::to_string(unfit) + " beyond the range of " +
                        type.name + "; BF16 and F32 hold them");
    }
    return out;
}

}  // namespace quarry
