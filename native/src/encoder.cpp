#include "encoder.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
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

constexpr std::array<std::string_view, 5> kArchitectures = {"bert", "nomic-bert", "nomic-bert-moe",
                                                            "jina-bert-v2", "modern-bert"};
constexpr std::uint64_t kMaxExperts = 1024;

std::vector<double> frequencies(double base, std::size_t head_dim) {
    std::vector<double> found;
    for (std::size_t i = 0; i < head_dim; i += 2)
        found.push_back(std::pow(base, -static_cast<double>(i) / static_cast<double>(head_dim)));
    return found;
}

// Source: ALiBi, arXiv 2108.12409: a geometric sequence; heads beyond a power of two lie between the others.
std::vector<float> slopes_of(std::size_t n_heads) {
    std::size_t n = 1;
    while (2 * n <= n_heads) n *= 2;
    std::vector<float> slopes;
    for (std::size_t h = 0; h < n_heads; ++h) {
        const double power = h < n ? 8.0 * static_cast<double>(h + 1) / static_cast<double>(n)
                                   : 4.0 * static_cast<double>(2 * (h - n) + 1) / static_cast<double>(n);
        slopes.push_back(static_cast<float>(std::exp2(-power)));
    }
    return slopes;
}

}  // namespace

std::vector<std::string_view> encoder_architectures() {
    return {kArchitectures.begin(), kArchitectures.end()};
}

struct Encoder::Buffers {
    Buffers(std::size_t width, std::size_t feed_forward, std::size_t head_dim, std::size_t n_experts,
            std::size_t scores)
        : hidden(width),
          input(width),
          queries(width),
          keys(width),
          values(width),
          attended(width),
          gate(feed_forward),
          up(feed_forward),
          angles{Buffer(head_dim), Buffer(head_dim)},
          router(n_experts),
          routed(n_experts > 0 ? width : 0),
          routed_up(n_experts > 0 ? feed_forward : 0),
          pooled(width),
          head(width),
          scores(scores) {}
    Buffer hidden, input, queries, keys, values, attended, gate, up;
    std::array<Buffer, 2> angles;
    Buffer router, routed, routed_up;
    Routes routes;
    Buffer pooled, head, scores;
    std::vector<std::size_t> rows;
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
    if (std::find(kArchitectures.begin(), kArchitectures.end(), architecture_) == kArchitectures.end()) {
        throw GgufError("architecture '" + architecture_.substr(0, 80) +
                        "' is not supported for embeddings; supported are bert, nomic-bert, nomic-bert-moe, "
                        "jina-bert-v2, modern-bert");
    }
    load_sizes();
    const std::lock_guard lock(backend_->mutex());
    load_embeddings();
    for (std::size_t i = 0; i < n_layers_; ++i) load_layer(i);
    load_head();
    buffers_ = std::make_unique<Buffers>(width_, feed_forward_, width_ / n_heads_, n_experts_, n_scores());
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
    if (architecture_ == "nomic-bert-moe") {
        n_experts_ = file_->integer(prefix_ + "expert_count", 1, kMaxExperts);
        n_used_ = file_->integer(prefix_ + "expert_used_count", 1, n_experts_);
        expert_period_ = file_->integer(prefix_ + "moe_every_n_layers", 2, kMaxLayers);
    }
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
    load_positions();
    for (const auto* table : {token_embeddings_, position_embeddings_, type_embeddings_}) {
        if (table != nullptr) backend_->check_readable(*table);
    }
    embedding_norm_ = load_norm("token_embd_norm");
    final_norm_ = load_norm("output_norm", architecture_ == "modern-bert");
}

void Encoder::load_positions() {
    if (architecture_ == "bert") {
        position_embeddings_ =
            &file_->tensor("position_embd.weight", std::array<std::uint64_t, 2>{width_, context_length_});
        return;
    }
    if (architecture_ == "jina-bert-v2") {
        slopes_ = slopes_of(n_heads_);
        return;
    }
    const std::size_t head_dim = width_ / n_heads_;
    if (head_dim % 2 != 0) {
        throw GgufError("key '" + prefix_ + "attention.head_count' makes heads of " +
                        std::to_string(head_dim) + " values; rotary positions need an even number");
    }
    const std::string_view scaling = file_->string(prefix_ + "rope.scaling.type", "none");
    if (scaling != "none") {
        throw GgufError("key '" + prefix_ + "rope.scaling.type' is '" + std::string(scaling.substr(0, 40)) +
                        "'; supported is none");
    }
    const double base = file_->real(prefix_ + "rope.freq_base", 1, 1e12, 10000);
    const double local = file_->real(prefix_ + "rope.freq_base_swa", 1, 1e12, base);
    frequencies_ = {frequencies(base, head_dim), frequencies(local, head_dim)};
    if (architecture_ == "modern-bert") load_reach();
}

