#include "gguf.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <system_error>

namespace quarry {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

namespace {

constexpr std::size_t kMaxDimensions = 4;
constexpr std::size_t kMaxNameBytes = 65535;
constexpr std::uint64_t kMaxAlignment = 1 << 16;
constexpr std::uint64_t kMaxParts = 1000;
constexpr std::uint64_t kMaxTensors = 1 << 24;

std::string quoted(std::string_view text) {
    constexpr std::size_t kShown = 80;
    std::string out = "'";
    for (const char c : text.substr(0, kShown)) {
        const bool printable = static_cast<unsigned char>(c) >= 0x20 && static_cast<unsigned char>(c) < 0x7f;
        out += printable ? c : '?';
    }
    return out + (text.size() > kShown ? "...'" : "'");
}

std::size_t scalar_bytes(ValueType type) {
    switch (type) {
        case ValueType::u8:
        case ValueType::i8:
        case ValueType::boolean:
            return 1;
        case ValueType::u16:
        case ValueType::i16:
            return 2;
        case ValueType::u32:
        case ValueType::i32:
        case ValueType::f32:
            return 4;
        case ValueType::u64:
        case ValueType::i64:
        case ValueType::f64:
            return 8;
        default:
            return 0;
    }
}

template <class T>
T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// Reads forward through the mapping; `what` names the place in every error.
class Cursor {
  public:
    explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

    std::size_t position() const { return position_; }
    std::size_t left() const { return bytes_.size() - position_; }

    std::span<const std::byte> take(std::size_t n, std::string_view what) {
        if (n > left()) {
            throw GgufError(std::string(what) + " needs " + std::to_string(n) +
                            " bytes, but the file has only " + std::to_string(left()) + " left");
        }
        const auto out = bytes_.subspan(position_, n);
        position_ += n;
        return out;
    }

    template <class T>
    T number(std::string_view what) {
        return load<T>(take(sizeof(T), what).data());
    }

    std::string_view string(std::string_view what) {
        const auto n = number<std::uint64_t>(what);
        if (n > left()) {
            throw GgufError(std::string(what) + " says it is " + std::to_string(n) +
                            " bytes long, but the file has only " + std::to_string(left()) + " left");
        }
        const auto raw = take(n, what);
        return {reinterpret_cast<const char*>(raw.data()), raw.size()};
    }

    std::string name(std::string_view what) {
        const auto text = string(what);
        if (text.empty() || text.size() > kMaxNameBytes) {
            throw GgufError(std::string(what) + " is " + std::to_string(text.size()) +
                            " bytes long; allowed are 1 to " + std::to_string(kMaxNameBytes));
        }
        return std::string(text);
    }

