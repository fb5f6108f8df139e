// Bidirectional models that turn a token sequence into one vector: bert.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend.h"

namespace quarry {

enum class Pooling : std::uint8_t { mean = 1, cls = 2 };  // as in GGUF files

class Encoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);
    ~Encoder();

    const std::string& architecture() const { return architecture_; }
    std::size_t vocab_size() const { return vocab_size_; }
    std::size_t context_length() const { return context_length_; }
    std::size_t embedding_length() const { return width_; }
    std::size_t weight_bytes() const { return weight_bytes_; }
    Pooling pooling() const { return pooling_; }

    // Pooled vectors, [batch.size()][embedding_length]. Throws: std::invalid_argument.
    std::vector<float> encode(std::span<const std::span<const std::int32_t>> batch, bool normalize);

  private:
    struct Layer {
        Weight query, key, value, attention_output, up, down;
        std::vector<float> attention_norm, attention_norm_bias, output_norm, output_norm_bias;
    };

    Weight load(const std::string& name, std::size_t rows, std::size_t width);
    std::vector<float> load_vector(const std::string& name);
    void load_layer(std::size_t index);
    void encode_part(std::span<const std::span<const std::int32_t>> batch, bool normalize, float* out);
    void embed(std::span<const std::span<const std::int32_t>> batch);
    void run_layer(const Layer& layer, std::size_t n);
    void pool(const SequenceRows& rows, bool normalize, float* out) const;

    std::shared_ptr<const GgufFile> file_;
    std::shared_ptr<Backend> backend_;
    std::string architecture_;
    std::size_t vocab_size_ = 0, context_length_ = 0, width_ = 0, n_layers_ = 0, n_heads_ = 0,
                feed_forward_ = 0;
    std::size_t weight_bytes_ = 0;
    float epsilon_ = 0;
    Pooling pooling_ = Pooling::mean;
    const GgufTensor* token_embeddings_ = nullptr;
    const GgufTensor* position_embeddings_ = nullptr;
    const GgufTensor* type_embeddings_ = nullptr;  // may be absent
    std::vector<float> embedding_norm_, embedding_norm_bias_;
    std::vector<Layer> layers_;

    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
};

}  // namespace quarry