void Encoder::load_reach() {
    const std::string_view activation = file_->string(prefix_ + "hidden_activation", "gelu");
    if (activation != "gelu") {
        throw GgufError("key '" + prefix_ + "hidden_activation' is '" +
                        std::string(activation.substr(0, 40)) + "'; supported is gelu");
    }
    reach_ = file_->integer(prefix_ + "attention.sliding_window", 0, kMaxContext, 0) / 2;
    const std::string key = prefix_ + "attention.sliding_window_pattern";
    local_period_ = file_->integer(key, 1, kMaxLayers, 3);
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
    // As llama.cpp has it, unless the file says otherwise.
    const std::string key = "quarry.classifier.pooling";
    const std::string_view pooling = file_->string(key, architecture_ == "modern-bert" ? "mean" : "cls");
    if (pooling != "mean" && pooling != "cls") {
        throw GgufError("key '" + key + "' is '" + std::string(pooling.substr(0, 40)) +
                        "'; supported are cls and mean");
    }
    head_pooling_ = pooling == "mean" ? Pooling::mean : Pooling::cls;
    if (output != nullptr && inner != nullptr) {
        head_ = load("cls", width_, width_, Rounding::fine);
        head_norm_ = load_norm("cls.norm", false);
    }
    head_output_ = load(output == nullptr ? "cls" : "cls.output", last.rows(), width_, Rounding::fine);
}

Weight Encoder::load(const std::string& name, std::size_t rows, std::size_t width, Rounding rounding) {
    return load_rows(name, rows, 0, rows, width, rounding);
}

Weight Encoder::load_rows(const std::string& name, std::size_t all, std::size_t first, std::size_t rows,
                          std::size_t width, Rounding rounding) {
    const auto& tensor = file_->tensor(name + ".weight", std::array<std::uint64_t, 2>{width, all});
    Weight weight = backend_->load_rounded(*file_, rows_of(tensor, first, rows), rounding);
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
    const bool has_bias = file_->find_tensor(name + ".bias") != nullptr || architecture_ != "modern-bert";
    return {load_vector(name + ".weight"),
            has_bias ? load_vector(name + ".bias") : std::vector<float>(width_)};
}

void Encoder::load_layer(std::size_t index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    Layer layer;
    load_attention(layer, prefix);
    if (expert_period_ > 0 && index % expert_period_ == 1) {
        load_experts(layer, prefix);
    } else {
        load_feed_forward(layer, prefix);
    }
    if (architecture_ == "modern-bert") {
        layer.first_norm = load_norm(prefix + "attn_norm", index > 0);
        layer.feed_forward_norm = load_norm(prefix + "ffn_norm");
        layer.is_local = reach_ > 0 && index % local_period_ != 0;
    } else {
        layer.attention_norm = load_norm(prefix + "attn_output_norm");
        layer.second_norm = load_norm(prefix + "attn_norm_2", false);
        layer.output_norm = load_norm(prefix + "layer_output_norm");
    }
    layers_.push_back(std::move(layer));
}

// Measured on MiniLM, by giving one matrix after another exact inputs and weights: eight bits for the weights
// of all and the inputs of all but one leave a cosine of 0.9991, and the values alone cost as much as all
// others. Gated feed-forwards were not measured.
Rounding Encoder::usual_rounding() const {
    return architecture_ == "bert" ? Rounding::coarse : Rounding::fine;
}

