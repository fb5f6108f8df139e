#include "decoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <set>

namespace quarry {

namespace {

constexpr std::uint64_t kMaxContext = 1 << 24;
constexpr std::uint64_t kMaxVocabulary = 1 << 24;
constexpr std::size_t kLogitRows = 256;  // of one pass of logits()

struct Architecture {
    std::string_view name;
    RowOrder order;
};

constexpr std::array kArchitectures = {
    Architecture{"llama", RowOrder::interleaved},
    Architecture{"qwen2", RowOrder::halves},
    Architecture{"qwen3", RowOrder::halves},
};

const Architecture& find_architecture(std::string_view name) {
    std::string known;
    for (const auto& architecture : kArchitectures) {
        if (architecture.name == name) return architecture;
        known += (known.empty() ? "" : ", ") + std::string(architecture.name);
    }
    throw GgufError("architecture '" + std::string(name.substr(0, 80)) +
                    "' is not supported for chat; supported are " + known);
}

}  // namespace

struct Decoder::Buffers {
    Buffers(std::size_t width, std::size_t queries, std::size_t keys, std::size_t feed_forward,
            std::size_t rotated, std::size_t vocabulary)
        : hidden(width),
          normed(width),
          queries(queries),
          keys(keys),
          values(keys),
          attended(queries),
          gate(feed_forward),
          up(feed_forward),
          angles(rotated),
          last(width),
          logits(vocabulary) {}
    Buffer hidden, normed, queries, keys, values, attended, gate, up, angles, last, logits;
    std::vector<SequenceRows> sequences;
    std::vector<std::int32_t> ids;
};

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

Decoder::~Decoder() = default;

Decoder::Decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                 std::size_t cache_tokens)
    : file_(std::move(file)),
      backend_(std::move(backend)),
      architecture_(file_->string("general.architecture")) {
    const RowOrder order = find_architecture(architecture_).order;
    const std::string prefix = architecture_ + ".";
    context_length_ = file_->integer(prefix + "context_length", 1, kMaxContext);
    width_ = file_->integer(prefix + "embedding_length", 1, kMaxWidth);
    n_layers_ = file_->integer(prefix + "block_count", 1, kMaxLayers);
    feed_forward_ = file_->integer(prefix + "feed_forward_length", 1, kMaxWidth);
    n_heads_ = file_->integer(prefix + "attention.head_count", 1, kMaxHeads);
    n_kv_heads_ = file_->integer(prefix + "attention.head_count_kv", 1, n_heads_, n_heads_);
    if (n_heads_ % n_kv_heads_ != 0) {
        throw GgufError(std::to_string(n_heads_) + " attention heads do not divide among " +
                        std::to_string(n_kv_heads_) + " key-value heads");
    }
    head_dim_ = file_->integer(prefix + "attention.key_length", 2, kMaxHeadDim,
                               std::clamp<std::uint64_t>(width_ / n_heads_, 2, kMaxHeadDim));
    if (file_->integer(prefix + "attention.value_length", 1, kMaxHeadDim, head_dim_) != head_dim_) {
        throw GgufError("key '" + prefix +
                        "attention.value_length' differs from the key length, which is not supported");
    }
    n_rotated_ = file_->integer(prefix + "rope.dimension_count", 2, head_dim_, head_dim_);
    if (n_rotated_ % 2 != 0) throw GgufError("key '" + prefix + "rope.dimension_count' is odd");
    epsilon_ = static_cast<float>(file_->real(prefix + "attention.layer_norm_rms_epsilon", 0, 1));
    embeddings_ = file_->find_tensor("token_embd.weight");
    if (embeddings_ == nullptr) throw GgufError("tensor 'token_embd.weight' is missing");
    vocab_size_ = embeddings_->rows();
    if (vocab_size_ > kMaxVocabulary)
        throw GgufError("tensor 'token_embd.weight' has " + std::to_string(vocab_size_) +
                        " rows; allowed are " + std::to_string(kMaxVocabulary));
    file_->tensor("token_embd.weight", std::array<std::uint64_t, 2>{width_, vocab_size_});
    backend_->check_readable(*embeddings_);
    load_frequencies();

    const std::lock_guard lock(backend_->mutex());
    for (std::size_t i = 0; i < n_layers_; ++i) load_layer(i, order);
    output_norm_ = load_norm("output_norm", width_, true);
    const bool tied = file_->find_tensor("output.weight") == nullptr;
    output_ = load(tied ? "token_embd" : "output", vocab_size_, width_);
    cache_ = std::make_shared<KvCache>(n_layers_, n_kv_heads_, head_dim_,
                                       (cache_tokens + kKeysPerBlock - 1) / kKeysPerBlock);
    buffers_ = std::make_unique<Buffers>(width_, n_heads_ * head_dim_, n_kv_heads_ * head_dim_, feed_forward_,
                                         n_rotated_, vocab_size_);
}

