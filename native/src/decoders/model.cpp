#include "decoders/model.h"

#include <algorithm>

#include "decoders/architectures.h"

namespace quarry {

namespace {

// Models of rows narrower than this are multiplied finely throughout. A narrow model has few numbers to
// average the errors of rounding, and so little to compute that it can afford it.
constexpr std::size_t kNarrow = 1024;

// Many models give a text's first token a state a thousand times as large as others have, and one of the last
// layers takes it back: what is left is a small difference, so these layers' gates are multiplied finely. See
// docs/performance.md for what that and the other fine matrices bring.
constexpr std::size_t kUndoing = 2;

}  // namespace

struct DecoderModel::Buffers {
    explicit Buffers(const Description& d)
        : attention_gates(d.gates_attention ? d.n_heads * d.head_dim : 0),
          mixed(d.delta.mixed()),
          convolved(d.delta.mixed()),
          decays(d.delta.n_value_heads),
          rates(d.delta.n_value_heads),
          gates(d.delta.values()),
          given(d.delta.values()),
          hidden(d.width),
          normed(d.width),
          branch(d.width),
          queries(d.n_heads * d.head_dim),
          keys(d.n_kv_heads * d.head_dim),
          values(d.n_kv_heads * d.head_dim),
          attended(d.n_heads * d.head_dim),
          gate(d.experts.n > 0 ? d.experts.shared_feed_forward : d.feed_forward),
          up(gate.width()),
          shared_gate(1),
          scores(d.experts.n),
          routed(d.experts.n > 0 ? d.width : 0),
          routed_gate(d.experts.feed_forward),
          routed_up(d.experts.feed_forward),
          last(d.width),
          logits(d.vocab_size) {
        for (const auto& rotary : d.rotaries) angles.emplace_back(2 * rotary.frequencies.size());
    }
    Buffer attention_gates, mixed, convolved, decays, rates, gates, given;  // of models with recurrent layers
    Buffer hidden, normed, branch, queries, keys, values, attended, gate, up, shared_gate, scores, routed,
        routed_gate, routed_up, last, logits;
    Routes routes;
    std::vector<Buffer> angles;  // one for each rotary
};

DecoderModel::~DecoderModel() = default;

DecoderModel::DecoderModel(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                           std::size_t context, Head head)
    : file_(std::move(file)),
      backend_(std::move(backend)),
      description_(describe_decoder(*file_, context)),
      rounding_(description_.width < kNarrow ? Rounding::fine : Rounding::coarse) {
    const Description& d = description_;
    const std::lock_guard lock(backend_->mutex());
    WeightLoader loader(*file_, *backend_);
    embeddings_ = &loader.table("token_embd", d.vocab_size, d.width);
    for (std::size_t i = 0; i < d.layers.size(); ++i) layers_.push_back(load_layer(loader, i));
    output_norm_ = loader.vector("output_norm", d.width);
    if (head == Head::present) {
        output_ = loader.matrix(loader.has("output.weight") ? "output" : "token_embd", d.vocab_size, d.width);
    }
    loader.check_all_read(d.layers.size());
    weight_bytes_ = loader.n_bytes();
    file_->drop_all();
    buffers_ = std::make_unique<Buffers>(d);
}

DecoderModel::Layer DecoderModel::load_layer(WeightLoader& loader, std::size_t index) {
    const Description& d = description_;
    const auto name = [&](const char* part) { return layer_tensor(index, part); };
    Layer layer;
    std::size_t& n_before = d.layers[index].is_recurrent ? n_recurrent_layers_ : n_cached_layers_;
    layer.place = n_before++;
    if (d.layers[index].is_recurrent) {
        load_delta(loader, index, layer);
    } else {
        load_attention(loader, index, layer);
    }
    layer.feed_forward_norm = loader.vector(layer_tensor(index, d.feed_forward_norm), d.width);
    if (d.has_post_norms) {
        layer.attention_post_norm = loader.vector(name("post_attention_norm"), d.width);
        layer.feed_forward_post_norm = loader.vector(name("post_ffw_norm"), d.width);
    }
    if (d.experts.n > 0) {
        load_experts(loader, index, layer);
    } else {
        load_dense(loader, index, layer);
    }
    return layer;
}

void DecoderModel::load_dense(WeightLoader& loader, std::size_t index, Layer& layer) {
    const Description& d = description_;
    const std::string up = layer_tensor(index, "ffn_up");
    const std::size_t n = d.feed_forward;
    if (d.joins_gate_and_up) {
        layer.gate = loader.some_rows(up, 2 * n, d.width, 0, n);
        layer.up = loader.some_rows(up, 2 * n, d.width, n, n);
    } else {
        layer.gate = loader.matrix(layer_tensor(index, "ffn_gate"), n, d.width);
        layer.up = loader.matrix(up, n, d.width);
    }
    layer.down = loader.matrix(layer_tensor(index, "ffn_down"), d.width, n);
}

void DecoderModel::load_experts(WeightLoader& loader, std::size_t index, Layer& layer) {
    const Description& d = description_;
    const Experts& experts = d.experts;
    const auto name = [&](const char* part) { return layer_tensor(index, part); };
    layer.router = loader.matrix(name("ffn_gate_inp"), experts.n, d.width);
    layer.expert_gate = loader.experts(name("ffn_gate_exps"), experts.n, experts.feed_forward, d.width);
    layer.expert_up = loader.experts(name("ffn_up_exps"), experts.n, experts.feed_forward, d.width);
    layer.expert_down = loader.experts(name("ffn_down_exps"), experts.n, d.width, experts.feed_forward);
    if (experts.shared_feed_forward == 0) return;
    const std::size_t n = experts.shared_feed_forward;
    layer.shared_gate = loader.matrix(name("ffn_gate_inp_shexp"), 1, d.width);
    layer.gate = loader.matrix(name("ffn_gate_shexp"), n, d.width);
    layer.up = loader.matrix(name("ffn_up_shexp"), n, d.width);
    layer.down = loader.matrix(name("ffn_down_shexp"), d.width, n);
}

void DecoderModel::load_attention(WeightLoader& loader, std::size_t index, Layer& layer) {
    const Description& d = description_;
    const auto name = [&](const char* part) { return layer_tensor(index, part); };
    const std::size_t queries = d.n_heads * d.head_dim;
    const std::size_t keys = d.n_kv_heads * d.head_dim;
    const HeadShape turned{d.head_dim, d.n_rotated};
    layer.attention_norm = loader.vector(name("attn_norm"), d.width);
    if (d.has_head_norms) {
        layer.query_norm = loader.vector(name("attn_q_norm"), d.head_dim);
        layer.key_norm = loader.vector(name("attn_k_norm"), d.head_dim);
    }
    const std::string joined = name("attn_qkv");
    if (loader.has(joined + ".weight")) {
        const std::size_t all = queries + 2 * keys;
        layer.query = loader.some_rows(joined, all, d.width, 0, queries, d.row_order, turned);
        layer.key = loader.some_rows(joined, all, d.width, queries, keys, d.row_order, turned);
        layer.value = loader.some_rows(joined, all, d.width, queries + keys, keys);
    } else {
        if (d.gates_attention) {
            const HeadShape query{d.head_dim, d.n_rotated, 2 * d.head_dim, 0};
            const HeadShape gate{d.head_dim, 0, 2 * d.head_dim, d.head_dim};
            layer.query = loader.head_rows(name("attn_q"), d.n_heads, d.width, d.row_order, query);
            layer.attention_gate =
                loader.head_rows(name("attn_q"), d.n_heads, d.width, RowOrder::halves, gate);
        } else {
            layer.query = loader.matrix(name("attn_q"), queries, d.width, d.row_order, turned);
        }
        layer.key = loader.matrix(name("attn_k"), keys, d.width, d.row_order, turned);
        layer.value = loader.matrix(name("attn_v"), keys, d.width);
    }
    layer.attention_output = loader.matrix(name("attn_output"), d.width, queries);
}

void DecoderModel::load_delta(WeightLoader& loader, std::size_t index, Layer& layer) {
    const Description& d = description_;
    const DeltaShape& shape = d.delta;
    const std::size_t n = shape.n_value_heads;
    const auto name = [&](const char* part) { return layer_tensor(index, part); };
    layer.attention_norm = loader.vector(name("attn_norm"), d.width);
    layer.mixed = loader.matrix(name("attn_qkv"), shape.mixed(), d.width);
    layer.attention_gate = loader.matrix(name("attn_gate"), shape.values(), d.width);
    layer.decay = loader.matrix(name("ssm_alpha"), n, d.width);
    layer.rate = loader.matrix(name("ssm_beta"), n, d.width);
    layer.taps = loader.columns(name("ssm_conv1d"), shape.mixed(), shape.n_taps);
    layer.delta.rates = loader.vector(name("ssm_a"), n, "");
    layer.delta.biases = loader.vector(name("ssm_dt"), n, ".bias");
    layer.delta_norm = loader.vector(name("ssm_norm"), shape.value_dim);
    layer.attention_output = loader.matrix(name("ssm_out"), d.width, shape.values());
}

const Buffer& DecoderModel::forward(std::span<const std::int32_t> ids,
                                    std::span<const SequenceRows> sequences,
                                    std::span<const std::size_t> outputs, KvCache& cache) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    states(ids, sequences, outputs, cache);
    if (outputs.empty()) return b.logits;
    backend_->reserve(b.logits, outputs.size());
    if (d.logit_scale != 1) backend_->scale(b.last, outputs.size(), d.logit_scale);
    backend_->matmul(b.last, outputs.size(), {{&output_, &b.logits}}, Rounding::fine);
    if (d.logit_soft_cap > 0) backend_->soft_cap(b.logits, outputs.size(), d.logit_soft_cap);
    return b.logits;
}

