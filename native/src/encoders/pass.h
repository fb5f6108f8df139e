// One run of an encoder over some whole inputs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "model.h"

namespace quarry {

// One input. Models that know two kinds of text (question and passage) are told where the second begins.
struct EncoderInput {
    std::span<const std::int32_t> tokens;
    std::size_t second_text;  // tokens.size() where there is none
};

// Keeps its buffers from run to run. Passes on backends of their own run side by side over one model.
class EncoderPass {
  public:
    // `model` and `backend` outlive it.
    EncoderPass(const EncoderModel& model, Backend& backend);

    // Computes the states of all tokens; what follows reads those of the last run. Throws: std::bad_alloc.
    void run(std::span<const EncoderInput> batch);
    // One vector of an input, [batch.size()][width].
    void pool(float* out);
    // What the head makes of them, [batch.size()][n_scores].
    void score(float* out);

  private:
    void place(std::span<const EncoderInput> batch);
    void embed();
    void run_layer(const EncoderLayer& layer, std::size_t n);
    void attend(const EncoderLayer& layer, std::size_t n);
    void feed_forward(const EncoderLayer& layer, std::size_t n);
    void run_experts(const EncoderLayer& layer, std::size_t n);
    void norm(const EncoderNorm& norm, const Buffer& x, std::size_t n, Buffer& out);
    void norm(const EncoderNorm& norm, Buffer& x, std::size_t n) {
        if (!norm.weight.empty()) this->norm(norm, x, n, x);
    }
    // Leaves one row for each input in pooled_.
    void gather_pooled(Pooling pooling);

    const EncoderModel& model_;
    Backend& backend_;
    Buffer hidden_, input_, queries_, keys_, values_, attended_, gate_, up_;
    std::array<Buffer, 2> angles_;
    Buffer router_, routed_, routed_up_;  // of models with experts
    Routes routes_;
    Buffer pooled_, head_, scores_;
    std::vector<std::size_t> rows_;
    std::vector<std::int32_t> ids_, positions_, types_;
    std::vector<SequenceRows> sequences_;
};

}  // namespace quarry
