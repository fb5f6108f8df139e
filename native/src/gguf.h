// A memory-mapped GGUF v2/v3 file. The file is hostile: every length is compared with the bytes left before
// it is used, and any fault raises GgufError naming key or tensor, value and limit.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "tensor_type.h"

namespace quarry {

class GgufError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// A file mapped read-only for the lifetime of the object.
class MappedFile {
  public:
    explicit MappedFile(const std::string& path);
    ~MappedFile();
    MappedFile(const MappedFile&) = delete;
    MappedFile& operator=(const MappedFile&) = delete;

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    // Tells the kernel that pages of `range`, which lies in some mapping, will not be read again soon; they
    // leave the resident set.
    static void drop(std::span<const std::byte> range);

  private:
    const std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

// What a model may say of itself at most.
constexpr std::uint64_t kMaxWidth = 1 << 20;
constexpr std::uint64_t kMaxLayers = 4096;
constexpr std::uint64_t kMaxHeads = 4096;

enum class ValueType : std::uint32_t {
    u8,
    i8,
    u16,
    i16,
    u32,
    i32,
    f32,
    boolean,
    string,
    array,
    u64,
    i64,
    f64,
};

struct GgufArray {
    ValueType type;  // never array
    std::size_t count;
    std::span<const std::byte> raw;         // numbers and bools, little-endian, into the mapping
    std::vector<std::string_view> strings;  // only for ValueType::string, into the mapping
};

using GgufValue = std::variant<std::uint64_t, std::int64_t, double, bool, std::string_view, GgufArray>;

struct GgufTensor {
    std::string name;
    const TensorType* type;
    std::vector<std::uint64_t> shape;  // fastest dimension first
    std::size_t offset;                // bytes from the start of the file
    std::span<const std::byte> bytes;  // into the mapping
    std::uint64_t width() const { return shape[0]; }
    std::uint64_t rows() const;  // product of all but the first dimension
};

// Rows [first, first + n) of a matrix that has them, as a tensor of its own.
GgufTensor rows_of(const GgufTensor& tensor, std::uint64_t first, std::uint64_t n);

class GgufFile {
  public:
    // Of a model in several files (...-00001-of-00003.gguf) `path` is the first; the others lie beside it.
    // Throws: GgufError (malformed, a part missing), std::system_error (cannot be opened or mapped).
    explicit GgufFile(const std::string& path);

    std::uint32_t version() const { return version_; }
    const MappedFile& mapping() const { return *mapping_; }
    // Of all parts.
    std::size_t n_bytes() const;
    // MappedFile::drop() of all parts.
    void drop_all() const;
    const std::map<std::string, GgufValue, std::less<>>& values() const { return values_; }
    // Keys in the order of the file, each with its value as it stands there: type, then bytes.
    const std::vector<std::pair<std::string, std::span<const std::byte>>>& raw_values() const {
        return raw_values_;
    }
    const std::vector<GgufTensor>& tensors() const { return tensors_; }

    // Typed getters. Without a default an absent key is an error, as is a value outside [min, max].
    std::uint64_t integer(std::string_view key, std::uint64_t min, std::uint64_t max) const;
    std::uint64_t integer(std::string_view key, std::uint64_t min, std::uint64_t max,
                          std::uint64_t absent) const;
    double real(std::string_view key, double min, double max) const;
    double real(std::string_view key, double min, double max, double absent) const;
    bool boolean(std::string_view key, bool absent) const;
    std::string_view string(std::string_view key) const;
    std::string_view string(std::string_view key, std::string_view absent) const;
    bool has(std::string_view key) const { return values_.find(key) != values_.end(); }

    const GgufTensor* find_tensor(std::string_view name) const;
    // Throws: GgufError when absent or when its shape (fastest first, trailing ones ignored) differs.
    const GgufTensor& tensor(std::string_view name, std::span<const std::uint64_t> shape) const;

    // Throws: GgufError where the values of the tensor cannot be read; it says which types can.
    static void check_readable(const GgufTensor& tensor);
    // Row `index` of a tensor, dequantised, [width].
    static void read_row(const GgufTensor& tensor, std::uint64_t index, float* out);

  private:
    struct OnePart {};
    GgufFile(const std::string& path, OnePart);
    const GgufValue* find(std::string_view key) const;
    void add_parts(const std::string& path, std::uint64_t n_parts);
    void add_part(const std::string& path, std::uint64_t number, std::uint64_t n_parts);

    std::shared_ptr<const MappedFile> mapping_;
    std::vector<std::shared_ptr<const MappedFile>> other_parts_;  // that tensors point into
    std::uint32_t version_ = 0;
    std::map<std::string, GgufValue, std::less<>> values_;
    std::vector<std::pair<std::string, std::span<const std::byte>>> raw_values_;
    std::vector<GgufTensor> tensors_;
    std::map<std::string, std::size_t, std::less<>> tensor_index_;
};

}  // namespace quarry
