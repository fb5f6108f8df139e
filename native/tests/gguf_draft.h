// GGUF files written by hand, right or deliberately wrong, and two tiny models made of them.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "gguf.h"

namespace quarry::test {

// A value as the file stores it, behind its type.
struct DraftValue {
    ValueType type;
    std::string bytes;
};

template <class T>
std::string raw(T value) {
    std::string bytes(sizeof value, '\0');
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
}

template <class T>
DraftValue scalar(ValueType type, T value) {
    return {type, raw(value)};
}
DraftValue u32(std::uint32_t value);
DraftValue f32(float value);
DraftValue text(std::string_view value);
// `bytes` are those of the items, `count` what the file says about them.
DraftValue array(ValueType type, std::uint64_t count, std::string_view bytes);

struct DraftKey {
    std::string name;
    DraftValue value;
};

struct DraftTensor {
    std::string name;
    std::vector<std::uint64_t> shape;
    std::uint32_t type;
    std::string bytes;
    std::optional<std::uint64_t> offset;  // what the file says, where it lies
};

struct Draft {
    std::string magic = "GGUF";
    std::uint32_t version = 3;
    std::optional<std::uint64_t> n_tensors, n_keys;  // what the file says, where it lies
    std::vector<DraftKey> keys;
    std::vector<DraftTensor> tensors;
    std::size_t alignment = 32;  // of the data; the key is up to the draft

    DraftKey& key(std::string_view name);
    DraftTensor& tensor(std::string_view name);
    // Header and tensor infos, without the data.
    std::string header() const;
    std::string bytes() const;
};

// The types that matrices may have.
std::vector<const TensorType*> matrix_types();

// `n` weights as the file stores them: blocks of random bytes, of which those are kept whose largest weight
// lies between `largest` / 20 and `largest`.
std::string random_weights(const TensorType& type, std::uint64_t n, float largest, std::mt19937 random);

// One layer, 64 tokens, two heads, width 32 (or one block of `matrix`, the type of the matrices): the
// smallest models that use everything.
Draft tiny_llama(const TensorType& matrix);
Draft tiny_bert(const TensorType& matrix);
// A reranker, and the relatives of bert that are made of other parts.
std::vector<Draft> tiny_encoders(const TensorType& matrix);
// One of each further architecture of decoders, with every key and tensor that it may have.
std::vector<Draft> tiny_decoders(const TensorType& matrix);

// A file that is removed with the object. One a program: programs may run side by side.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::string_view name);
    ~TemporaryFile();
    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    const std::string& path() const { return path_; }
    void write(std::string_view bytes) const;

  private:
    std::string path_;
};

}  // namespace quarry::test
