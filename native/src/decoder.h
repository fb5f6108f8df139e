// Causal language models: batches of sequences through a DecoderModel, and tokens drawn from its logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "decoders/model.h"
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

    const std::string& architecture() const { return model_.description().architecture; }
    std::size_t vocab_size() const { return model_.description().vocab_size; }
    std::size_t context_length() const { return model_.description().context_length; }
    std::size_t embedding_length() const { return model_.description().width; }
    std::size_t weight_bytes() const { return model_.weight_bytes(); }
    const KvCache& cache() const { return *cache_; }

    std::unique_ptr<Sequence> new_sequence(SamplingParams params) const;
    // One forward pass over all tokens; the sampled token of each entry that asks for one.
    // Throws: CacheFull, std::invalid_argument; then nothing has changed.
    std::vector<std::optional<SampledToken>> step(std::span<const BatchEntry> batch);
    // [tokens.size()][vocab_size]
    std::vector<float> logits(std::span<const std::int32_t> tokens);

  private:
    void check(std::span<const BatchEntry> batch) const;
    // Takes cache blocks and runs the model; the logits of the rows `outputs`, valid until the next call.
    const Buffer& forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs);

    std::shared_ptr<Backend> backend_;
    DecoderModel model_;
    std::shared_ptr<KvCache> cache_;
    // Of the batch at work.
    std::vector<SequenceRows> sequences_;
    std::vector<std::int32_t> ids_;
};

}  // namespace quarry
