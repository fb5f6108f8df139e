#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace quarry {

namespace {

constexpr std::size_t kLogitRows = 256;  // of one pass of logits()

}  // namespace

Decoder::Decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                 std::size_t cache_tokens, CacheType cache_type)
    : backend_(backend), model_(std::move(file), std::move(backend), cache_tokens) {
    const Description& d = model_.description();
    cache_ = std::make_shared<KvCache>(model_.n_cached_layers(), d.n_kv_heads, d.head_dim,
                                       (cache_tokens + kKeysPerBlock - 1) / kKeysPerBlock, cache_type);
    prefixes_ = std::make_shared<PrefixTree>(cache_);
    logits_.resize(vocab_size());
}

std::unique_ptr<Sequence> Decoder::new_sequence(SamplingParams params,
                                                std::optional<std::string> tenant) const {
    params.check();
    for (const auto& [id, bias] : params.logit_bias) {
        if (id < 0 || static_cast<std::size_t>(id) >= vocab_size()) {
            throw std::invalid_argument("logit_bias names token " + std::to_string(id) +
                                        "; the vocabulary has " + std::to_string(vocab_size()));
        }
    }
    // A state has no beginning that could be shared.
    if (model_.is_recurrent()) tenant.reset();
    auto sequence = std::make_unique<Sequence>(prefixes_, vocab_size(), std::move(params), std::move(tenant));
    sequence->is_recurrent = model_.is_recurrent();
    return sequence;
}

void Decoder::check(std::span<const BatchEntry> batch) const {
    std::set<const Sequence*> seen;
    std::size_t missing = 0;
    for (const auto& entry : batch) {
        if (entry.tokens.empty()) throw std::invalid_argument("a sequence of the batch has no tokens");
        if (entry.n_outputs > entry.tokens.size()) {
            throw std::invalid_argument("a sequence of the batch has " + std::to_string(entry.tokens.size()) +
                                        " tokens and asks for " + std::to_string(entry.n_outputs) + " draws");
        }
        if (entry.n_outputs > 1 && model_.is_recurrent())
            throw std::invalid_argument(
                "a sequence of the batch has guesses; this model cannot take them back");
        if (!seen.insert(entry.sequence).second)
            throw std::invalid_argument("a sequence occurs twice in the batch");
        const std::size_t length = entry.sequence->n_cached() + entry.tokens.size();
        if (length > context_length()) {
            throw std::invalid_argument("a sequence has " + std::to_string(length) +
                                        " tokens; the model reads at most " +
                                        std::to_string(context_length()));
        }
        for (const auto id : entry.tokens) {
            if (id < 0 || static_cast<std::size_t>(id) >= vocab_size()) {
                throw std::invalid_argument("token " + std::to_string(id) + " is outside the vocabulary of " +
                                            std::to_string(vocab_size()));
            }
        }
        missing += entry.sequence->blocks_missing(entry.tokens.size());
    }
    if (missing > prefixes_->n_available()) {
        throw CacheFull("the step needs " + std::to_string(missing) + " cache blocks; " +
                        std::to_string(prefixes_->n_available()) + " of " +
                        std::to_string(cache_->n_blocks()) + " are free");
    }
}

const Buffer& Decoder::forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs) {
    sequences_.clear();
    ids_.clear();
    for (const auto& entry : batch) {
        const std::size_t first_position = entry.sequence->n_cached();
        entry.sequence->extend(entry.tokens);
        sequences_.push_back({ids_.size(), entry.tokens.size(), first_position, entry.sequence->blocks(),
                              &entry.sequence->state});
        ids_.insert(ids_.end(), entry.tokens.begin(), entry.tokens.end());
    }
    return model_.forward(ids_, sequences_, outputs, *cache_);
}

std::vector<std::vector<SampledToken>> Decoder::step(std::span<const BatchEntry> batch) {
    const std::lock_guard lock(backend_->mutex());
    check(batch);
    std::vector<std::size_t> outputs;
    std::size_t row = 0;
    for (const auto& entry : batch) {
        row += entry.tokens.size();
        for (std::size_t i = entry.n_outputs; i > 0; --i) outputs.push_back(row - i);
    }
    const Buffer& logits = forward(batch, outputs);
    std::vector<std::vector<SampledToken>> drawn;
    std::size_t first = 0;
    for (const auto& entry : batch) {
        drawn.push_back(draw(entry, logits, first));
        first += entry.n_outputs;
    }
    return drawn;
}

std::vector<SampledToken> Decoder::draw(const BatchEntry& entry, const Buffer& logits, std::size_t first) {
    Sampler& sampler = entry.sequence->sampler;
    const std::size_t n_guessed = entry.n_outputs > 1 ? entry.n_outputs - 1 : 0;
    const auto given = entry.tokens.first(entry.tokens.size() - n_guessed);
    const auto guessed = entry.tokens.last(n_guessed);
    if (!sampler.has_drawn()) {
        for (const auto id : given) sampler.accept_prompt(id);
    }
    std::vector<SampledToken> drawn;
    for (std::size_t i = 0; i < entry.n_outputs; ++i) {
        backend_->read(logits, first + i, logits_.data());
        drawn.push_back(sampler.sample(logits_));
        if (i < n_guessed && drawn.back().id != guessed[i]) break;
    }
    if (n_guessed > 0) entry.sequence->shorten(entry.n_outputs - drawn.size());
    entry.sequence->share();
    return drawn;
}

template <class Each>
void Decoder::each_logits(std::span<const std::int32_t> tokens, std::size_t first, const Each& each) {
    const std::lock_guard lock(backend_->mutex());
    Sequence sequence(prefixes_, vocab_size(), {}, std::nullopt);
    std::vector<float> values(vocab_size());
    for (std::size_t at = 0; at < tokens.size(); at += kLogitRows) {
        const auto slice = tokens.subspan(at, std::min(kLogitRows, tokens.size() - at));
        const BatchEntry entry{&sequence, slice, 0};
        check({&entry, 1});
        std::vector<std::size_t> rows;
        for (std::size_t i = first > at ? first - at : 0; i < slice.size(); ++i) rows.push_back(i);
        const Buffer& slice_logits = forward({&entry, 1}, rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            backend_->read(slice_logits, i, values.data());
            each(at + rows[i], values);
        }
    }
}

std::vector<float> Decoder::logits(std::span<const std::int32_t> tokens) {
    std::vector<float> all(tokens.size() * vocab_size());
    each_logits(tokens, 0, [&](std::size_t position, std::span<const float> values) {
        std::copy(values.begin(), values.end(),
                  all.begin() + static_cast<std::ptrdiff_t>(position * vocab_size()));
    });
    return all;
}

std::vector<float> Decoder::next_logprobs(std::span<const std::int32_t> tokens, std::size_t first) {
    std::vector<float> logprobs;
    each_logits(tokens, first, [&](std::size_t position, std::span<const float> values) {
        if (position + 1 >= tokens.size()) return;
        const float top = *std::max_element(values.begin(), values.end());
        double total = 0;
        for (const float value : values) total += std::exp(value - top);
        const auto next = static_cast<std::size_t>(tokens[position + 1]);
        logprobs.push_back(static_cast<float>(values[next] - top - std::log(total)));
    });
    return logprobs;
}

}  // namespace quarry
