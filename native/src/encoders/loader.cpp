#include <algorithm>
#include <array>
#include <cmath>

#include "model.h"

namespace quarry {

namespace {

constexpr std::uint64_t kMaxContext = 1 << 20;
constexpr std::uint64_t kMaxScores = 1024;
constexpr std::uint64_t kMaxExperts = 1024;

constexpr std::array<std::string_view, 5> kArchitectures = {"bert", "nomic-bert", "nomic-bert-moe",
                                                            "jina-bert-v2", "modern-bert"};

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

class Loader {
  public:
    Loader(std::shared_ptr<const GgufFile> file, Backend& backend);
    EncoderModel load();

  private:
    void load_sizes();
    void load_positions();
    void load_reach();
    void load_embeddings();
    void load_head();
    void load_layer(std::size_t index);
    void load_attention(EncoderLayer& layer, const std::string& prefix);
    void load_feed_forward(EncoderLayer& layer, const std::string& prefix);
    void load_experts(EncoderLayer& layer, const std::string& prefix);
    Rounding usual_rounding() const;
    Weight load(const std::string& name, std::size_t rows, std::size_t width, Rounding rounding);
    // Rows [first, first + rows) of a matrix of `all` rows.
    Weight load_rows(const std::string& name, std::size_t all, std::size_t first, std::size_t rows,
                     std::size_t width, Rounding rounding);
    std::vector<float> load_vector(const std::string& name);
    EncoderNorm load_norm(const std::string& name, bool required = true);

