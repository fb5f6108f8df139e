#include "encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>

namespace quarry {

namespace {

constexpr std::uint64_t kMaxContext = 1 << 20;
constexpr std::uint64_t kMaxScores = 1024;

// Tokens of one pass: enough to fill the kernels, few enough for the activations to stay in the caches.
constexpr std::size_t kPassTokens = 512;

std::size_t blocks_of(std::size_t n_tokens) {
    return (n_tokens + kKeysPerBlock - 1) / kKeysPerBlock;
}

bool is_known(std::string_view architecture) {
    return architecture == "bert" || architecture == "nomic-bert";
}

}  // namespace

const char* name_of(Pooling pooling) {
    constexpr std::array names = {"mean", "cls", "last", "rank"};
    return names[static_cast<std::size_t>(pooling) - 1];
}

struct Encoder::Buffers {
    Buffers(std::size_t width, std::size_t feed_forward, std::size_t head_dim, std::size_t scores)
        : hidden(width),
          queries(width),
          keys(width),
          values(width),
          attended(width),
          gate(feed_forward),
          up(feed_forward),
          angles(head_dim),
          first(width),
          head(width),
          scores(scores) {}
    Buffer hidden, queries, keys, values, attended, gate, up, angles, first, head, scores;
    std::vector<std::int32_t> ids, positions, types;
    std::vector<BlockId> blocks;
    std::vector<SequenceRows> sequences;
    std::unique_ptr<KvCache> keys_and_values;  // of the layer at work
};

Encoder::~Encoder() = default;

Encoder::Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend)
    : file_(std::move(file)),
      backend_(std::move(backend)),
      architecture_(file_->string("general.architecture")),
      prefix_(architecture_ + ".") {
    if (!is_known(architecture_)) {
        throw GgufError("architecture '" + architecture_.substr(0, 80) +
                        "' is not supported for embeddings; supported are bert, nomic-bert");
    }
    load_sizes();
    const std::lock_guard lock(backend_->mutex());
    load_embeddings();
    for (std::size_t i = 0; i < n_layers_; ++i) load_layer(i);
    load_head();
    buffers_ = std::make_unique<Buffers>(width_, feed_forward_, width_ / n_heads_, n_scores());
}

void Encoder::load_sizes() {
    context_length_ = file_->integer(prefix_ + "context_length", 1, kMaxContext);
    width_ = file_->integer(prefix_ + "embedding_length", 1, kMaxWidth);
    n_layers_ = file_->integer(prefix_ + "block_count", 1, kMaxLayers);
    feed_forward_ = file_->integer(prefix_ + "feed_forward_length", 1, kMaxWidth);
    n_heads_ = file_->integer(prefix_ + "attention.head_count", 1, kMaxHeads);
    if (width_ % n_heads_ != 0 || width_ / n_heads_ > kMaxHeadDim) {
        throw GgufError("key '" + prefix_ + "attention.head_count' is " + std::to_string(n_heads_) +
                        ", which does not divide the width " + std::to_string(width_) +
                        " into heads of at most " + std::to_string(kMaxHeadDim));
    }
    epsilon_ = static_cast<float>(file_->real(prefix_ + "attention.layer_norm_epsilon", 0, 1));
    const auto pooling =
        file_->integer(prefix_ + "pooling_type", 0, 10, static_cast<std::uint64_t>(Pooling::mean));
    if (pooling < static_cast<std::uint64_t>(Pooling::mean) ||
        pooling > static_cast<std::uint64_t>(Pooling::rank)) {
        throw GgufError("key '" + prefix_ + "pooling_type' is " + std::to_string(pooling) +
                        "; supported are 1 (mean), 2 (cls), 3 (last) and 4 (rank)");
    }
    pooling_ = static_cast<Pooling>(pooling);
}

