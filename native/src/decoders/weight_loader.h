// Reads a model's tensors by name, counts their bytes, and notices those that nobody asked for.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "backend.h"
#include "decoders/description.h"

namespace quarry {

class WeightLoader {
  public:
    WeightLoader(const GgufFile& file, Backend& backend) : file_(file), backend_(backend) {}

    bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }
    // `name`.weight as [rows][width], with `name`.bias where there is one.
    Weight matrix(const std::string& name, std::size_t rows, std::size_t width,
                  RowOrder order = RowOrder::halves, HeadShape heads = {1, 0});
    // The same for `n` rows from `first` on, of the `rows` that the tensor has.
    Weight some_rows(const std::string& name, std::size_t rows, std::size_t width, std::size_t first,
                     std::size_t n, RowOrder order = RowOrder::halves, HeadShape heads = {1, 0});
    // The rows of each head that `heads` describes, n_heads of them.
    Weight head_rows(const std::string& name, std::size_t n_heads, std::size_t width, RowOrder order,
                     HeadShape heads);
    // `name`.weight as [experts][rows][width]
    Weight experts(const std::string& name, std::size_t n_experts, std::size_t rows, std::size_t width);
    // `name`.weight, or what else `part` says, [width]
    std::vector<float> vector(const std::string& name, std::size_t width,
                              const std::string& part = ".weight");
    // `name`.weight [rows][width] as columns: [width][rows]
    std::vector<float> columns(const std::string& name, std::size_t rows, std::size_t width);
    // A table to gather rows from.
    const GgufTensor& table(const std::string& name, std::size_t rows, std::size_t width);

    std::size_t n_bytes() const { return n_bytes_; }
    // Throws: GgufError naming a tensor of the layers that was not read: the model is not what it says.
    void check_all_read(std::size_t n_layers) const;

  private:
    const GgufTensor& find(const std::string& name, std::span<const std::uint64_t> shape);

    const GgufFile& file_;
    Backend& backend_;
    std::set<std::string, std::less<>> read_;
    std::size_t n_bytes_ = 0;
};

}  // namespace quarry