void Encoder::load_attention(Layer& layer, const std::string& prefix) {
    if (file_->find_tensor(prefix + "attn_qkv.weight") != nullptr) {
        const std::string name = prefix + "attn_qkv";
        layer.query = load_rows(name, 3 * width_, 0, width_, width_, usual_rounding());
        layer.key = load_rows(name, 3 * width_, width_, width_, width_, usual_rounding());
        layer.value = load_rows(name, 3 * width_, 2 * width_, width_, width_, Rounding::fine);
    } else {
        layer.query = load(prefix + "attn_q", width_, width_, usual_rounding());
        layer.key = load(prefix + "attn_k", width_, width_, usual_rounding());
        layer.value = load(prefix + "attn_v", width_, width_, Rounding::fine);
    }
    layer.query_norm = load_norm(prefix + "attn_q_norm", false);
    layer.key_norm = load_norm(prefix + "attn_k_norm", false);
    layer.attention_output = load(prefix + "attn_output", width_, width_, usual_rounding());
}

void Encoder::load_feed_forward(Layer& layer, const std::string& prefix) {
    const std::string name = prefix + "ffn_up";
    const bool has_gate = file_->find_tensor(prefix + "ffn_gate.weight") != nullptr;
    if (has_gate || architecture_ == "bert" || n_experts_ > 0) {
        if (has_gate) layer.gate = load(prefix + "ffn_gate", feed_forward_, width_, usual_rounding());
        layer.up = load(name, feed_forward_, width_, usual_rounding());
    } else {
        // One matrix for both, the gate first; but Jina's models with norms of queries and keys have it last.
        const bool is_last = !layer.query_norm.weight.empty();
        const std::size_t n = feed_forward_;
        layer.gate = load_rows(name, 2 * n, is_last ? n : 0, n, width_, usual_rounding());
        layer.up = load_rows(name, 2 * n, is_last ? 0 : n, n, width_, usual_rounding());
    }
    layer.down = load(prefix + "ffn_down", width_, feed_forward_, usual_rounding());
}

void Encoder::load_experts(Layer& layer, const std::string& prefix) {
    layer.router = load(prefix + "ffn_gate_inp", n_experts_, width_, Rounding::fine);
    const auto matrices = [&](const char* name, std::size_t rows, std::size_t width) {
        const auto& tensor =
            file_->tensor(prefix + name, std::array<std::uint64_t, 3>{width, rows, n_experts_});
        Weight weight = backend_->load_experts(*file_, tensor);
        weight_bytes_ += weight.tiles.size();
        return weight;
    };
    layer.up = matrices("ffn_up_exps.weight", feed_forward_, width_);
    layer.down = matrices("ffn_down_exps.weight", width_, feed_forward_);
}

void Encoder::check(std::span<const EncoderInput> batch) const {
    for (std::size_t i = 0; i < batch.size(); ++i)
        check_sequence(batch[i].tokens, i, context_length_, vocab_size_);
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
        pool(pooling_);
        for (std::size_t i = first; i < end; ++i) {
            float* vector = out.data() + i * width_;
            backend_->read(buffers_->pooled, i - first, vector);
            if (normalize) scale_to_one({vector, width_});
        }
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
        pool(head_pooling_);
        for (Buffer* buffer : {&b.head, &b.scores}) backend_->reserve(*buffer, n);
        if (head_.rows > 0) {
            backend_->matmul(b.pooled, n, {{&head_, &b.head}});
            if (head_norm_.weight.empty()) {
                backend_->tanh(b.head, n);
            } else {
                backend_->gelu(b.head, n);
                norm(head_norm_, b.head, n);
            }
        }
        backend_->matmul(head_.rows > 0 ? b.head : b.pooled, n, {{&head_output_, &b.scores}});
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
    norm(final_norm_, buffers_->hidden, n);
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
    for (Buffer* buffer :
         {&b.hidden, &b.input, &b.queries, &b.keys, &b.values, &b.attended, &b.gate, &b.up}) {
        backend_->reserve(*buffer, n);
    }
    backend_->gather(*token_embeddings_, b.ids, b.hidden);
    if (position_embeddings_ != nullptr) backend_->gather(*position_embeddings_, b.positions, b.hidden, true);
    for (std::size_t k = 0; k < frequencies_.size() && !frequencies_[k].empty(); ++k) {
        backend_->reserve(b.angles[k], n);
        for (std::size_t i = 0; i < n; ++i)
            backend_->set_angles(b.angles[k], i, static_cast<std::size_t>(b.positions[i]), frequencies_[k],
                                 1);
    }
    if (type_embeddings_ != nullptr) backend_->gather(*type_embeddings_, b.types, b.hidden, true);
    norm(embedding_norm_, b.hidden, n);
}

