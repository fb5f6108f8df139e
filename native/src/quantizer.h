// Rows of a file's tensors as another type.
#pragma once

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "gguf.h"
#include "thread_pool.h"

namespace quarry {

class Quantizer {
  public:
    Quantizer(std::shared_ptr<const GgufFile> file, std::size_t n_threads)
        : file_(std::move(file)), pool_(n_threads) {}

    // Rows [first, first + n) of `tensor` as `type`. `importance` is empty or has a weight for each column.
    // Throws: GgufError (a tensor or value that cannot be read or written; names tensor, row and value),
    // std::invalid_argument (unknown tensor or type, rows or columns that are not there).
    std::vector<std::byte> rows(std::string_view tensor, std::size_t first, std::size_t n,
                                std::string_view type, std::span<const float> importance);

    // The same rows as they lie in the file.
    std::span<const std::byte> copy(std::string_view tensor, std::size_t first, std::size_t n) const;

  private:
    std::shared_ptr<const GgufFile> file_;
    ThreadPool pool_;
};

}  // namespace quarry
