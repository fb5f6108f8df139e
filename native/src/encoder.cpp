#include "encoder.h"

#include <algorithm>
#include <mutex>
#include <stdexcept>

namespace quarry {

namespace {

// Tokens of one pass: enough to use what is read of the weights, few enough for the activations to stay in
// the caches.
constexpr std::size_t kPassTokens = 256;
// Below this, all threads are quicker together than each on its own.
constexpr std::size_t kLeastTokens = 64;

// The end of each pass. Whole inputs go into passes of about equal size, as many for each thread.
std::vector<std::size_t> cut(std::span<const EncoderInput> batch, std::size_t n_threads) {
    std::size_t total = 0;
    for (const auto& input : batch) total += input.tokens.size();
    const std::size_t rounds = (total + n_threads * kPassTokens - 1) / (n_threads * kPassTokens);
    const std::size_t n_passes =
        total < n_threads * kLeastTokens ? 1 : std::max<std::size_t>(1, rounds * n_threads);
    std::vector<std::size_t> ends;
    std::size_t before = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::size_t middle = before + batch[i].tokens.size() / 2;
        before += batch[i].tokens.size();
        const bool is_last = i + 1 == batch.size();
        const std::size_t next = is_last ? total : before + batch[i + 1].tokens.size() / 2;
        if (is_last || middle * n_passes / total != next * n_passes / total) ends.push_back(i + 1);
    }
    return ends;
}

std::unique_lock<std::mutex> hold(Backend& backend) {
    return std::unique_lock(backend.mutex());
}

}  // namespace

Encoder::Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend)
    : backend_(std::move(backend)),
      model_((hold(*backend_), load_encoder(std::move(file), *backend_))),
      together_(model_, *backend_) {
    for (std::size_t i = 0; i < backend_->n_threads(); ++i) {
        Lane lane{std::make_unique<Backend>(1, backend_->instruction_set()), nullptr};
        lane.pass = std::make_unique<EncoderPass>(model_, *lane.backend);
        lanes_.push_back(std::move(lane));
    }
}

void Encoder::check(std::span<const EncoderInput> batch) const {
    for (std::size_t i = 0; i < batch.size(); ++i)
        check_sequence(batch[i].tokens, i, model_.context_length, model_.vocab_size);
}

std::vector<float> Encoder::encode(std::span<const std::span<const std::int32_t>> batch, bool normalize) {
    if (model_.pooling == Pooling::rank) {
        throw std::invalid_argument("the model ranks pairs of texts; it has no vectors of single ones");
    }
    std::vector<EncoderInput> inputs;
    for (const auto& tokens : batch) inputs.push_back({tokens, tokens.size()});
    check(inputs);
    const std::size_t width = model_.width;
    std::vector<float> out(batch.size() * width);
    run(inputs, [&](EncoderPass& pass, std::size_t first, std::size_t n) {
        float* vectors = out.data() + first * width;
        pass.pool(vectors);
        for (std::size_t i = 0; normalize && i < n; ++i) scale_to_one({vectors + i * width, width});
    });
    return out;
}

std::vector<float> Encoder::score(std::span<const EncoderInput> batch) {
    if (n_scores() == 0) {
        throw std::invalid_argument(
            "the model has no head that scores: tensor 'cls.output.weight' is missing");
    }
    check(batch);
    std::vector<float> out(batch.size() * n_scores());
    run(batch, [&](EncoderPass& pass, std::size_t first, std::size_t) {
        pass.score(out.data() + first * n_scores());
    });
    return out;
}

// Threads that wait for one another after every operation lose a quarter of their time with short passages;
// so each runs passes of its own, and only those left over are run by all together.
template <class Finish>
void Encoder::run(std::span<const EncoderInput> batch, const Finish& finish) {
    const auto lock = hold(*backend_);
    const std::vector<std::size_t> ends = cut(batch, lanes_.size());
    const auto run_pass = [&](EncoderPass& pass, std::size_t index) {
        const std::size_t first = index == 0 ? 0 : ends[index - 1];
        const std::size_t n = ends[index] - first;
        pass.run(batch.subspan(first, n));
        finish(pass, first, n);
    };
    // Who observes the products hears of one after the other.
    const std::size_t n_apart = backend_->is_observed() ? 0 : ends.size() / lanes_.size() * lanes_.size();
    backend_->each_apart(
        n_apart, [&](std::size_t index, std::size_t thread) { run_pass(*lanes_[thread].pass, index); });
    for (std::size_t index = n_apart; index < ends.size(); ++index) run_pass(together_, index);
}

}  // namespace quarry