void Decoder::load_layer(std::size_t index, RowOrder order) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    const std::size_t queries = n_heads_ * head_dim_;
    const std::size_t keys = n_kv_heads_ * head_dim_;
    Layer layer;
    layer.attention_norm = load_norm(prefix + "attn_norm", width_, true);
    layer.query_norm = load_norm(prefix + "attn_q_norm", head_dim_, false);
    layer.key_norm = load_norm(prefix + "attn_k_norm", head_dim_, false);
    layer.feed_forward_norm = load_norm(prefix + "ffn_norm", width_, true);
    layer.query = load(prefix + "attn_q", queries, width_, order, n_rotated_);
    layer.key = load(prefix + "attn_k", keys, width_, order, n_rotated_);
    layer.value = load(prefix + "attn_v", keys, width_);
    layer.attention_output = load(prefix + "attn_output", width_, queries);
    layer.gate = load(prefix + "ffn_gate", feed_forward_, width_);
    layer.up = load(prefix + "ffn_up", feed_forward_, width_);
    layer.down = load(prefix + "ffn_down", width_, feed_forward_);
    layers_.push_back(std::move(layer));
}

Weight Decoder::load(const std::string& name, std::size_t rows, std::size_t width, RowOrder order,
                     std::size_t n_rotated) {
    const auto& tensor = file_->tensor(name + ".weight", std::array<std::uint64_t, 2>{width, rows});
    Weight weight = backend_->load(*file_, tensor, order, {head_dim_, n_rotated});
    if (file_->find_tensor(name + ".bias") != nullptr) {
        const auto& bias = file_->tensor(name + ".bias", std::array<std::uint64_t, 1>{rows});
        weight.bias = backend_->load_bias(bias, order, {head_dim_, n_rotated});
    }
    weight_bytes_ += weight.tiles.size();
    return weight;
}

std::vector<float> Decoder::load_norm(const std::string& name, std::size_t width, bool required) {
    if (!required && file_->find_tensor(name + ".weight") == nullptr) return {};
    return backend_->load_vector(file_->tensor(name + ".weight", std::array<std::uint64_t, 1>{width}));
}