const Buffer& DecoderModel::states(std::span<const std::int32_t> ids, std::span<const SequenceRows> sequences,
                                   std::span<const std::size_t> outputs, KvCache& cache) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    const std::size_t n = ids.size();
    for (Buffer* buffer :
         {&b.hidden, &b.normed, &b.branch, &b.queries, &b.keys, &b.values, &b.attended, &b.gate, &b.up}) {
        backend_->reserve(*buffer, n);
    }
    embed(ids);
    if (d.embedding_scale != 1) backend_->scale(b.hidden, n, d.embedding_scale);
    for (std::size_t r = 0; r < d.rotaries.size(); ++r) {
        backend_->reserve(b.angles[r], n);
        for (const auto& rows : sequences) {
            for (std::size_t i = 0; i < rows.n_rows; ++i) {
                backend_->set_angles(b.angles[r], rows.first_row + i, rows.first_position + i,
                                     d.rotaries[r].frequencies, d.rotaries[r].magnitude);
            }
        }
    }
    if (is_recurrent()) {
        for (Buffer* buffer : {&b.mixed, &b.convolved, &b.decays, &b.rates, &b.gates, &b.given})
            backend_->reserve(*buffer, n);
        for (const auto& rows : sequences) {
            if (rows.first_position == 0)
                backend_->reset(*rows.state, n_recurrent_layers_ * d.delta.state_size());
        }
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        if (d.layers[i].is_recurrent) {
            run_delta(layers_[i], n, sequences);
        } else {
            run_attention(layers_[i], i, n, sequences, cache);
        }
        run_feed_forward(layers_[i], i, n);
    }
    if (outputs.empty()) return b.last;
    backend_->reserve(b.last, outputs.size());
    backend_->select(b.hidden, outputs, b.last);
    backend_->rms_norm(b.last, outputs.size(), output_norm_, d.epsilon, b.last);
    return b.last;
}

