// Causal language models: llama and its relatives that differ by biases, norms and the order of rotary pairs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "sampler.h"

namespace quarry {

class CacheFull : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

// One sequence's place in the cache, with its sampler.
class Sequence {
  public:
    Sequence(std::shared_ptr<KvCache> cache, std::size_t vocab_size, SamplingParams params)
        : sampler(std::move(params)), cache_(std::move(cache)), vocab_size_(vocab_size) {}
    ~Sequence() { release(); }
    Sequence(const Sequence&) = delete;
    Sequence& operator=(const Sequence&) = delete;

    std::size_t n_cached() const { return n_cached_; }
    std::span<const BlockId> blocks() const { return blocks_; }
    std::size_t blocks_missing(std::size_t n_tokens) const;
    // Takes the blocks for n_tokens more; the caller has checked that they are there.
    void extend(std::size_t n_tokens);
    void release();
    // Restricts the next draws to tokens whose bit is set; empty lifts it.
    // Throws: std::invalid_argument where the mask is not as long as the vocabulary.
    void set_mask(std::vector<std::uint32_t> allowed);

    Sampler sampler;

  private:
    std::shared_ptr<KvCache> cache_;
    std::size_t vocab_size_;
    std::vector<BlockId> blocks_;
    std::size_t n_cached_ = 0;
};

struct BatchEntry {
    Sequence* sequence;
    std::span<const std::int32_t> tokens;
    bool sample;
};

class Decoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    Decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend, std::size_t cache_tokens);

    const std::string& architecture() const { return architecture_; }
    std::size_t vocab_size() const { return vocab_size_; }
    std::size_t context_length() const { return context_length_; }
    std::size_t embedding_length() const { return width_; }
    std::size_t weight_bytes() const { return weight_bytes_; }
    const KvCache& cache() const { return *cache_; }

    std::unique_ptr<Sequence> new_sequence(SamplingParams params) const;
    // One forward pass over all tokens; the sampled token of each entry that asks for one.
    // Throws: CacheFull, std::invalid_argument; then nothing has changed.
    std::vector<std::optional<SampledToken>> step(std::span<const BatchEntry> batch);
    // [tokens.size()][vocab_size]
    std::vector<float> logits(std::span<const std::int32_t> tokens);

  private:
    struct Layer {
        std::vector<float> attention_norm, query_norm, key_norm, feed_forward_norm;
        Weight query, key, value, attention_output, gate, up, down;
    };

    void load_layer(std::size_t index, RowOrder order);
    Weight load(const std::string& name, std::size_t rows, std::size_t width,
                RowOrder order = RowOrder::halves, std::size_t n_rotated = 0);
    std::vector<float> load_norm(const std::string& name, std::size_t width, bool required);
    void load_frequencies();
    void check(std::span<const BatchEntry> batch) const;
    // Runs the layers over the batch; leaves the rows `outputs` as logits in logits_.
    void forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs);
    void run_layer(const Layer& layer, std::size_t index, std::size_t n,
                   std::span<const SequenceRows> sequences);

    std::shared_ptr<const GgufFile> file_;
    std::shared_ptr<Backend> backend_;
    std::string architecture_;
    std::size_t vocab_size_ = 0, context_length_ = 0, width_ = 0, n_layers_ = 0, n_heads_ = 0,
                n_kv_heads_ = 0;
    std::size_t head_dim_ = 0, n_rotated_ = 0, feed_forward_ = 0, weight_bytes_ = 0;
    float epsilon_ = 0;
    std::vector<double> frequencies_;  // [n_rotated / 2], radians per position
    double rotary_magnitude_ = 1;
    const GgufTensor* embeddings_ = nullptr;
    std::vector<Layer> layers_;
    std::vector<float> output_norm_;
    Weight output_;
    std::shared_ptr<KvCache> cache_;

    struct Buffers;
    std::unique_ptr<Buffers> buffers_;

  public:
    ~Decoder();
};

}  // namespace quarry
