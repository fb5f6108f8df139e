#include "encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace quarry {

namespace {

constexpr std::uint64_t kMaxContext = 1 << 20;

// Tokens of one pass: enough to fill the kernels, few enough for the activations to stay in the caches.
constexpr std::size_t kPassTokens = 512;

std::size_t blocks_of(std::size_t n_tokens) {
    return (n_tokens + kKeysPerBlock - 1) / kKeysPerBlock;
}

}  // namespace

struct Encoder::Buffers {
    Buffers(std::size_t width, std::size_t feed_forward)
        : hidden(width), queries(width), keys(width), values(width), attended(width), up(feed_forward) {}
    Buffer hidden, queries, keys, values, attended, up;
    std::vector<std::int32_t> ids, positions, types;
    std::vector<BlockId> blocks;
    std::vector<SequenceRows> sequences;
    std::unique_ptr<KvCache> keys_and_values;  // of the layer at work
};

Encoder::~Encoder() = default;

Encoder::Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend)
    : file_(std::move(file)),
      backend_(std::move(backend)),
      architecture_(file_->string("general.architecture")) {
    if (architecture_ != "bert") {
        throw GgufError("architecture '" + architecture_.substr(0, 80) +
                        "' is not supported for embeddings; supported are bert");
    }
    const std::string prefix = architecture_ + ".";
    context_length_ = file_->integer(prefix + "context_length", 1, kMaxContext);
    width_ = file_->integer(prefix + "embedding_length", 1, kMaxWidth);
    n_layers_ = file_->integer(prefix + "block_count", 1, kMaxLayers);
    feed_forward_ = file_->integer(prefix + "feed_forward_length", 1, kMaxWidth);
    n_heads_ = file_->integer(prefix + "attention.head_count", 1, kMaxHeads);
    if (width_ % n_heads_ != 0 || width_ / n_heads_ > kMaxHeadDim) {
        throw GgufError("key '" + prefix + "attention.head_count' is " + std::to_string(n_heads_) +
                        ", which does not divide the width " + std::to_string(width_) +
                        " into heads of at most " + std::to_string(kMaxHeadDim));
    }
    epsilon_ = static_cast<float>(file_->real(prefix + "attention.layer_norm_epsilon", 0, 1));
    const auto pooling =
        file_->integer(prefix + "pooling_type", 0, 10, static_cast<std::uint64_t>(Pooling::mean));
    if (pooling != static_cast<std::uint64_t>(Pooling::mean) &&
        pooling != static_cast<std::uint64_t>(Pooling::cls)) {
        throw GgufError("key '" + prefix + "pooling_type' is " + std::to_string(pooling) +
                        "; supported are 1 (mean) and 2 (cls)");
    }
    pooling_ = static_cast<Pooling>(pooling);

    const std::lock_guard lock(backend_->mutex());
    token_embeddings_ = file_->find_tensor("token_embd.weight");
    if (token_embeddings_ == nullptr) throw GgufError("tensor 'token_embd.weight' is missing");
    vocab_size_ = token_embeddings_->rows();
    file_->tensor("token_embd.weight", std::array<std::uint64_t, 2>{width_, vocab_size_});
    position_embeddings_ =
        &file_->tensor("position_embd.weight", std::array<std::uint64_t, 2>{width_, context_length_});
    type_embeddings_ = file_->find_tensor("token_types.weight");
    if (type_embeddings_ != nullptr) {
        file_->tensor("token_types.weight", std::array<std::uint64_t, 2>{width_, type_embeddings_->rows()});
    }
    for (const auto* table : {token_embeddings_, position_embeddings_, type_embeddings_}) {
        if (table != nullptr) backend_->check_readable(*table);
    }
    embedding_norm_ = load_vector("token_embd_norm.weight");
    embedding_norm_bias_ = load_vector("token_embd_norm.bias");
    for (std::size_t i = 0; i < n_layers_; ++i) load_layer(i);
    buffers_ = std::make_unique<Buffers>(width_, feed_forward_);
}

Weight Encoder::load(const std::string& name, std::size_t rows, std::size_t width) {
    Weight weight =
        backend_->load(*file_, file_->tensor(name + ".weight", std::array<std::uint64_t, 2>{width, rows}));
    weight.bias = backend_->load_bias(file_->tensor(name + ".bias", std::array<std::uint64_t, 1>{rows}));
    weight_bytes_ += weight.tiles.size();
    return weight;
}

std::vector<float> Encoder::load_vector(const std::string& name) {
    return backend_->load_vector(file_->tensor(name, std::array<std::uint64_t, 1>{width_}));
}

void Encoder::load_layer(std::size_t index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    Layer layer;
    layer.query = load(prefix + "attn_q", width_, width_);
    layer.key = load(prefix + "attn_k", width_, width_);
    layer.value = load(prefix + "attn_v", width_, width_);
    layer.attention_output = load(prefix + "attn_output", width_, width_);
    layer.up = load(prefix + "ffn_up", feed_forward_, width_);
    layer.down = load(prefix + "ffn_down", width_, feed_forward_);
    layer.attention_norm = load_vector(prefix + "attn_output_norm.weight");
    layer.attention_norm_bias = load_vector(prefix + "attn_output_norm.bias");
    layer.output_norm = load_vector(prefix + "layer_output_norm.weight");
    layer.output_norm_bias = load_vector(prefix + "layer_output_norm.bias");
    layers_.push_back(std::move(layer));
}

