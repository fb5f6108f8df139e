// Causal language models: batches of sequences through a DecoderModel, and tokens drawn from its logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend.h"
#include "decoders/model.h"
#include "sequence.h"

namespace quarry {

class CacheFull : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct BatchEntry {
    Sequence* sequence;
    std::span<const std::int32_t> tokens;
    // Tokens to draw: 0, or 1 after the last token. With more, the last n_outputs - 1 tokens are a guess:
    // each stays as long as the draw before it agrees, and the first draw that does not ends the guess.
    std::size_t n_outputs;
};

class Decoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    Decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend, std::size_t cache_tokens,
            CacheType cache_type = CacheType::f16);

    const std::string& architecture() const { return model_.description().architecture; }
    std::size_t vocab_size() const { return model_.description().vocab_size; }
    std::size_t context_length() const { return model_.description().context_length; }
    std::size_t embedding_length() const { return model_.description().width; }
    std::size_t weight_bytes() const { return model_.weight_bytes(); }
    // Whether sequences carry a state: nothing is shared, restored or guessed then.
    bool is_recurrent() const { return model_.is_recurrent(); }
    const KvCache& cache() const { return *cache_; }
    PrefixTree& prefixes() { return *prefixes_; }
    const PrefixTree& prefixes() const { return *prefixes_; }

    // Sequences of a tenant share the blocks of equal beginnings; without one, a sequence shares nothing.
    // Throws: std::invalid_argument.
    std::unique_ptr<Sequence> new_sequence(SamplingParams params, std::optional<std::string> tenant) const;
    // One forward pass over all tokens; the tokens drawn for each entry: one more than it guessed right.
    // Throws: CacheFull, std::invalid_argument; then nothing has changed.
    std::vector<std::vector<SampledToken>> step(std::span<const BatchEntry> batch);
    // [tokens.size()][vocab_size]
    std::vector<float> logits(std::span<const std::int32_t> tokens);
    // Logarithms of the probabilities of tokens[first + 1 ..], each after those before it.
    std::vector<float> next_logprobs(std::span<const std::int32_t> tokens, std::size_t first);

  private:
    // Calls each(position, logits) after the tokens from `first` on.
    template <class Each>
    void each_logits(std::span<const std::int32_t> tokens, std::size_t first, const Each& each);
    void check(std::span<const BatchEntry> batch) const;
    // Takes cache blocks and runs the model; the logits of the rows `outputs`, valid until the next call.
    const Buffer& forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs);
    // Draws from the rows of `logits` from `first` on, and takes back what was guessed wrong.
    std::vector<SampledToken> draw(const BatchEntry& entry, const Buffer& logits, std::size_t first);

    std::shared_ptr<Backend> backend_;
    DecoderModel model_;
    std::shared_ptr<KvCache> cache_;
    std::shared_ptr<PrefixTree> prefixes_;
    // Of the batch at work.
    std::vector<SequenceRows> sequences_;
    std::vector<std::int32_t> ids_;
    std::vector<float> logits_;  // [vocab_size], that are drawn from
};

}  // namespace quarry