void Encoder::load_embeddings() {
    token_embeddings_ = file_->find_tensor("token_embd.weight");
    if (token_embeddings_ == nullptr) throw GgufError("tensor 'token_embd.weight' is missing");
    vocab_size_ = token_embeddings_->rows();
    file_->tensor("token_embd.weight", std::array<std::uint64_t, 2>{width_, vocab_size_});
    type_embeddings_ = file_->find_tensor("token_types.weight");
    if (type_embeddings_ != nullptr) {
        file_->tensor("token_types.weight", std::array<std::uint64_t, 2>{width_, type_embeddings_->rows()});
    }
    if (architecture_ == "bert") {
        position_embeddings_ =
            &file_->tensor("position_embd.weight", std::array<std::uint64_t, 2>{width_, context_length_});
    } else {
        const std::size_t head_dim = width_ / n_heads_;
        if (head_dim % 2 != 0) {
            throw GgufError("key '" + prefix_ + "attention.head_count' makes heads of " +
                            std::to_string(head_dim) + " values; rotary positions need an even number");
        }
        const std::string_view scaling = file_->string(prefix_ + "rope.scaling.type", "none");
        if (scaling != "none") {
            throw GgufError("key '" + prefix_ + "rope.scaling.type' is '" +
                            std::string(scaling.substr(0, 40)) + "'; supported is none");
        }
        const double base = file_->real(prefix_ + "rope.freq_base", 1, 1e12, 10000);
        for (std::size_t i = 0; i < head_dim; i += 2) {
            frequencies_.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(head_dim)));
        }
    }
    for (const auto* table : {token_embeddings_, position_embeddings_, type_embeddings_}) {
        if (table != nullptr) backend_->check_readable(*table);
    }
    embedding_norm_ = load_norm("token_embd_norm");
}

void Encoder::load_head() {
    const GgufTensor* output = file_->find_tensor("cls.output.weight");
    const GgufTensor* inner = file_->find_tensor("cls.weight");
    if (output == nullptr && inner == nullptr) return;
    // Heads of one matrix are written under either name.
    const GgufTensor& last = output == nullptr ? *inner : *output;
    if (last.rows() > kMaxScores) {
        throw GgufError("tensor '" + last.name.substr(0, 80) + "' has " + std::to_string(last.rows()) +
                        " rows; a head has at most " + std::to_string(kMaxScores));
    }
    if (output != nullptr && inner != nullptr) head_ = load("cls", width_, width_);
    head_output_ = load(output == nullptr ? "cls" : "cls.output", last.rows(), width_);
}

Weight Encoder::load(const std::string& name, std::size_t rows, std::size_t width) {
    return load_rows(name, rows, 0, rows, width);
}

Weight Encoder::load_rows(const std::string& name, std::size_t all, std::size_t first, std::size_t rows,
                          std::size_t width) {
    const auto& tensor = file_->tensor(name + ".weight", std::array<std::uint64_t, 2>{width, all});
    Weight weight = backend_->load(*file_, rows_of(tensor, first, rows));
    if (file_->find_tensor(name + ".bias") != nullptr) {
        auto bias = backend_->load_bias(file_->tensor(name + ".bias", std::array<std::uint64_t, 1>{all}));
        bias.erase(bias.begin(), bias.begin() + static_cast<std::ptrdiff_t>(first));
        bias.resize((rows + kTileRows - 1) / kTileRows * kTileRows);
        weight.bias = std::move(bias);
    }
    weight_bytes_ += weight.tiles.size();
    return weight;
}

std::vector<float> Encoder::load_vector(const std::string& name) {
    return backend_->load_vector(file_->tensor(name, std::array<std::uint64_t, 1>{width_}));
}

Encoder::Norm Encoder::load_norm(const std::string& name, bool required) {
    if (!required && file_->find_tensor(name + ".weight") == nullptr) return {};
    return {load_vector(name + ".weight"), load_vector(name + ".bias")};
}

void Encoder::load_layer(std::size_t index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    Layer layer;
    load_attention(layer, prefix);
    load_feed_forward(layer, prefix);
    layer.attention_norm = load_norm(prefix + "attn_output_norm");
    layer.second_norm = load_norm(prefix + "attn_norm_2", false);
    layer.output_norm = load_norm(prefix + "layer_output_norm");
    layers_.push_back(std::move(layer));
}