    const GgufFile& file_;
    Backend& backend_;
    std::string prefix_;
    EncoderModel model_;
};

Loader::Loader(std::shared_ptr<const GgufFile> file, Backend& backend) : file_(*file), backend_(backend) {
    model_.file = std::move(file);
    model_.architecture = file_.string("general.architecture");
    prefix_ = model_.architecture + ".";
    if (std::find(kArchitectures.begin(), kArchitectures.end(), model_.architecture) ==
        kArchitectures.end()) {
        throw GgufError("architecture '" + model_.architecture.substr(0, 80) +
                        "' is not supported for embeddings; supported are bert, nomic-bert, nomic-bert-moe, "
                        "jina-bert-v2, modern-bert");
    }
}

EncoderModel Loader::load() {
    load_sizes();
    load_embeddings();
    for (std::size_t i = 0; i < model_.n_layers; ++i) load_layer(i);
    load_head();
    return std::move(model_);
}

void Loader::load_sizes() {
    model_.context_length = file_.integer(prefix_ + "context_length", 1, kMaxContext);
    model_.width = file_.integer(prefix_ + "embedding_length", 1, kMaxWidth);
    model_.n_layers = file_.integer(prefix_ + "block_count", 1, kMaxLayers);
    model_.feed_forward = file_.integer(prefix_ + "feed_forward_length", 1, kMaxWidth);
    model_.n_heads = file_.integer(prefix_ + "attention.head_count", 1, kMaxHeads);
    if (model_.width % model_.n_heads != 0 || model_.width / model_.n_heads > kMaxHeadDim) {
        throw GgufError("key '" + prefix_ + "attention.head_count' is " + std::to_string(model_.n_heads) +
                        ", which does not divide the width " + std::to_string(model_.width) +
                        " into heads of at most " + std::to_string(kMaxHeadDim));
    }
    model_.epsilon = static_cast<float>(file_.real(prefix_ + "attention.layer_norm_epsilon", 0, 1));
    if (model_.architecture == "nomic-bert-moe") {
        model_.n_experts = file_.integer(prefix_ + "expert_count", 1, kMaxExperts);
        model_.n_used = file_.integer(prefix_ + "expert_used_count", 1, model_.n_experts);
        model_.expert_period = file_.integer(prefix_ + "moe_every_n_layers", 2, kMaxLayers);
    }
    const auto pooling =
        file_.integer(prefix_ + "pooling_type", 0, 10, static_cast<std::uint64_t>(Pooling::mean));
    if (pooling < static_cast<std::uint64_t>(Pooling::mean) ||
        pooling > static_cast<std::uint64_t>(Pooling::rank)) {
        throw GgufError("key '" + prefix_ + "pooling_type' is " + std::to_string(pooling) +
                        "; supported are 1 (mean), 2 (cls), 3 (last) and 4 (rank)");
    }
    model_.pooling = static_cast<Pooling>(pooling);
}

void Loader::load_embeddings() {
    model_.token_embeddings = file_.find_tensor("token_embd.weight");
    if (model_.token_embeddings == nullptr) throw GgufError("tensor 'token_embd.weight' is missing");
    model_.vocab_size = model_.token_embeddings->rows();
    file_.tensor("token_embd.weight", std::array<std::uint64_t, 2>{model_.width, model_.vocab_size});
    model_.type_embeddings = file_.find_tensor("token_types.weight");
    if (model_.type_embeddings != nullptr) {
        file_.tensor("token_types.weight",
                     std::array<std::uint64_t, 2>{model_.width, model_.type_embeddings->rows()});
    }
    load_positions();
    for (const auto* table : {model_.token_embeddings, model_.position_embeddings, model_.type_embeddings}) {
        if (table != nullptr) backend_.check_readable(*table);
    }
    model_.embedding_norm = load_norm("token_embd_norm");
    model_.final_norm = load_norm("output_norm", model_.architecture == "modern-bert");
}

void Loader::load_positions() {
    if (model_.architecture == "bert") {
        model_.position_embeddings = &file_.tensor(
            "position_embd.weight", std::array<std::uint64_t, 2>{model_.width, model_.context_length});
        return;
    }
    if (model_.architecture == "jina-bert-v2") {
        model_.slopes = slopes_of(model_.n_heads);
        return;
    }
    const std::size_t head_dim = model_.width / model_.n_heads;
    if (head_dim % 2 != 0) {
        throw GgufError("key '" + prefix_ + "attention.head_count' makes heads of " +
                        std::to_string(head_dim) + " values; rotary positions need an even number");
    }
    const std::string_view scaling = file_.string(prefix_ + "rope.scaling.type", "none");
    if (scaling != "none") {
        throw GgufError("key '" + prefix_ + "rope.scaling.type' is '" + std::string(scaling.substr(0, 40)) +
                        "'; supported is none");
    }
    const double base = file_.real(prefix_ + "rope.freq_base", 1, 1e12, 10000);
    const double local = file_.real(prefix_ + "rope.freq_base_swa", 1, 1e12, base);
    model_.frequencies = {frequencies(base, head_dim), frequencies(local, head_dim)};
    if (model_.architecture == "modern-bert") load_reach();
}

void Loader::load_reach() {
    const std::string_view activation = file_.string(prefix_ + "hidden_activation", "gelu");
    if (activation != "gelu") {
        throw GgufError("key '" + prefix_ + "hidden_activation' is '" +
                        std::string(activation.substr(0, 40)) + "'; supported is gelu");
    }
    model_.reach = file_.integer(prefix_ + "attention.sliding_window", 0, kMaxContext, 0) / 2;
    const std::string key = prefix_ + "attention.sliding_window_pattern";
    model_.local_period = file_.integer(key, 1, kMaxLayers, 3);
}

void Loader::load_head() {
    const GgufTensor* output = file_.find_tensor("cls.output.weight");
    const GgufTensor* inner = file_.find_tensor("cls.weight");
    if (output == nullptr && inner == nullptr) return;
    // Heads of one matrix are written under either name.
    const GgufTensor& last = output == nullptr ? *inner : *output;
    if (last.rows() > kMaxScores) {
        throw GgufError("tensor '" + last.name.substr(0, 80) + "' has " + std::to_string(last.rows()) +
                        " rows; a head has at most " + std::to_string(kMaxScores));
    }
    // As llama.cpp has it, unless the file says otherwise.
    const std::string key = "quarry.classifier.pooling";
    const std::string_view pooling = file_.string(key, model_.architecture == "modern-bert" ? "mean" : "cls");
    if (pooling != "mean" && pooling != "cls") {
        throw GgufError("key '" + key + "' is '" + std::string(pooling.substr(0, 40)) +
                        "'; supported are cls and mean");
    }
    model_.head_pooling = pooling == "mean" ? Pooling::mean : Pooling::cls;
    if (output != nullptr && inner != nullptr) {
        model_.head = load("cls", model_.width, model_.width, Rounding::fine);
        model_.head_norm = load_norm("cls.norm", false);
    }
    model_.head_output =
        load(output == nullptr ? "cls" : "cls.output", last.rows(), model_.width, Rounding::fine);
}

Weight Loader::load(const std::string& name, std::size_t rows, std::size_t width, Rounding rounding) {
    return load_rows(name, rows, 0, rows, width, rounding);
}

Weight Loader::load_rows(const std::string& name, std::size_t all, std::size_t first, std::size_t rows,
                         std::size_t width, Rounding rounding) {
    const auto& tensor = file_.tensor(name + ".weight", std::array<std::uint64_t, 2>{width, all});
    Weight weight = backend_.load_rounded(file_, rows_of(tensor, first, rows), rounding);
    if (file_.find_tensor(name + ".bias") != nullptr) {
        auto bias = backend_.load_bias(file_.tensor(name + ".bias", std::array<std::uint64_t, 1>{all}));
        bias.erase(bias.begin(), bias.begin() + static_cast<std::ptrdiff_t>(first));
        bias.resize((rows + kTileRows - 1) / kTileRows * kTileRows);
        weight.bias = std::move(bias);
    }
    model_.weight_bytes += weight.tiles.size();
    return weight;
}

std::vector<float> Loader::load_vector(const std::string& name) {
    return backend_.load_vector(file_.tensor(name, std::array<std::uint64_t, 1>{model_.width}));
}

EncoderNorm Loader::load_norm(const std::string& name, bool required) {
    if (!required && file_.find_tensor(name + ".weight") == nullptr) return {};
    const bool has_bias =
        file_.find_tensor(name + ".bias") != nullptr || model_.architecture != "modern-bert";
    return {load_vector(name + ".weight"),
            has_bias ? load_vector(name + ".bias") : std::vector<float>(model_.width)};
}

void Loader::load_layer(std::size_t index) {
    const std::string prefix = "blk." + std::to_string(index) + ".";
    EncoderLayer layer;
    load_attention(layer, prefix);
    if (model_.expert_period > 0 && index % model_.expert_period == 1) {
        load_experts(layer, prefix);
    } else {
        load_feed_forward(layer, prefix);
    }
    if (model_.architecture == "modern-bert") {
        layer.first_norm = load_norm(prefix + "attn_norm", index > 0);
        layer.feed_forward_norm = load_norm(prefix + "ffn_norm");
        layer.is_local = model_.reach > 0 && index % model_.local_period != 0;
    } else {
        layer.attention_norm = load_norm(prefix + "attn_output_norm");
        layer.second_norm = load_norm(prefix + "attn_norm_2", false);
        layer.output_norm = load_norm(prefix + "layer_output_norm");
    }
    model_.layers.push_back(std::move(layer));
}

// Measured on MiniLM, by giving one matrix after another exact inputs and weights: eight bits for the weights
// of all and the inputs of all but one leave a cosine of 0.9991, and the values alone cost as much as all
// others. Gated feed-forwards were not measured.
Rounding Loader::usual_rounding() const {
    return model_.architecture == "bert" ? Rounding::medium : Rounding::fine;
}

void Loader::load_attention(EncoderLayer& layer, const std::string& prefix) {
    if (file_.find_tensor(prefix + "attn_qkv.weight") != nullptr) {
        const std::string name = prefix + "attn_qkv";
        layer.query = load_rows(name, 3 * model_.width, 0, model_.width, model_.width, usual_rounding());
        layer.key =
            load_rows(name, 3 * model_.width, model_.width, model_.width, model_.width, usual_rounding());
        layer.value =
            load_rows(name, 3 * model_.width, 2 * model_.width, model_.width, model_.width, Rounding::fine);
    } else {
        layer.query = load(prefix + "attn_q", model_.width, model_.width, usual_rounding());
        layer.key = load(prefix + "attn_k", model_.width, model_.width, usual_rounding());
        layer.value = load(prefix + "attn_v", model_.width, model_.width, Rounding::fine);
    }
    layer.query_norm = load_norm(prefix + "attn_q_norm", false);
    layer.key_norm = load_norm(prefix + "attn_k_norm", false);
    layer.attention_output = load(prefix + "attn_output", model_.width, model_.width, usual_rounding());
}

void Loader::load_feed_forward(EncoderLayer& layer, const std::string& prefix) {
    const std::string name = prefix + "ffn_up";
    const bool has_gate = file_.find_tensor(prefix + "ffn_gate.weight") != nullptr;
    if (has_gate || model_.architecture == "bert" || model_.n_experts > 0) {
        if (has_gate)
            layer.gate = load(prefix + "ffn_gate", model_.feed_forward, model_.width, usual_rounding());
        layer.up = load(name, model_.feed_forward, model_.width, usual_rounding());
    } else {
        // One matrix for both, the gate first; but Jina's models with norms of queries and keys have it last.
        const bool is_last = !layer.query_norm.weight.empty();
        const std::size_t n = model_.feed_forward;
        layer.gate = load_rows(name, 2 * n, is_last ? n : 0, n, model_.width, usual_rounding());
        layer.up = load_rows(name, 2 * n, is_last ? 0 : n, n, model_.width, usual_rounding());
    }
    layer.down = load(prefix + "ffn_down", model_.width, model_.feed_forward, usual_rounding());
}

void Loader::load_experts(EncoderLayer& layer, const std::string& prefix) {
    layer.router = load(prefix + "ffn_gate_inp", model_.n_experts, model_.width, Rounding::fine);
    const auto matrices = [&](const char* name, std::size_t rows, std::size_t width) {
        const auto& tensor =
            file_.tensor(prefix + name, std::array<std::uint64_t, 3>{width, rows, model_.n_experts});
        Weight weight = backend_.load_experts(file_, tensor);
        model_.weight_bytes += weight.tiles.size();
        return weight;
    };
    layer.up = matrices("ffn_up_exps.weight", model_.feed_forward, model_.width);
    layer.down = matrices("ffn_down_exps.weight", model_.width, model_.feed_forward);
}

}  // namespace

std::vector<std::string_view> encoder_architectures() {
    return {kArchitectures.begin(), kArchitectures.end()};
}

EncoderModel load_encoder(std::shared_ptr<const GgufFile> file, Backend& backend) {
    return Loader(std::move(file), backend).load();
}

}  // namespace quarry