  private:
    std::span<const std::byte> bytes_;
    std::size_t position_ = 0;
};

ValueType value_type(Cursor& cursor, const std::string& where) {
    const auto raw = cursor.number<std::uint32_t>(where);
    if (raw > static_cast<std::uint32_t>(ValueType::f64)) {
        throw GgufError(where + " has the unknown value type " + std::to_string(raw));
    }
    return static_cast<ValueType>(raw);
}

GgufArray read_array(Cursor& cursor, const std::string& where) {
    GgufArray array{value_type(cursor, where), 0, {}, {}};
    const auto count = cursor.number<std::uint64_t>(where);
    if (array.type == ValueType::array)
        throw GgufError(where + " is an array of arrays, which is not supported");
    const std::size_t item =
        array.type == ValueType::string ? sizeof(std::uint64_t) : scalar_bytes(array.type);
    if (count > cursor.left() / item) {
        throw GgufError(where + " says it has " + std::to_string(count) + " items, but the file has only " +
                        std::to_string(cursor.left()) + " bytes left");
    }
    array.count = count;
    if (array.type != ValueType::string) {
        array.raw = cursor.take(count * item, where);
        return array;
    }
    array.strings.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) array.strings.push_back(cursor.string(where));
    return array;
}

bool read_bool(std::byte raw, const std::string& where) {
    if (std::to_integer<int>(raw) > 1) {
        throw GgufError(where + " is a bool with the value " + std::to_string(std::to_integer<int>(raw)));
    }
    return raw == std::byte{1};
}

GgufValue read_value(Cursor& cursor, ValueType type, const std::string& where) {
    switch (type) {
        case ValueType::u8:
            return std::uint64_t{cursor.number<std::uint8_t>(where)};
        case ValueType::i8:
            return std::int64_t{cursor.number<std::int8_t>(where)};
        case ValueType::u16:
            return std::uint64_t{cursor.number<std::uint16_t>(where)};
        case ValueType::i16:
            return std::int64_t{cursor.number<std::int16_t>(where)};
        case ValueType::u32:
            return std::uint64_t{cursor.number<std::uint32_t>(where)};
        case ValueType::i32:
            return std::int64_t{cursor.number<std::int32_t>(where)};
        case ValueType::u64:
            return cursor.number<std::uint64_t>(where);
        case ValueType::i64:
            return cursor.number<std::int64_t>(where);
        case ValueType::f32:
            return double{cursor.number<float>(where)};
        case ValueType::f64:
            return cursor.number<double>(where);
        case ValueType::boolean:
            return read_bool(cursor.take(1, where)[0], where);
        case ValueType::string:
            return cursor.string(where);
        case ValueType::array:
            return read_array(cursor, where);
    }
    throw GgufError(where + " has an unknown value type");
}

GgufTensor read_tensor_info(Cursor& cursor, std::uint64_t index) {
    GgufTensor tensor;
    tensor.name = cursor.name("the name of tensor " + std::to_string(index));
    const std::string where = "tensor " + quoted(tensor.name);
    const auto n_dims = cursor.number<std::uint32_t>(where);
    if (n_dims < 1 || n_dims > kMaxDimensions) {
        throw GgufError(where + " has " + std::to_string(n_dims) + " dimensions; allowed are 1 to " +
                        std::to_string(kMaxDimensions));
    }
    for (std::uint32_t d = 0; d < n_dims; ++d) tensor.shape.push_back(cursor.number<std::uint64_t>(where));
    const auto type = cursor.number<std::uint32_t>(where);
    tensor.type = find_tensor_type(type);
    if (tensor.type == nullptr)
        throw GgufError(where + " has the unknown tensor type " + std::to_string(type) +
                        "; this engine reads " + joined(readable_type_names()));
    tensor.offset = cursor.number<std::uint64_t>(where);
    return tensor;
}

// Bytes of a tensor, or nothing when a product overflows.
std::optional<std::size_t> tensor_bytes(const GgufTensor& tensor) {
    std::uint64_t n = tensor.type->block_bytes;
    if (tensor.shape[0] % tensor.type->block_weights != 0) return std::nullopt;
    for (std::size_t d = 0; d < tensor.shape.size(); ++d) {
        const std::uint64_t factor = d == 0 ? tensor.shape[0] / tensor.type->block_weights : tensor.shape[d];
        if (factor == 0 || n > std::numeric_limits<std::int64_t>::max() / factor) return std::nullopt;
        n *= factor;
    }
    return n;
}

void place_tensor(GgufTensor& tensor, std::span<const std::byte> data, std::size_t data_start,
                  std::size_t alignment) {
    const std::string where = "tensor " + quoted(tensor.name);
    const auto n_bytes = tensor_bytes(tensor);
    if (!n_bytes) {
        std::string shape;
        for (const auto d : tensor.shape) shape += (shape.empty() ? "" : " x ") + std::to_string(d);
        throw GgufError(where + " has the impossible shape " + shape + " for type " + tensor.type->name);
    }
    if (tensor.offset % alignment != 0) {
        throw GgufError(where + " starts at " + std::to_string(tensor.offset) +
                        ", which is no multiple of the alignment " + std::to_string(alignment));
    }
    if (tensor.offset > data.size() || *n_bytes > data.size() - tensor.offset) {
        throw GgufError(where + " needs " + std::to_string(*n_bytes) + " bytes at offset " +
                        std::to_string(tensor.offset) + ", but the file has only " +
                        std::to_string(data.size()) + " bytes of tensor data");
    }
    tensor.bytes = data.subspan(tensor.offset, *n_bytes);
    tensor.offset += data_start;
}

[[noreturn]] void wrong_type(std::string_view key, const char* expected) {
    throw GgufError("key " + quoted(key) + " is not " + expected);
}

[[noreturn]] void absent_key(std::string_view key) {
    throw GgufError("key " + quoted(key) + " is missing");
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) throw std::system_error(errno, std::generic_category(), path);
    struct stat status{};
    if (::fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(fd);
        throw GgufError(path + " is not a regular file");
    }
    size_ = static_cast<std::size_t>(status.st_size);
    if (size_ == 0) {
        ::close(fd);
        throw GgufError(path + " is empty");
    }
    void* data = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd, 0);
    const int error = errno;
    ::close(fd);
    if (data == MAP_FAILED) throw std::system_error(error, std::generic_category(), path);
    data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
    ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::drop(std::span<const std::byte> range) {
    constexpr std::uintptr_t kPage = 4096;
    const auto first = (reinterpret_cast<std::uintptr_t>(range.data()) + kPage - 1) / kPage * kPage;
    const auto last = reinterpret_cast<std::uintptr_t>(range.data() + range.size()) / kPage * kPage;
    if (last > first) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

std::uint64_t GgufTensor::rows() const {
    std::uint64_t n = 1;
    for (std::size_t d = 1; d < shape.size(); ++d) n *= shape[d];
    return n;
}

GgufTensor rows_of(const GgufTensor& tensor, std::uint64_t first, std::uint64_t n) {
    const std::size_t row_bytes = tensor.width() / tensor.type->block_weights * tensor.type->block_bytes;
    GgufTensor rows = tensor;
    rows.shape = {tensor.width(), n};
    rows.offset += first * row_bytes;
    rows.bytes = tensor.bytes.subspan(first * row_bytes, n * row_bytes);
    return rows;
}

GgufFile::GgufFile(const std::string& path) : GgufFile(path, OnePart{}) {
    const auto n_parts = integer("split.count", 0, kMaxParts, 0);
    if (n_parts > 1) add_parts(path, n_parts);
}

std::size_t GgufFile::n_bytes() const {
    std::size_t n = mapping_->bytes().size();
    for (const auto& part : other_parts_) n += part->bytes().size();
    return n;
}

void GgufFile::drop_all() const {
    MappedFile::drop(mapping_->bytes());
    for (const auto& part : other_parts_) MappedFile::drop(part->bytes());
}

void GgufFile::add_parts(const std::string& path, std::uint64_t n_parts) {
    const auto number = integer("split.no", 0, n_parts - 1);
    const auto ending = [&](std::uint64_t part) {
        char text[32];
        std::snprintf(text, sizeof text, "-%05u-of-%05u.gguf", static_cast<unsigned>(part + 1),
                      static_cast<unsigned>(n_parts));
        return std::string(text);
    };
    const std::string own = ending(number);
    if (!path.ends_with(own)) {
        throw GgufError(path + " is part " + std::to_string(number + 1) + " of " + std::to_string(n_parts) +
                        " of a model; its name must end in " + own + ", or the others are not found");
    }
    const std::string stem = path.substr(0, path.size() - own.size());
    if (number != 0) {
        throw GgufError(path + " is part " + std::to_string(number + 1) + " of " + std::to_string(n_parts) +
                        "; give the first, " + stem + ending(0));
    }
    for (std::uint64_t part = 1; part < n_parts; ++part) add_part(stem + ending(part), part, n_parts);
    const auto expected = integer("split.tensors.count", 0, kMaxTensors, tensors_.size());
    if (expected != tensors_.size()) {
        throw GgufError("the " + std::to_string(n_parts) + " parts of " + path + " have " +
                        std::to_string(tensors_.size()) + " tensors together; " + std::to_string(expected) +
                        " are expected");
    }
}

void GgufFile::add_part(const std::string& path, std::uint64_t number, std::uint64_t n_parts) {
    if (::access(path.c_str(), F_OK) != 0) {
        throw GgufError("part " + std::to_string(number + 1) + " of " + std::to_string(n_parts) +
                        " is missing: " + path);
    }
    GgufFile part(path, OnePart{});
    if (part.integer("split.count", 0, kMaxParts, 0) != n_parts ||
        part.integer("split.no", 0, kMaxParts, kMaxParts) != number) {
        throw GgufError(path + " is not part " + std::to_string(number + 1) + " of " +
                        std::to_string(n_parts));
    }
    other_parts_.push_back(part.mapping_);
    for (auto& tensor : part.tensors_) {
        if (!tensor_index_.emplace(tensor.name, tensors_.size()).second) {
            throw GgufError("tensor " + quoted(tensor.name) + " occurs in two parts");
        }
        tensors_.push_back(std::move(tensor));
    }
}

GgufFile::GgufFile(const std::string& path, OnePart) : mapping_(std::make_shared<MappedFile>(path)) {
    Cursor cursor(mapping_->bytes());
    const auto magic = cursor.take(4, "the magic number");
    if (std::memcmp(magic.data(), "GGUF", 4) != 0)
        throw GgufError(path + " is not a GGUF file: it does not start with 'GGUF'");
    version_ = cursor.number<std::uint32_t>("the version");
    if (version_ != 2 && version_ != 3) {
        throw GgufError("GGUF version " + std::to_string(version_) +
                        " is not supported; versions 2 and 3 are");
    }
    const auto n_tensors = cursor.number<std::uint64_t>("the number of tensors");
    const auto n_values = cursor.number<std::uint64_t>("the number of keys");
    for (std::uint64_t i = 0; i < n_values; ++i) {
        std::string key = cursor.name("the name of key " + std::to_string(i));
        const std::string where = "key " + quoted(key);
        const std::size_t start = cursor.position();
        auto value = read_value(cursor, value_type(cursor, where), where);
        raw_values_.emplace_back(key, mapping_->bytes().subspan(start, cursor.position() - start));
        if (!values_.emplace(std::move(key), std::move(value)).second)
            throw GgufError(where + " occurs twice");
    }
    for (std::uint64_t i = 0; i < n_tensors; ++i) {
        tensors_.push_back(read_tensor_info(cursor, i));
        if (!tensor_index_.emplace(tensors_.back().name, i).second) {
            throw GgufError("tensor " + quoted(tensors_.back().name) + " occurs twice");
        }
    }
    const auto alignment = integer("general.alignment", 1, kMaxAlignment, 32);
    if (!std::has_single_bit(alignment)) {
        throw GgufError("key 'general.alignment' is " + std::to_string(alignment) +
                        ", which is no power of two");
    }
    if (n_tensors == 0) return;
    const std::size_t data_start = (cursor.position() + alignment - 1) / alignment * alignment;
    const auto bytes = mapping_->bytes();
    const auto data = bytes.subspan(std::min(data_start, bytes.size()));
    for (auto& tensor : tensors_) place_tensor(tensor, data, data_start, alignment);
}

const GgufValue* GgufFile::find(std::string_view key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
}

std::uint64_t GgufFile::integer(std::string_view key, std::uint64_t min, std::uint64_t max) const {
    const GgufValue* value = find(key);
    if (value == nullptr) absent_key(key);
    std::string shown;
    if (const auto* u = std::get_if<std::uint64_t>(value)) {
        if (*u >= min && *u <= max) return *u;
        shown = std::to_string(*u);
    } else if (const auto* i = std::get_if<std::int64_t>(value)) {
        if (*i >= 0 && static_cast<std::uint64_t>(*i) >= min && static_cast<std::uint64_t>(*i) <= max) {
            return static_cast<std::uint64_t>(*i);
        }
        shown = std::to_string(*i);
    } else {
        wrong_type(key, "an integer");
    }
    throw GgufError("key " + quoted(key) + " is " + shown + "; allowed are " + std::to_string(min) + " to " +
                    std::to_string(max));
}

std::uint64_t GgufFile::integer(std::string_view key, std::uint64_t min, std::uint64_t max,
                                std::uint64_t absent) const {
    return has(key) ? integer(key, min, max) : absent;
}

double GgufFile::real(std::string_view key, double min, double max) const {
    const GgufValue* value = find(key);
    if (value == nullptr) absent_key(key);
    const auto* x = std::get_if<double>(value);
    if (x == nullptr) wrong_type(key, "a floating-point number");
    if (!(*x >= min && *x <= max)) {
        throw GgufError("key " + quoted(key) + " is " + std::to_string(*x) + "; allowed are " +
                        std::to_string(min) + " to " + std::to_string(max));
    }
    return *x;
}

double GgufFile::real(std::string_view key, double min, double max, double absent) const {
    return has(key) ? real(key, min, max) : absent;
}

bool GgufFile::boolean(std::string_view key, bool absent) const {
    const GgufValue* value = find(key);
    if (value == nullptr) return absent;
    const auto* flag = std::get_if<bool>(value);
    if (flag == nullptr) wrong_type(key, "a bool");
    return *flag;
}

std::string_view GgufFile::string(std::string_view key) const {
    const GgufValue* value = find(key);
    if (value == nullptr) absent_key(key);
    const auto* text = std::get_if<std::string_view>(value);
    if (text == nullptr) wrong_type(key, "a string");
    return *text;
}

std::string_view GgufFile::string(std::string_view key, std::string_view absent) const {
    return has(key) ? string(key) : absent;
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
    const auto found = tensor_index_.find(name);
    return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& GgufFile::tensor(std::string_view name, std::span<const std::uint64_t> shape) const {
    const GgufTensor* found = find_tensor(name);
    if (found == nullptr) throw GgufError("tensor " + quoted(name) + " is missing");
    bool same = found->shape.size() >= shape.size();
    std::string expected;
    std::string actual;
    for (std::size_t d = 0; d < found->shape.size(); ++d) {
        same = same && found->shape[d] == (d < shape.size() ? shape[d] : 1);
        actual += (d ? " x " : "") + std::to_string(found->shape[d]);
    }
    for (std::size_t d = 0; d < shape.size(); ++d) expected += (d ? " x " : "") + std::to_string(shape[d]);
    if (!same) throw GgufError("tensor " + quoted(name) + " has shape " + actual + "; expected " + expected);
    return *found;
}

void GgufFile::check_readable(const GgufTensor& tensor) {
    if (tensor.type->dequantize != nullptr) return;
    throw GgufError("tensor " + quoted(tensor.name) + " has type " + tensor.type->name +
                    ", which this engine cannot read; it reads " + joined(readable_type_names()) +
                    ". Take the model in one of these, or its F16 file and 'quarry quantize'");
}

void GgufFile::read_row(const GgufTensor& tensor, std::uint64_t index, float* out) {
    check_readable(tensor);
    const std::size_t row_bytes = tensor.width() / tensor.type->block_weights * tensor.type->block_bytes;
    tensor.type->dequantize(tensor.bytes.data() + index * row_bytes, tensor.width(), out);
}

}  // namespace quarry