void Encoder::run_layer(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    const bool norms_first = !layer.first_norm.weight.empty();
    if (norms_first) norm(layer.first_norm, b.hidden, n, b.input);
    backend_->matmul(norms_first ? b.input : b.hidden, n,
                     {{&layer.query, &b.queries}, {&layer.key, &b.keys}, {&layer.value, &b.values}});
    norm(layer.query_norm, b.queries, n);
    norm(layer.key_norm, b.keys, n);
    if (!frequencies_[0].empty()) {
        for (Buffer* buffer : {&b.queries, &b.keys})
            backend_->rotate(*buffer, n, width_ / n_heads_, b.angles[layer.is_local ? 1 : 0]);
    }
    Scoring scoring;
    scoring.slopes = slopes_;
    scoring.reach = layer.is_local ? reach_ : 0;
    backend_->attention(b.queries, b.keys, b.values, b.sequences, n_heads_, false, *b.keys_and_values, 0,
                        b.attended, scoring);
    const bool adds_twice = !layer.second_norm.weight.empty();
    if (adds_twice) {
        b.rows.resize(n);
        std::iota(b.rows.begin(), b.rows.end(), std::size_t{0});
        backend_->select(b.hidden, b.rows, b.input);
    }
    backend_->matmul(b.attended, n, {{&layer.attention_output, &b.hidden, true}});
    norm(layer.attention_norm, b.hidden, n);
    if (adds_twice) {
        backend_->add(b.input, n, b.hidden);
        norm(layer.second_norm, b.hidden, n);
    }
    feed_forward(layer, n);
    norm(layer.output_norm, b.hidden, n);
}

void Encoder::feed_forward(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    if (layer.router.rows > 0) {
        run_experts(layer, n);
        return;
    }
    const bool norms_first = !layer.feed_forward_norm.weight.empty();
    if (norms_first) norm(layer.feed_forward_norm, b.hidden, n, b.input);
    const Buffer& x = norms_first ? b.input : b.hidden;
    if (layer.gate.rows == 0) {
        backend_->matmul(x, n, {{&layer.up, &b.up}});
        backend_->gelu(b.up, n);
    } else {
        backend_->matmul(x, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}});
        if (architecture_ == "nomic-bert") {
            backend_->silu_multiply(b.gate, b.up, n, b.up);
        } else {
            backend_->gelu(b.gate, n);
            backend_->multiply(b.gate, n, b.up);
        }
    }
    backend_->matmul(b.up, n, {{&layer.down, &b.hidden, true}});
}

void Encoder::run_experts(const Layer& layer, std::size_t n) {
    Buffers& b = *buffers_;
    const std::size_t n_routed = n * n_used_;
    backend_->reserve(b.router, n);
    for (Buffer* buffer : {&b.routed, &b.routed_up}) backend_->reserve(*buffer, n_routed);
    // A rounded score may choose another expert.
    backend_->matmul(b.hidden, n, {{&layer.router, &b.router}}, Rounding::fine);
    backend_->route(b.router, n, n_used_, false, 1, b.routes);
    backend_->gather_routed(b.hidden, b.routes, b.routed);
    backend_->matmul_routed(b.routed, b.routes, {{&layer.up, &b.routed_up}});
    backend_->gelu(b.routed_up, n_routed);
    backend_->matmul_routed(b.routed_up, b.routes, {{&layer.down, &b.routed}});
    backend_->add_routed(b.routed, b.routes, n, b.hidden);
}

void Encoder::norm(const Norm& norm, const Buffer& x, std::size_t n, Buffer& out) {
    backend_->layer_norm(x, n, norm.weight, norm.bias, epsilon_, out);
}

void Encoder::pool(Pooling pooling) {
    Buffers& b = *buffers_;
    backend_->reserve(b.pooled, b.sequences.size());
    if (pooling == Pooling::mean) {
        backend_->average(b.hidden, b.sequences, b.pooled);
        return;
    }
    b.rows.clear();
    for (const auto& rows : b.sequences)
        b.rows.push_back(rows.first_row + (pooling == Pooling::last ? rows.n_rows - 1 : 0));
    backend_->select(b.hidden, b.rows, b.pooled);
}

}  // namespace quarry
