// What is drawn, how often, and that the same seed draws the same.
#include <cmath>
#include <limits>
#include <map>

#include "check.h"
#include "sampler.h"

namespace quarry::test {

namespace {

const std::vector<float> kLogits = {1.0f, 3.0f, 2.0f, -1.0f, 0.5f, 2.9f, -4.0f, 0.0f};

std::vector<double> probabilities(const std::vector<float>& logits, double temperature) {
    std::vector<double> p;
    double total = 0;
    for (const float x : logits) total += p.emplace_back(std::exp(x / temperature));
    for (auto& x : p) x /= total;
    return p;
}

// How often each token comes in `n` draws; penalties see nothing of one another's draws.
std::vector<double> frequencies(const SamplingParams& params, int n = 20000) {
    Sampler sampler(params);
    std::vector<double> share(kLogits.size());
    for (int i = 0; i < n; ++i) {
        auto logits = kLogits;
        share[static_cast<std::size_t>(sampler.sample(logits).id)] += 1.0 / n;
    }
    return share;
}

// Frequencies of 20,000 draws with a fixed seed lie within 2 % of their probabilities.
void check_close(const std::vector<double>& share, const std::vector<double>& expected, const char* what) {
    for (std::size_t i = 0; i < share.size(); ++i) {
        CHECK(std::fabs(share[i] - expected[i]) < 0.02, std::string(what) + " token " + std::to_string(i) +
                                                            ": " + std::to_string(share[i]) + ", not " +
                                                            std::to_string(expected[i]));
        CHECK(expected[i] > 0 || share[i] == 0, std::string(what) + " drew " + std::to_string(i));
    }
}

// Probabilities of the tokens `kept`, the others cut off.
std::vector<double> only(std::initializer_list<std::size_t> kept) {
    const auto all = probabilities(kLogits, 1);
    double total = 0;
    for (const auto i : kept) total += all[i];
    std::vector<double> p(all.size());
    for (const auto i : kept) p[i] = all[i] / total;
    return p;
}

std::int32_t greedy(SamplingParams params, std::vector<float> logits, std::vector<std::int32_t> prompt = {}) {
    params.temperature = 0;
    Sampler sampler(std::move(params));
    for (const auto id : prompt) sampler.accept_prompt(id);
    return sampler.sample(logits).id;
}

void greedy_takes_the_best() {
    CHECK(greedy({}, kLogits) == 1);
    CHECK(greedy({}, {2, 5, 5, 1}) == 1, "the first of equals");
    CHECK(greedy({}, {-std::numeric_limits<float>::infinity(), -3}) == 1);
    CHECK(greedy({}, {7}) == 0);
}

void draws_follow_the_distribution() {
    SamplingParams params;
    check_close(frequencies(params), probabilities(kLogits, 1), "temperature 1");
    params.temperature = 2;
    check_close(frequencies(params), probabilities(kLogits, 2), "temperature 2");
    params.temperature = 0.01f;
    CHECK(frequencies(params)[1] > 0.99);
    SamplingParams top_k;
    top_k.top_k = 2;
    check_close(frequencies(top_k), only({1, 5}), "top_k 2");
    top_k.top_k = 1000;
    check_close(frequencies(top_k), probabilities(kLogits, 1), "top_k beyond the vocabulary");
    // Token 1 has 0.39 and token 5 has 0.35 of the probability.
    SamplingParams top_p;
    top_p.top_p = 0.3f;
    check_close(frequencies(top_p), only({1}), "top_p 0.3");
    top_p.top_p = 0.5f;
    check_close(frequencies(top_p), only({1, 5}), "top_p 0.5");
    top_p.top_p = 0;
    check_close(frequencies(top_p), only({1}), "top_p 0");
    // e^-1 = 0.37 of the best one's probability is token 2's.
    SamplingParams min_p;
    min_p.min_p = 0.35f;
    check_close(frequencies(min_p), only({1, 2, 5}), "min_p 0.35");
    min_p.min_p = 1;
    check_close(frequencies(min_p), only({1}), "min_p 1");
}

void penalties_look_back() {
    SamplingParams repetition;
    repetition.repetition_penalty = 1.2f;
    CHECK(greedy(repetition, kLogits, {1}) == 5, "the prompt counts for repetition");
    CHECK(greedy(repetition, {-1.0f, -1.1f}, {0}) == 1, "negative logits are multiplied");
    SamplingParams presence;
    presence.presence_penalty = 5;
    CHECK(greedy(presence, kLogits, {1}) == 1, "the prompt does not count for presence");
    SamplingParams window = repetition;
    window.penalty_window = 1;
    CHECK(greedy(window, kLogits, {1, 3}) == 1, "beyond the window");
    window.penalty_window = 0;
    CHECK(greedy(window, kLogits, {1}) == 1, "no window");
    window.penalty_window = -1;
    CHECK(greedy(window, kLogits, std::vector<std::int32_t>(500, 1)) == 5, "all is window");

    SamplingParams frequency;
    frequency.temperature = 0;
    frequency.frequency_penalty = 0.06f;
    frequency.penalty_window = -1;
    Sampler sampler(frequency);
    std::vector<std::int32_t> drawn;
    for (int i = 0; i < 4; ++i) {
        auto logits = kLogits;
        drawn.push_back(sampler.sample(logits).id);
    }
    // 3 and 2.9: twice the penalty of 0.06 puts the first one behind.
    CHECK((drawn == std::vector<std::int32_t>{1, 1, 5, 1}));
}

void bias_and_mask() {
    SamplingParams bias;
    bias.logit_bias = {{6, 100}, {1, -100}};
    CHECK(greedy(bias, kLogits) == 6);
    bias.temperature = 1;
    CHECK(frequencies(bias, 100)[6] > 0.999);
    for (const float temperature : {0.0f, 1.0f}) {
        SamplingParams params;
        params.temperature = temperature;
        Sampler sampler(params);
        sampler.set_mask({0b1001'1000});
        for (int i = 0; i < 200; ++i) {
            auto logits = kLogits;
            const auto id = sampler.sample(logits).id;
            CHECK(temperature == 0 ? id == 4 : (id == 3 || id == 4 || id == 7), std::to_string(id));
        }
        sampler.set_mask({});
        params.temperature = 0;
        auto logits = kLogits;
        CHECK(temperature != 0 || sampler.sample(logits).id == 1, "the mask is lifted");
    }
}

std::vector<std::int32_t> draw(std::uint64_t seed) {
    SamplingParams params;
    params.seed = seed;
    Sampler sampler(params);
    std::vector<std::int32_t> ids;
    for (int i = 0; i < 64; ++i) {
        auto logits = kLogits;
        ids.push_back(sampler.sample(logits).id);
    }
    return ids;
}

void seeds_repeat() {
    CHECK(draw(7) == draw(7));
    CHECK(draw(7) != draw(8));
    CHECK(draw(0) == draw(0));
    CHECK(draw(~std::uint64_t{0}) == draw(~std::uint64_t{0}));
}

void logprobs_are_of_the_model() {
    const auto p = probabilities(kLogits, 1);
    SamplingParams params;
    params.temperature = 0;
    params.logit_bias = {{1, -100}};  // shows in what is drawn, not in what the model thought
    params.n_logprobs = static_cast<std::int32_t>(kLogits.size());
    Sampler sampler(params);
    auto logits = kLogits;
    const SampledToken token = sampler.sample(logits);
    CHECK(token.id == 5 && std::fabs(*token.logprob - std::log(p[5])) < 1e-5);
    double total = 0;
    float before = 0;
    for (const auto& [id, logprob] : token.top_logprobs) {
        CHECK(std::fabs(logprob - std::log(p[static_cast<std::size_t>(id)])) < 1e-5);
        CHECK(logprob <= before);
        before = logprob;
        total += std::exp(logprob);
    }
    CHECK(token.top_logprobs.size() == kLogits.size() && std::fabs(total - 1) < 1e-5);
    CHECK(token.top_logprobs[0].first == 1);
    params.n_logprobs = 0;
    auto again = kLogits;
    const SampledToken alone = Sampler(params).sample(again);
    CHECK(alone.logprob.has_value() && alone.top_logprobs.empty());
    params.n_logprobs = -1;
    CHECK(!Sampler(params).sample(again).logprob.has_value());
}

// Broken weights give broken logits; what is drawn is still a token.
void broken_logits_draw_a_token() {
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const float infinity = std::numeric_limits<float>::infinity();
    for (std::vector<float> logits : {std::vector<float>(8, nan),
                                      std::vector<float>(8, -infinity),
                                      std::vector<float>(8, infinity),
                                      {nan, 1, 2, nan, 3, nan, -infinity, 4},
                                      {1, nan, infinity, nan, -infinity, 2, nan, 0}}) {
        for (const float temperature : {0.0f, 1.0f}) {
            for (const std::uint32_t top_k : {0u, 3u}) {
                SamplingParams params;
                params.temperature = temperature;
                params.top_k = top_k;
                params.top_p = 0.9f;
                params.repetition_penalty = 1.1f;
                params.n_logprobs = 5;
                auto copy = logits;
                const auto id = Sampler(params).sample(copy).id;
                CHECK(id >= 0 && id < 8, std::to_string(id));
            }
        }
    }
}

void ranges_are_checked() {
    const auto checked = [](auto change) {
        SamplingParams params;
        change(params);
        params.check();
    };
    const float nan = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS(checked([](auto& p) { p.temperature = -1; }), std::invalid_argument, "temperature is -1");
    CHECK_THROWS(checked([&](auto& p) { p.temperature = nan; }), std::invalid_argument, "temperature");
    CHECK_THROWS(checked([](auto& p) { p.top_p = 1.1f; }), std::invalid_argument, "top_p");
    CHECK_THROWS(checked([](auto& p) { p.min_p = -0.1f; }), std::invalid_argument, "min_p");
    CHECK_THROWS(checked([](auto& p) { p.top_k = ~0u; }), std::invalid_argument, "top_k");
    CHECK_THROWS(checked([](auto& p) { p.repetition_penalty = 0; }), std::invalid_argument, "repetition");
    CHECK_THROWS(checked([](auto& p) { p.frequency_penalty = 101; }), std::invalid_argument, "frequency");
    CHECK_THROWS(checked([](auto& p) { p.presence_penalty = -101; }), std::invalid_argument, "presence");
    CHECK_THROWS(checked([](auto& p) { p.penalty_window = -2; }), std::invalid_argument, "penalty_window");
    CHECK_THROWS(checked([](auto& p) { p.n_logprobs = 21; }), std::invalid_argument, "n_logprobs is 21");
    CHECK_THROWS(checked([&](auto& p) { p.logit_bias = {{0, nan}}; }), std::invalid_argument, "logit_bias");
}

}  // namespace

}  // namespace quarry::test

int main() {
    using namespace quarry::test;
    greedy_takes_the_best();
    draws_follow_the_distribution();
    penalties_look_back();
    bias_and_mask();
    seeds_repeat();
    logprobs_are_of_the_model();
    broken_logits_draw_a_token();
    ranges_are_checked();
    return report("sampler");
}
