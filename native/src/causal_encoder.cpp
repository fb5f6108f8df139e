#include "causal_encoder.h"

#include <algorithm>

namespace quarry {

namespace {

constexpr std::size_t kPassTokens = 512;
// The cache holds one pass, and a pass a sequence: more would take gigabytes for texts that nobody embeds.
constexpr std::size_t kLongest = 8192;

std::size_t blocks_of(std::size_t n_tokens) {
    return (n_tokens + kKeysPerBlock - 1) / kKeysPerBlock;
}

Pooling read_pooling(const GgufFile& file, const std::string& architecture) {
    const std::string key = architecture + ".attention.causal";
    if (!file.boolean(key, true)) {
        throw GgufError("key '" + key + "' is false; decoders that look ahead are not supported");
    }
    const std::string name = architecture + ".pooling_type";
    const auto pooling = file.integer(name, 0, 10, static_cast<std::uint64_t>(Pooling::last));
    // Files of plain language models say nothing, or 0.
    if (pooling == 0) return Pooling::last;
    if (pooling != static_cast<std::uint64_t>(Pooling::mean) && pooling != 3 && pooling != 4) {
        throw GgufError("key '" + name + "' is " + std::to_string(pooling) +
                        "; supported are 1 (mean), 3 (last) and 4 (rank)");
    }
    return static_cast<Pooling>(pooling);
}

}  // namespace

CausalEncoder::CausalEncoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend)
    : backend_(backend),
      model_(file, std::move(backend), kLongest, Head::absent),
      pooled_(embedding_length()) {
    if (model_.is_recurrent()) {
        throw GgufError("architecture '" + architecture() + "' is not supported for embeddings; qwen3 is");
    }
    pooling_ = read_pooling(*file, architecture());
}

std::size_t CausalEncoder::context_length() const {
    return std::min(model_.description().context_length, kLongest);
}

std::vector<float> CausalEncoder::encode(std::span<const std::span<const std::int32_t>> batch,
                                         bool normalize) {
    for (std::size_t i = 0; i < batch.size(); ++i)
        check_sequence(batch[i], i, context_length(), vocab_size());
    const std::lock_guard lock(backend_->mutex());
    std::vector<float> out(batch.size() * embedding_length());
    for (std::size_t first = 0; first < batch.size();)
        first = run_pass(batch, first, normalize, out.data() + first * embedding_length());
    return out;
}

std::size_t CausalEncoder::run_pass(std::span<const std::span<const std::int32_t>> batch, std::size_t first,
                                    bool normalize, float* out) {
    std::size_t end = first;
    std::size_t n_tokens = 0;
    std::size_t n_blocks = 0;
    while (end < batch.size() && (end == first || n_tokens + batch[end].size() <= kPassTokens)) {
        n_blocks += blocks_of(batch[end].size());
        n_tokens += batch[end++].size();
    }
    if (cache_ == nullptr || cache_->n_blocks() < n_blocks) {
        const Description& d = model_.description();
        cache_ = std::make_unique<KvCache>(model_.n_cached_layers(), d.n_kv_heads, d.head_dim, n_blocks);
    }
    std::vector<BlockId> blocks(n_blocks);
    for (std::size_t i = 0; i < n_blocks; ++i) blocks[i] = static_cast<BlockId>(i);
    std::vector<std::int32_t> ids;
    std::vector<SequenceRows> sequences;
    std::vector<std::size_t> outputs;
    std::size_t next_block = 0;
    for (const auto& tokens : batch.subspan(first, end - first)) {
        const std::size_t n = blocks_of(tokens.size());
        sequences.push_back({ids.size(), tokens.size(), 0, std::span(blocks).subspan(next_block, n)});
        next_block += n;
        ids.insert(ids.end(), tokens.begin(), tokens.end());
        if (pooling_ != Pooling::mean) outputs.push_back(ids.size() - 1);
    }
    if (pooling_ == Pooling::mean) {
        for (std::size_t row = 0; row < ids.size(); ++row) outputs.push_back(row);
    }
    const Buffer* states = &model_.states(ids, sequences, outputs, *cache_);
    if (pooling_ == Pooling::mean) {
        backend_->reserve(pooled_, sequences.size());
        backend_->average(*states, sequences, pooled_);
        states = &pooled_;
    }
    for (std::size_t i = 0; i < sequences.size(); ++i) {
        const std::span vector(out + i * embedding_length(), embedding_length());
        backend_->read(*states, i, vector.data());
        if (normalize) scale_to_one(vector);
    }
    return end;
}

}  // namespace quarry