void Encoder::load_attention(Layer& layer, const std::string& prefix) {
    if (file_->find_tensor(prefix + "attn_qkv.weight") != nullptr) {
        const std::string name = prefix + "attn_qkv";
        layer.query = load_rows(name, 3 * width_, 0, width_, width_);
        layer.key = load_rows(name, 3 * width_, width_, width_, width_);
        layer.value = load_rows(name, 3 * width_, 2 * width_, width_, width_);
    } else {
        layer.query = load(prefix + "attn_q", width_, width_);
        layer.key = load(prefix + "attn_k", width_, width_);
        layer.value = load(prefix + "attn_v", width_, width_);
    }
    layer.query_norm = load_norm(prefix + "attn_q_norm", false);
    layer.key_norm = load_norm(prefix + "attn_k_norm", false);
    layer.attention_output = load(prefix + "attn_output", width_, width_);
}

void Encoder::load_feed_forward(Layer& layer, const std::string& prefix) {
    if (architecture_ != "bert") layer.gate = load(prefix + "ffn_gate", feed_forward_, width_);
    layer.up = load(prefix + "ffn_up", feed_forward_, width_);
    layer.down = load(prefix + "ffn_down", width_, feed_forward_);
}

void Encoder::check(std::span<const EncoderInput> batch) const {
    for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::string where = "sequence " + std::to_string(i);
        const auto& tokens = batch[i].tokens;
        if (tokens.empty()) throw std::invalid_argument(where + " has no tokens");
        if (tokens.size() > context_length_) {
            throw std::invalid_argument(where + " has " + std::to_string(tokens.size()) +
                                        " tokens; the model reads at most " +
                                        std::to_string(context_length_));
        }
        for (const auto id : tokens) {
            if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
                throw std::invalid_argument(where + " holds token " + std::to_string(id) +
                                            ", which is outside the vocabulary of " +
                                            std::to_string(vocab_size_));
            }
        }
    }
}

std::vector<float> Encoder::encode(std::span<const std::span<const std::int32_t>> batch, bool normalize) {
    if (pooling_ == Pooling::rank) {
        throw std::invalid_argument("the model ranks pairs of texts; it has no vectors of single ones");
    }
    std::vector<EncoderInput> inputs;
    for (const auto& tokens : batch) inputs.push_back({tokens, tokens.size()});
    check(inputs);
    const std::lock_guard lock(backend_->mutex());
    std::vector<float> out(batch.size() * width_);
    for (std::size_t first = 0; first < inputs.size();) {
        const std::size_t end = run_pass(inputs, first);
        for (std::size_t i = first; i < end; ++i)
            pool(buffers_->sequences[i - first], normalize, out.data() + i * width_);
        first = end;
    }
    return out;
}

std::vector<float> Encoder::score(std::span<const EncoderInput> batch) {
    if (n_scores() == 0) {
        throw std::invalid_argument(
            "the model has no head that scores: tensor 'cls.output.weight' is missing");
    }
    check(batch);
    const std::lock_guard lock(backend_->mutex());
    Buffers& b = *buffers_;
    std::vector<float> out(batch.size() * n_scores());
    for (std::size_t first = 0; first < batch.size();) {
        const std::size_t end = run_pass(batch, first);
        const std::size_t n = end - first;
        std::vector<std::size_t> rows;
        for (const auto& sequence : b.sequences) rows.push_back(sequence.first_row);
        for (Buffer* buffer : {&b.first, &b.head, &b.scores}) backend_->reserve(*buffer, n);
        backend_->select(b.hidden, rows, b.first);
        if (head_.rows > 0) {
            backend_->matmul(b.first, n, {{&head_, &b.head}});
            backend_->tanh(b.head, n);
        }
        backend_->matmul(head_.rows > 0 ? b.head : b.first, n, {{&head_output_, &b.scores}});
        for (std::size_t i = 0; i < n; ++i)
            backend_->read(b.scores, i, out.data() + (first + i) * n_scores());
        first = end;
    }
    return out;
}

std::size_t Encoder::run_pass(std::span<const EncoderInput> batch, std::size_t first) {
    std::size_t end = first;
    std::size_t n = 0;
    while (end < batch.size() && (end == first || n + batch[end].tokens.size() <= kPassTokens))
        n += batch[end++].tokens.size();
    place(batch.subspan(first, end - first));
    embed();
    for (const auto& layer : layers_) run_layer(layer, n);
    return end;
}

