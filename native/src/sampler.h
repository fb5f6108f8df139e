// Draws the next token of one sequence from its logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

namespace quarry {

struct SamplingParams {
    float temperature = 1.0f;  // 0: greedy
    std::uint32_t top_k = 0;   // 0: off
    float top_p = 1.0f;        // 1: off
    float min_p = 0.0f;        // 0: off
    float repetition_penalty = 1.0f;
    float frequency_penalty = 0.0f;
    float presence_penalty = 0.0f;
    std::int32_t penalty_window = 64;  // tokens looked back at; 0: none, -1: all
    std::uint64_t seed = 0;
    std::unordered_map<std::int32_t, float> logit_bias;
    std::int32_t n_logprobs = -1;  // -1: none; 0: of the drawn token; n: also the n most likely

    // Throws: std::invalid_argument naming the field, its value and its range.
    void check() const;
};

struct SampledToken {
    std::int32_t id;
    std::optional<float> logprob;
    std::vector<std::pair<std::int32_t, float>> top_logprobs;  // most likely first
};

class Sampler {
  public:
    explicit Sampler(SamplingParams params);

    // Tells of a token that was fed: prompt until the first draw, drawn tokens are recorded by sample().
    void accept_prompt(std::int32_t id) { history_.push_back(id); }
    // Tells that the prompt will be fed again; once something was drawn, what was fed stays known.
    void forget_undrawn() {
        if (!has_drawn()) history_.clear();
    }
    bool has_drawn() const { return n_prompt_.has_value(); }
    // Only tokens with their bit set are drawn; empty lifts the restriction.
    void set_mask(std::vector<std::uint32_t> allowed) { mask_ = std::move(allowed); }

    // `logits` are changed.
    SampledToken sample(std::span<float> logits);

  private:
    void penalize(std::span<float> logits) const;
    std::int32_t draw(std::span<const float> logits);
    void cut_to_top_p(float total);

    struct Candidate {
        std::int32_t id;
        float weight;
    };

    SamplingParams params_;
    std::mt19937_64 random_;
    std::vector<std::int32_t> history_;    // prompt, then drawn tokens
    std::optional<std::size_t> n_prompt_;  // set by the first draw
    std::vector<std::uint32_t> mask_;
    std::vector<Candidate> candidates_;
};

}  // namespace quarry
