// Bidirectional models that turn a token sequence into one vector, or into scores by a head on top: bert and
// its relatives that differ by positions, gates and norms.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "encoders/model.h"
#include "encoders/pass.h"

namespace quarry {

class Encoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);

    const std::string& architecture() const { return model_.architecture; }
    std::size_t vocab_size() const { return model_.vocab_size; }
    std::size_t context_length() const { return model_.context_length; }
    std::size_t embedding_length() const { return model_.width; }
    std::size_t weight_bytes() const { return model_.weight_bytes; }
    Pooling pooling() const { return model_.pooling; }
    // Scores that the head gives, 0 where the file has none.
    std::size_t n_scores() const { return model_.n_scores(); }

    // Pooled vectors, [batch.size()][embedding_length]. Throws: std::invalid_argument.
    std::vector<float> encode(std::span<const std::span<const std::int32_t>> batch, bool normalize);
    // What the head makes of the first token, [batch.size()][n_scores]. Throws: std::invalid_argument.
    std::vector<float> score(std::span<const EncoderInput> batch);

  private:
    // One thread's own means to run passes.
    struct Lane {
        std::unique_ptr<Backend> backend;
        std::unique_ptr<EncoderPass> pass;
    };

    void check(std::span<const EncoderInput> batch) const;
    // Runs the model over the batch and calls finish(pass, index of its first input, inputs) for each pass,
    // on several threads at once.
    template <class Finish>
    void run(std::span<const EncoderInput> batch, const Finish& finish);

    std::shared_ptr<Backend> backend_;
    EncoderModel model_;
    EncoderPass together_;  // on all threads
    std::vector<Lane> lanes_;
};

}  // namespace quarry
