#include "decoder.h"

#include <algorithm>
#include <set>

namespace quarry {

namespace {

constexpr std::size_t kLogitRows = 256;  // of one pass of logits()

}  // namespace

std::size_t Sequence::blocks_missing(std::size_t n_tokens) const {
    return (n_cached_ + n_tokens + kKeysPerBlock - 1) / kKeysPerBlock - blocks_.size();
}

void Sequence::extend(std::size_t n_tokens) {
    for (std::size_t n = blocks_missing(n_tokens); n > 0; --n) blocks_.push_back(cache_->take());
    n_cached_ += n_tokens;
}

void Sequence::release() {
    for (const auto block : blocks_) cache_->give_back(block);
    blocks_.clear();
    n_cached_ = 0;
    sampler.forget_undrawn();
}

void Sequence::set_mask(std::vector<std::uint32_t> allowed) {
    const std::size_t words = (vocab_size_ + 31) / 32;
    if (!allowed.empty() && allowed.size() != words) {
        throw std::invalid_argument("the mask has " + std::to_string(allowed.size()) +
                                    " words; the vocabulary needs " + std::to_string(words));
    }
    sampler.set_mask(std::move(allowed));
}

Decoder::Decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                 std::size_t cache_tokens)
    : backend_(backend), model_(std::move(file), std::move(backend), cache_tokens) {
    const Description& d = model_.description();
    cache_ = std::make_shared<KvCache>(model_.n_cached_layers(), d.n_kv_heads, d.head_dim,
                                       (cache_tokens + kKeysPerBlock - 1) / kKeysPerBlock);
}

std::unique_ptr<Sequence> Decoder::new_sequence(SamplingParams params) const {
    params.check();
    for (const auto& [id, bias] : params.logit_bias) {
        if (id < 0 || static_cast<std::size_t>(id) >= vocab_size()) {
            throw std::invalid_argument("logit_bias names token " + std::to_string(id) +
                                        "; the vocabulary has " + std::to_string(vocab_size()));
        }
    }
    return std::make_unique<Sequence>(cache_, vocab_size(), std::move(params));
}

void Decoder::check(std::span<const BatchEntry> batch) const {
    std::set<const Sequence*> seen;
    std::size_t missing = 0;
    for (const auto& entry : batch) {
        if (entry.tokens.empty()) throw std::invalid_argument("a sequence of the batch has no tokens");
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
    if (missing > cache_->n_free()) {
        throw CacheFull("the step needs " + std::to_string(missing) + " cache blocks; " +
                        std::to_string(cache_->n_free()) + " of " + std::to_string(cache_->n_blocks()) +
                        " are free");
    }
}

const Buffer& Decoder::forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs) {
    sequences_.clear();
    ids_.clear();
    for (const auto& entry : batch) {
        const std::size_t first_position = entry.sequence->n_cached();
        entry.sequence->extend(entry.tokens.size());
        sequences_.push_back({ids_.size(), entry.tokens.size(), first_position, entry.sequence->blocks()});
        ids_.insert(ids_.end(), entry.tokens.begin(), entry.tokens.end());
    }
    return model_.forward(ids_, sequences_, outputs, *cache_);
}

std::vector<std::optional<SampledToken>> Decoder::step(std::span<const BatchEntry> batch) {
    const std::lock_guard lock(backend_->mutex());
    check(batch);
    std::vector<std::size_t> outputs;
    std::size_t row = 0;
    for (const auto& entry : batch) {
        row += entry.tokens.size();
        if (entry.sample) outputs.push_back(row - 1);
    }
    const Buffer& rows = forward(batch, outputs);
    std::vector<std::optional<SampledToken>> sampled(batch.size());
    std::vector<float> logits(outputs.empty() ? 0 : vocab_size());
    std::size_t output = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        Sampler& sampler = batch[i].sequence->sampler;
        if (!sampler.has_drawn()) {
            for (const auto id : batch[i].tokens) sampler.accept_prompt(id);
        }
        if (!batch[i].sample) continue;
        backend_->read(rows, output++, logits.data());
        sampled[i] = sampler.sample(logits);
    }
    return sampled;
}

std::vector<float> Decoder::logits(std::span<const std::int32_t> tokens) {
    const std::lock_guard lock(backend_->mutex());
    Sequence sequence(cache_, vocab_size(), {});
    std::vector<float> all(tokens.size() * vocab_size());
    for (std::size_t first = 0; first < tokens.size(); first += kLogitRows) {
        const auto slice = tokens.subspan(first, std::min(kLogitRows, tokens.size() - first));
        const BatchEntry entry{&sequence, slice, false};
        check({&entry, 1});
        std::vector<std::size_t> rows(slice.size());
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i;
        const Buffer& slice_logits = forward({&entry, 1}, rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            backend_->read(slice_logits, i, all.data() + (first + i) * vocab_size());
        }
    }
    return all;
}

}  // namespace quarry