// Sources: RoPE, arXiv 2104.09864; YaRN, arXiv 2309.00071 (wavelength ramp and magnitude).
void Decoder::load_frequencies() {
    const std::string prefix = architecture_ + ".rope.";
    const double base = file_->real(prefix + "freq_base", 1, 1e12, 10000);
    const std::size_t half = n_rotated_ / 2;
    for (std::size_t i = 0; i < half; ++i) {
        frequencies_.push_back(std::pow(base, -static_cast<double>(2 * i) / static_cast<double>(n_rotated_)));
    }
    if (file_->find_tensor("rope_freqs.weight") != nullptr) {
        const auto& tensor = file_->tensor("rope_freqs.weight", std::array<std::uint64_t, 1>{half});
        const auto divisors = backend_->load_vector(tensor);
        for (std::size_t i = 0; i < half; ++i) {
            if (!(divisors[i] > 0))
                throw GgufError("tensor 'rope_freqs.weight' holds " + std::to_string(divisors[i]) +
                                "; allowed are positive numbers");
            frequencies_[i] /= divisors[i];
        }
    }
    const double linear = file_->real(prefix + "scale_linear", 1e-6, 1e6, 1);
    const std::string_view type = file_->string(prefix + "scaling.type", linear == 1 ? "none" : "linear");
    if (type == "none") return;
    const double factor = file_->real(prefix + "scaling.factor", 1e-6, 1e6, linear);
    if (type == "linear") {
        for (auto& frequency : frequencies_) frequency /= factor;
        return;
    }
    if (type != "yarn")
        throw GgufError("key '" + prefix + "scaling.type' is '" + std::string(type.substr(0, 40)) +
                        "'; supported are none, linear, yarn");
    const auto trained = static_cast<double>(
        file_->integer(prefix + "scaling.original_context_length", 1, kMaxContext, context_length_));
    const double fast = file_->real(prefix + "scaling.yarn_beta_fast", 1e-3, 1e6, 32);
    const double slow = file_->real(prefix + "scaling.yarn_beta_slow", 1e-3, 1e6, 1);
    const auto dimension_turning = [&](double turns) {
        return static_cast<double>(n_rotated_) * std::log(trained / (turns * 2 * std::numbers::pi)) /
               (2 * std::log(base));
    };
    const double low = std::max(0.0, std::floor(dimension_turning(fast)));
    const double high = std::min(static_cast<double>(n_rotated_) - 1, std::ceil(dimension_turning(slow)));
    for (std::size_t i = 0; i < half; ++i) {
        const double ramp =
            std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
        frequencies_[i] *= (1 - ramp) + ramp / factor;
    }
    rotary_magnitude_ =
        file_->real(prefix + "scaling.attn_factor", 1e-3, 1e3, 1) * (1 + 0.1 * std::log(factor));
}

std::unique_ptr<Sequence> Decoder::new_sequence(SamplingParams params) const {
    params.check();
    for (const auto& [id, bias] : params.logit_bias) {
        if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
            throw std::invalid_argument("logit_bias names token " + std::to_string(id) +
                                        "; the vocabulary has " + std::to_string(vocab_size_));
        }
    }
    return std::make_unique<Sequence>(cache_, vocab_size_, std::move(params));
}

