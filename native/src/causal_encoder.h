// Decoders that turn a token sequence into one vector: Qwen3-Embedding and its relatives. Each sequence is
// read once, from an empty cache; what the last token has become of, or the mean, is the vector.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "backend.h"
#include "decoders/model.h"
#include "pooling.h"

namespace quarry {

class CausalEncoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    CausalEncoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);

    const std::string& architecture() const { return model_.description().architecture; }
    std::size_t vocab_size() const { return model_.description().vocab_size; }
    std::size_t context_length() const;
    std::size_t embedding_length() const { return model_.description().width; }
    std::size_t weight_bytes() const { return model_.weight_bytes(); }
    Pooling pooling() const { return pooling_; }

    // Pooled vectors, [batch.size()][embedding_length]. Throws: std::invalid_argument.
    std::vector<float> encode(std::span<const std::span<const std::int32_t>> batch, bool normalize);

  private:
    // Reads as many sequences from `first` on as make one pass; returns the index behind them.
    std::size_t run_pass(std::span<const std::span<const std::int32_t>> batch, std::size_t first,
                         bool normalize, float* out);

    std::shared_ptr<Backend> backend_;
    DecoderModel model_;
    Pooling pooling_ = Pooling::last;
    std::unique_ptr<KvCache> cache_;
    Buffer pooled_;
};

}  // namespace quarry