std::vector<float> Encoder::encode(std::span<const std::span<const std::int32_t>> batch, bool normalize) {
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::string where = "sequence " + std::to_string(i);
        if (batch[i].empty()) throw std::invalid_argument(where + " has no tokens");
        if (batch[i].size() > context_length_) {
            throw std::invalid_argument(where + " has " + std::to_string(batch[i].size()) +
                                        " tokens; the model reads at most " +
                                        std::to_string(context_length_));
        }
        for (const auto id : batch[i]) {
            if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
                throw std::invalid_argument(where + " holds token " + std::to_string(id) +
                                            ", which is outside the vocabulary of " +
                                            std::to_string(vocab_size_));
            }
        }
    }
    const std::lock_guard lock(backend_->mutex());
    std::vector<float> out(batch.size() * width_);
    for (std::size_t first = 0; first < batch.size();) {
        std::size_t end = first;
        std::size_t n = 0;
        while (end < batch.size() && (end == first || n + batch[end].size() <= kPassTokens))
            n += batch[end++].size();
        encode_part(batch.subspan(first, end - first), normalize, out.data() + first * width_);
        first = end;
    }
    return out;
}

void Encoder::encode_part(std::span<const std::span<const std::int32_t>> batch, bool normalize, float* out) {
    embed(batch);
    Buffers& b = *buffers_;
    for (const auto& layer : layers_) run_layer(layer, b.ids.size());
    for (std::size_t i = 0; i < batch.size(); ++i) pool(b.sequences[i], normalize, out + i * width_);
}

void Encoder::embed(std::span<const std::span<const std::int32_t>> batch) {
    Buffers& b = *buffers_;
    b.ids.clear();
    b.positions.clear();
    b.sequences.clear();
    std::size_t n_blocks = 0;
    for (const auto& tokens : batch) n_blocks += blocks_of(tokens.size());
    if (b.keys_and_values == nullptr || b.keys_and_values->n_blocks() < n_blocks) {
        b.keys_and_values = std::make_unique<KvCache>(1, n_heads_, width_ / n_heads_, n_blocks);
    }
    b.blocks.resize(n_blocks);
    for (std::size_t i = 0; i < n_blocks; ++i) b.blocks[i] = static_cast<BlockId>(i);
    std::size_t next_block = 0;
    for (const auto& tokens : batch) {
        const std::size_t n = blocks_of(tokens.size());
        b.sequences.push_back({b.ids.size(), tokens.size(), 0, std::span(b.blocks).subspan(next_block, n)});
        next_block += n;
        for (std::size_t i = 0; i < tokens.size(); ++i) {
            b.ids.push_back(tokens[i]);
            b.positions.push_back(static_cast<std::int32_t>(i));
        }
    }
    const std::size_t n = b.ids.size();
    for (Buffer* buffer : {&b.hidden, &b.queries, &b.keys, &b.values, &b.attended, &b.up})
        backend_->reserve(*buffer, n);
    backend_->gather(*token_embeddings_, b.ids, b.hidden);
    backend_->gather(*position_embeddings_, b.positions, b.hidden, true);
    if (type_embeddings_ != nullptr) {
        b.types.assign(n, 0);
        backend_->gather(*type_embeddings_, b.types, b.hidden, true);
    }
    backend_->layer_norm(b.hidden, n, embedding_norm_, embedding_norm_bias_, epsilon_, b.hidden);
}

void Encoder::run_layer(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    backend_->matmul(b.hidden, n,
                     {{&layer.query, &b.queries}, {&layer.key, &b.keys}, {&layer.value, &b.values}});
    backend_->attention(b.queries, b.keys, b.values, b.sequences, n_heads_, false, *b.keys_and_values, 0,
                        b.attended);
    backend_->matmul(b.attended, n, {{&layer.attention_output, &b.hidden, true}});
    backend_->layer_norm(b.hidden, n, layer.attention_norm, layer.attention_norm_bias, epsilon_, b.hidden);
    backend_->matmul(b.hidden, n, {{&layer.up, &b.up}});
    backend_->gelu(b.up, n);
    backend_->matmul(b.up, n, {{&layer.down, &b.hidden, true}});
    backend_->layer_norm(b.hidden, n, layer.output_norm, layer.output_norm_bias, epsilon_, b.hidden);
}

void Encoder::pool(const SequenceRows& rows, bool normalize, float* out) const {
    std::vector<float> row(width_);
    std::fill(out, out + width_, 0.0f);
    const std::size_t n = pooling_ == Pooling::cls ? 1 : rows.n_rows;
    for (std::size_t i = 0; i < n; ++i) {
        backend_->read(buffers_->hidden, rows.first_row + i, row.data());
        for (std::size_t d = 0; d < width_; ++d) out[d] += row[d];
    }
    double squares = 0;
    for (std::size_t d = 0; d < width_; ++d) squares += static_cast<double>(out[d]) * out[d];
    const double length = normalize ? std::sqrt(squares) : static_cast<double>(n);
    const double factor = length > 0 ? 1 / length : 0;
    for (std::size_t d = 0; d < width_; ++d) out[d] = static_cast<float>(out[d] * factor);
}

}  // namespace quarry