void Encoder::place(std::span<const EncoderInput> batch) {
    Buffers& b = *buffers_;
    b.ids.clear();
    b.positions.clear();
    b.types.clear();
    b.sequences.clear();
    std::size_t n_blocks = 0;
    for (const auto& input : batch) n_blocks += blocks_of(input.tokens.size());
    if (b.keys_and_values == nullptr || b.keys_and_values->n_blocks() < n_blocks) {
        b.keys_and_values = std::make_unique<KvCache>(1, n_heads_, width_ / n_heads_, n_blocks);
    }
    b.blocks.resize(n_blocks);
    for (std::size_t i = 0; i < n_blocks; ++i) b.blocks[i] = static_cast<BlockId>(i);
    // A model with one kind of text is told of no second.
    const bool has_types = type_embeddings_ != nullptr && type_embeddings_->rows() > 1;
    std::size_t next_block = 0;
    for (const auto& input : batch) {
        const std::size_t n = input.tokens.size();
        b.sequences.push_back({b.ids.size(), n, 0, std::span(b.blocks).subspan(next_block, blocks_of(n))});
        next_block += blocks_of(n);
        for (std::size_t i = 0; i < n; ++i) {
            b.ids.push_back(input.tokens[i]);
            b.positions.push_back(static_cast<std::int32_t>(i));
            b.types.push_back(has_types && i >= input.second_text ? 1 : 0);
        }
    }
}

void Encoder::embed() {
    Buffers& b = *buffers_;
    const std::size_t n = b.ids.size();
    for (Buffer* buffer : {&b.hidden, &b.queries, &b.keys, &b.values, &b.attended, &b.gate, &b.up, &b.angles})
        backend_->reserve(*buffer, n);
    backend_->gather(*token_embeddings_, b.ids, b.hidden);
    if (position_embeddings_ != nullptr) {
        backend_->gather(*position_embeddings_, b.positions, b.hidden, true);
    } else {
        for (std::size_t i = 0; i < n; ++i)
            backend_->set_angles(b.angles, i, static_cast<std::size_t>(b.positions[i]), frequencies_, 1);
    }
    if (type_embeddings_ != nullptr) backend_->gather(*type_embeddings_, b.types, b.hidden, true);
    norm(embedding_norm_, b.hidden, n);
}

void Encoder::run_layer(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    backend_->matmul(b.hidden, n,
                     {{&layer.query, &b.queries}, {&layer.key, &b.keys}, {&layer.value, &b.values}});
    if (!layer.query_norm.weight.empty()) norm(layer.query_norm, b.queries, n);
    if (!layer.key_norm.weight.empty()) norm(layer.key_norm, b.keys, n);
    if (!frequencies_.empty()) {
        backend_->rotate(b.queries, n, width_ / n_heads_, b.angles);
        backend_->rotate(b.keys, n, width_ / n_heads_, b.angles);
    }
    backend_->attention(b.queries, b.keys, b.values, b.sequences, n_heads_, false, *b.keys_and_values, 0,
                        b.attended);
    backend_->matmul(b.attended, n, {{&layer.attention_output, &b.hidden, true}});
    norm(layer.attention_norm, b.hidden, n);
    feed_forward(layer, n);
    norm(layer.output_norm, b.hidden, n);
}

void Encoder::feed_forward(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    if (layer.gate.rows == 0) {
        backend_->matmul(b.hidden, n, {{&layer.up, &b.up}});
        backend_->gelu(b.up, n);
    } else {
        backend_->matmul(b.hidden, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}});
        backend_->silu_multiply(b.gate, b.up, n, b.up);
    }
    backend_->matmul(b.up, n, {{&layer.down, &b.hidden, true}});
}

void Encoder::norm(const Norm& norm, Buffer& x, std::size_t n) {
    backend_->layer_norm(x, n, norm.weight, norm.bias, epsilon_, x);
}

void Encoder::pool(const SequenceRows& rows, bool normalize, float* out) const {
    std::vector<float> row(width_);
    std::fill(out, out + width_, 0.0f);
    const std::size_t begin = pooling_ == Pooling::last ? rows.n_rows - 1 : 0;
    const std::size_t n = pooling_ == Pooling::mean ? rows.n_rows : 1;
    for (std::size_t i = begin; i < begin + n; ++i) {
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