void DecoderModel::embed(std::span<const std::int32_t> ids) {
    // With each row that is touched the kernel maps the pages around it, up to 2 MB: of a large table most
    // would be resident after one long prompt, and all of it in the end.
    constexpr std::size_t kRows = 8;
    for (std::size_t at = 0; at < ids.size(); at += kRows) {
        const std::size_t n = std::min(kRows, ids.size() - at);
        backend_->gather(*embeddings_, ids.subspan(at, n), buffers_->hidden, false, at);
        MappedFile::drop(embeddings_->bytes);
    }
}

// Where rounding hurts most was measured on SmolLM2 by giving one kind of matrix after another exact inputs;
// see docs/performance.md.
void DecoderModel::run_attention(const Layer& layer, std::size_t index, std::size_t n,
                                 std::span<const SequenceRows> sequences, KvCache& cache) {
    const Description& d = description_;
    const LayerShape& shape = d.layers[index];
    Buffers& b = *buffers_;
    backend_->rms_norm(b.hidden, n, layer.attention_norm, d.epsilon, b.normed);
    backend_->matmul(b.normed, n,
                     {{&layer.query, &b.queries}, {&layer.key, &b.keys}, {&layer.value, &b.values}},
                     rounding_ == Rounding::fine ? Rounding::fine : Rounding::medium);
    if (d.has_head_norms) {
        backend_->rms_norm(b.queries, n, layer.query_norm, d.epsilon, b.queries);
        backend_->rms_norm(b.keys, n, layer.key_norm, d.epsilon, b.keys);
    }
    backend_->rotate(b.queries, n, d.head_dim, b.angles[shape.rotary]);
    backend_->rotate(b.keys, n, d.head_dim, b.angles[shape.rotary]);
    Scoring scoring = d.scoring;
    scoring.window = shape.window;
    backend_->attention(b.queries, b.keys, b.values, sequences, d.n_heads, true, cache, layer.place,
                        b.attended, scoring);
    if (d.gates_attention) {
        backend_->reserve(b.attention_gates, n);
        backend_->matmul(b.normed, n, {{&layer.attention_gate, &b.attention_gates}}, rounding_);
        backend_->sigmoid_multiply(b.attention_gates, n, b.attended);
    }
    add_branch(b.attended, n, layer.attention_output, layer.attention_post_norm, rounding_);
}