void Decoder::check(std::span<const BatchEntry> batch) const {
    std::set<const Sequence*> seen;
    std::size_t missing = 0;
    for (const auto& entry : batch) {
        if (entry.tokens.empty()) throw std::invalid_argument("a sequence of the batch has no tokens");
        if (!seen.insert(entry.sequence).second)
            throw std::invalid_argument("a sequence occurs twice in the batch");
        const std::size_t length = entry.sequence->n_cached() + entry.tokens.size();
        if (length > context_length_) {
            throw std::invalid_argument("a sequence has " + std::to_string(length) +
                                        " tokens; the model reads at most " +
                                        std::to_string(context_length_));
        }
        for (const auto id : entry.tokens) {
            if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
                throw std::invalid_argument("token " + std::to_string(id) + " is outside the vocabulary of " +
                                            std::to_string(vocab_size_));
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

void Decoder::forward(std::span<const BatchEntry> batch, std::span<const std::size_t> outputs) {
    Buffers& b = *buffers_;
    b.sequences.clear();
    b.ids.clear();
    for (const auto& entry : batch) {
        const std::size_t first_position = entry.sequence->n_cached();
        entry.sequence->extend(entry.tokens.size());
        b.sequences.push_back({b.ids.size(), entry.tokens.size(), first_position, entry.sequence->blocks()});
        b.ids.insert(b.ids.end(), entry.tokens.begin(), entry.tokens.end());
    }
    const std::size_t n = b.ids.size();
    for (Buffer* buffer :
         {&b.hidden, &b.normed, &b.queries, &b.keys, &b.values, &b.attended, &b.gate, &b.up, &b.angles}) {
        backend_->reserve(*buffer, n);
    }
    backend_->gather(*embeddings_, b.ids, b.hidden);
    for (const auto& rows : b.sequences) {
        for (std::size_t i = 0; i < rows.n_rows; ++i) {
            backend_->set_angles(b.angles, rows.first_row + i, rows.first_position + i, frequencies_,
                                 rotary_magnitude_);
        }
    }
    for (std::size_t i = 0; i < n_layers_; ++i) run_layer(layers_[i], i, n, b.sequences);
    if (outputs.empty()) return;
    backend_->reserve(b.last, outputs.size());
    backend_->reserve(b.logits, outputs.size());
    backend_->select(b.hidden, outputs, b.last);
    backend_->rms_norm(b.last, outputs.size(), output_norm_, epsilon_, b.last);
    backend_->matmul(b.last, outputs.size(), {{&output_, &b.logits}}, Rounding::fine);
}

void Decoder::run_layer(const Layer& layer, std::size_t index, std::size_t n,
                        std::span<const SequenceRows> sequences) {
    // Where rounding hurts most was measured on SmolLM2 by giving one kind of matrix after another exact
    // inputs; see docs/performance.md.
    const Rounding late = index >= n_layers_ * 2 / 3 ? Rounding::fine : Rounding::coarse;
    Buffers& b = *buffers_;
    backend_->rms_norm(b.hidden, n, layer.attention_norm, epsilon_, b.normed);
    backend_->matmul(b.normed, n,
                     {{&layer.query, &b.queries}, {&layer.key, &b.keys}, {&layer.value, &b.values}},
                     Rounding::fine);
    if (!layer.query_norm.empty()) backend_->rms_norm(b.queries, n, layer.query_norm, epsilon_, b.queries);
    if (!layer.key_norm.empty()) backend_->rms_norm(b.keys, n, layer.key_norm, epsilon_, b.keys);
    backend_->rotate(b.queries, n, head_dim_, b.angles);
    backend_->rotate(b.keys, n, head_dim_, b.angles);
    backend_->attention(b.queries, b.keys, b.values, sequences, n_heads_, true, *cache_, index, b.attended);
    backend_->matmul(b.attended, n, {{&layer.attention_output, &b.hidden, true}});
    backend_->rms_norm(b.hidden, n, layer.feed_forward_norm, epsilon_, b.normed);
    backend_->matmul(b.normed, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}});
    backend_->silu_multiply(b.gate, b.up, n, b.gate);
    backend_->matmul(b.gate, n, {{&layer.down, &b.hidden, true}}, late);
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
    forward(batch, outputs);
    std::vector<std::optional<SampledToken>> sampled(batch.size());
    std::vector<float> logits(outputs.empty() ? 0 : vocab_size_);
    std::size_t output = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
        Sampler& sampler = batch[i].sequence->sampler;
        if (!sampler.has_drawn()) {
            for (const auto id : batch[i].tokens) sampler.accept_prompt(id);
        }
        if (!batch[i].sample) continue;
        backend_->read(buffers_->logits, output++, logits.data());
        sampled[i] = sampler.sample(logits);
    }
    return sampled;
}

std::vector<float> Decoder::logits(std::span<const std::int32_t> tokens) {
    const std::lock_guard lock(backend_->mutex());
    Sequence sequence(cache_, vocab_size_, {});
    std::vector<float> all(tokens.size() * vocab_size_);
    for (std::size_t first = 0; first < tokens.size(); first += kLogitRows) {
        const auto slice = tokens.subspan(first, std::min(kLogitRows, tokens.size() - first));
        const BatchEntry entry{&sequence, slice, false};
        check({&entry, 1});
        std::vector<std::size_t> rows(slice.size());
        for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = i;
        forward({&entry, 1}, rows);
        for (std::size_t i = 0; i < rows.size(); ++i) {
            backend_->read(buffers_->logits, i, all.data() + (first + i) * vocab_size_);
        }
    }
    return all;
}

}  // namespace quarry
