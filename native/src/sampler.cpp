#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace quarry {

namespace {

constexpr std::int32_t kMostLogprobs = 20;

// A token this far below the best in natural logarithms of probability is never drawn: e^-30 is 1e-13.
constexpr float kNegligible = 30.0f;

void check_range(const char* name, double value, double min, double max) {
    if (value >= min && value <= max) return;
    throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) + "; allowed are " +
                                std::to_string(min) + " to " + std::to_string(max));
}

float log_sum_exp(std::span<const float> logits) {
    const float top = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float logit : logits) sum += std::exp(logit - top);
    return top + static_cast<float>(std::log(sum));
}

bool by_weight(float a, std::int32_t id_a, float b, std::int32_t id_b) {
    return a > b || (a == b && id_a < id_b);
}

std::vector<std::pair<std::int32_t, float>> most_likely(std::span<const float> logits, std::size_t n,
                                                        float log_total) {
    std::vector<std::pair<std::int32_t, float>> all(logits.size());
    for (std::size_t i = 0; i < all.size(); ++i)
        all[i] = {static_cast<std::int32_t>(i), logits[i] - log_total};
    n = std::min(n, all.size());
    std::partial_sort(
        all.begin(), all.begin() + static_cast<std::ptrdiff_t>(n), all.end(),
        [](const auto& a, const auto& b) { return by_weight(a.second, a.first, b.second, b.first); });
    all.resize(n);
    return all;
}

}  // namespace

void SamplingParams::check() const {
    constexpr double kAny = 1e6;
    check_range("temperature", temperature, 0, 100);
    check_range("top_k", top_k, 0, kAny);
    check_range("top_p", top_p, 0, 1);
    check_range("min_p", min_p, 0, 1);
    check_range("repetition_penalty", repetition_penalty, 0.01, 100);
    check_range("frequency_penalty", frequency_penalty, -100, 100);
    check_range("presence_penalty", presence_penalty, -100, 100);
    check_range("penalty_window", penalty_window, -1, kAny);
    check_range("n_logprobs", n_logprobs, -1, kMostLogprobs);
    for (const auto& [id, bias] : logit_bias) check_range("logit_bias", bias, -kAny, kAny);
}

Sampler::Sampler(SamplingParams params) : params_(std::move(params)), random_(params_.seed) {}

SampledToken Sampler::sample(std::span<float> logits) {
    if (!n_prompt_) n_prompt_ = history_.size();
    SampledToken token{0, std::nullopt, {}};
    float log_total = 0;
    std::vector<float> raw;
    if (params_.n_logprobs >= 0) {
        log_total = log_sum_exp(logits);
        raw.assign(logits.begin(), logits.end());
        if (params_.n_logprobs > 0) {
            token.top_logprobs = most_likely(logits, static_cast<std::size_t>(params_.n_logprobs), log_total);
        }
    }
    penalize(logits);
    token.id = draw(logits);
    if (params_.n_logprobs >= 0) token.logprob = raw[static_cast<std::size_t>(token.id)] - log_total;
    history_.push_back(token.id);
    return token;
}

void Sampler::penalize(std::span<float> logits) const {
    for (const auto& [id, bias] : params_.logit_bias) logits[static_cast<std::size_t>(id)] += bias;
    if (!mask_.empty()) {
        for (std::size_t i = 0; i < logits.size(); ++i) {
            if ((mask_[i / 32] >> (i % 32) & 1u) == 0) logits[i] = -std::numeric_limits<float>::infinity();
        }
    }
    const bool repeats = params_.repetition_penalty != 1.0f;
    const bool counts = params_.frequency_penalty != 0.0f || params_.presence_penalty != 0.0f;
    if (!repeats && !counts) return;
    const std::size_t window =
        params_.penalty_window < 0
            ? history_.size()
            : std::min(history_.size(), static_cast<std::size_t>(params_.penalty_window));
    std::unordered_map<std::int32_t, std::uint32_t> seen;  // times generated; 0 if only in the prompt
    for (std::size_t i = history_.size() - window; i < history_.size(); ++i)
        seen[history_[i]] += i >= *n_prompt_;
    for (const auto& [id, times] : seen) {
        float& logit = logits[static_cast<std::size_t>(id)];
        logit = logit > 0 ? logit / params_.repetition_penalty : logit * params_.repetition_penalty;
        if (times > 0)
            logit -= params_.frequency_penalty * static_cast<float>(times) + params_.presence_penalty;
    }
}

std::int32_t Sampler::draw(std::span<const float> logits) {
    const auto best = std::max_element(logits.begin(), logits.end());
    if (params_.temperature == 0.0f || !std::isfinite(*best)) {
        return static_cast<std::int32_t>(best - logits.begin());
    }
    candidates_.clear();
    const float floor = *best - kNegligible * params_.temperature;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        if (logits[i] >= floor) candidates_.push_back({static_cast<std::int32_t>(i), logits[i]});
    }
    if (params_.top_k > 0 || params_.top_p < 1.0f) {
        const std::size_t keep =
            params_.top_k > 0 ? std::min<std::size_t>(params_.top_k, candidates_.size()) : candidates_.size();
        std::partial_sort(
            candidates_.begin(), candidates_.begin() + static_cast<std::ptrdiff_t>(keep), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return by_weight(a.weight, a.id, b.weight, b.id); });
        candidates_.resize(keep);
    }
    float total = 0;
    for (auto& candidate : candidates_) {
        candidate.weight = std::exp((candidate.weight - *best) / params_.temperature);
        total += candidate.weight;
    }
    if (params_.top_p < 1.0f) cut_to_top_p(total);
    // Weights are relative to the best one, which has weight 1.
    std::erase_if(candidates_, [&](const Candidate& candidate) { return candidate.weight < params_.min_p; });
    total = 0;
    for (const auto& candidate : candidates_) total += candidate.weight;
    float at = static_cast<float>(static_cast<double>(random_() >> 11) * 0x1p-53) * total;
    for (const auto& candidate : candidates_) {
        at -= candidate.weight;
        if (at < 0) return candidate.id;
    }
    return candidates_.back().id;
}

void Sampler::cut_to_top_p(float total) {
    float sum = 0;
    std::size_t keep = 0;
    while (keep < candidates_.size()) {
        sum += candidates_[keep++].weight;
        if (sum >= params_.top_p * total) break;
    }
    candidates_.resize(keep);
}

}  // namespace quarry