void DecoderModel::run_delta(const Layer& layer, std::size_t n, std::span<const SequenceRows> sequences) {
    const Description& d = description_;
    const std::size_t state = layer.place * d.delta.state_size();
    Buffers& b = *buffers_;
    backend_->rms_norm(b.hidden, n, layer.attention_norm, d.epsilon, b.normed);
    backend_->matmul(b.normed, n,
                     {{&layer.mixed, &b.mixed},
                      {&layer.attention_gate, &b.gates},
                      {&layer.decay, &b.decays},
                      {&layer.rate, &b.rates}},
                     Rounding::fine);
    backend_->convolve(b.mixed, sequences, layer.taps, state, b.convolved);
    backend_->gated_delta(b.convolved, b.decays, b.rates, sequences, d.delta, layer.delta, d.epsilon,
                          state + d.delta.history_size(), b.given);
    backend_->rms_norm(b.given, n, layer.delta_norm, d.epsilon, b.given);
    backend_->silu_multiply(b.gates, b.given, n, b.given);
    add_branch(b.given, n, layer.attention_output, layer.attention_post_norm, rounding_);
}

void DecoderModel::run_feed_forward(const Layer& layer, std::size_t index, std::size_t n) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    backend_->rms_norm(b.hidden, n, layer.feed_forward_norm, d.epsilon, b.normed);
    const Rounding inputs = index + kUndoing >= layers_.size() ? Rounding::fine : rounding_;
    if (d.experts.n > 0) {
        run_experts(layer, n, inputs);
        add_branch(n, layer.feed_forward_post_norm);
        return;
    }
    backend_->matmul(b.normed, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}}, inputs);
    multiply_gate(b.gate, b.up, n);
    add_branch(b.gate, n, layer.down, layer.feed_forward_post_norm, rounding_);
}

void DecoderModel::run_experts(const Layer& layer, std::size_t n, Rounding inputs) {
    const Experts& experts = description_.experts;
    Buffers& b = *buffers_;
    const std::size_t n_routed = n * experts.n_used;
    backend_->reserve(b.scores, n);
    for (Buffer* buffer : {&b.routed, &b.routed_gate, &b.routed_up}) backend_->reserve(*buffer, n_routed);
    // A rounded score may choose another expert.
    backend_->matmul(b.normed, n, {{&layer.router, &b.scores}}, Rounding::fine);
    backend_->route(b.scores, n, experts.n_used, experts.normalizes, experts.scale, b.routes);
    backend_->gather_routed(b.normed, b.routes, b.routed);
    backend_->matmul_routed(b.routed, b.routes,
                            {{&layer.expert_gate, &b.routed_gate}, {&layer.expert_up, &b.routed_up}}, inputs);
    multiply_gate(b.routed_gate, b.routed_up, n_routed);
    backend_->matmul_routed(b.routed_gate, b.routes, {{&layer.expert_down, &b.routed}}, rounding_);
    if (experts.shared_feed_forward > 0) {
        backend_->reserve(b.shared_gate, n);
        backend_->matmul(b.normed, n,
                         {{&layer.shared_gate, &b.shared_gate}, {&layer.gate, &b.gate}, {&layer.up, &b.up}},
                         inputs);
        multiply_gate(b.gate, b.up, n);
        backend_->matmul(b.gate, n, {{&layer.down, &b.branch}}, rounding_);
        backend_->sigmoid_scale(b.shared_gate, n, b.branch);
    } else {
        backend_->clear(b.branch, n);
    }
    backend_->add_routed(b.routed, b.routes, n, b.branch);
}

void DecoderModel::multiply_gate(Buffer& gate, const Buffer& up, std::size_t n) {
    if (description_.activation == Activation::gelu) {
        backend_->gelu_multiply(gate, up, n, gate);
    } else {
        backend_->silu_multiply(gate, up, n, gate);
    }
}

void DecoderModel::add_branch(const Buffer& x, std::size_t n, const Weight& weight,
                              const std::vector<float>& post_norm, Rounding rounding) {
    Buffers& b = *buffers_;
    if (post_norm.empty() && description_.residual_scale == 1) {
        backend_->matmul(x, n, {{&weight, &b.hidden, true}}, rounding);
        return;
    }
    backend_->matmul(x, n, {{&weight, &b.branch}}, rounding);
    add_branch(n, post_norm);
}

void DecoderModel::add_branch(std::size_t n, const std::vector<float>& post_norm) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    if (!post_norm.empty()) backend_->rms_norm(b.branch, n, post_norm, d.epsilon, b.branch);
    if (d.residual_scale != 1) backend_->scale(b.branch, n, d.residual_scale);
    backend_->add(b.branch, n, b.hidden);
}

}  // namespace quarry
