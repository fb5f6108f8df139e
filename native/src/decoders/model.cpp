#include "decoders/model.h"

#include "decoders/architectures.h"

namespace quarry {

struct DecoderModel::Buffers {
    explicit Buffers(const Description& d)
        : hidden(d.width),
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
    Buffer hidden, normed, branch, queries, keys, values, attended, gate, up, shared_gate, scores, routed,
        routed_gate, routed_up, last, logits;
    Routes routes;
    std::vector<Buffer> angles;  // one for each rotary
};

DecoderModel::~DecoderModel() = default;

DecoderModel::DecoderModel(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                           std::size_t context, Head head)
    : file_(std::move(file)), backend_(std::move(backend)), description_(describe_decoder(*file_, context)) {
    const Description& d = description_;
    const std::lock_guard lock(backend_->mutex());
    WeightLoader loader(*file_, *backend_);
    embeddings_ = &loader.table("token_embd", d.vocab_size, d.width);
    for (std::size_t i = 0; i < d.layers.size(); ++i) layers_.push_back(load_layer(loader, i));
    output_norm_ = loader.vector("output_norm", d.width);
    if (head == Head::present) {
        output_ = loader.matrix(loader.has("output.weight") ? "output" : "token_embd", d.vocab_size, d.width);
    }
    loader.check_all_read();
    weight_bytes_ = loader.n_bytes();
    buffers_ = std::make_unique<Buffers>(d);
}

DecoderModel::Layer DecoderModel::load_layer(WeightLoader& loader, std::size_t index) {
    const Description& d = description_;
    const auto name = [&](const char* part) { return layer_tensor(index, part); };
    Layer layer;
    load_attention(loader, index, layer);
    layer.feed_forward_norm = loader.vector(name("ffn_norm"), d.width);
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
        layer.query = loader.matrix(name("attn_q"), queries, d.width, d.row_order, turned);
        layer.key = loader.matrix(name("attn_k"), keys, d.width, d.row_order, turned);
        layer.value = loader.matrix(name("attn_v"), keys, d.width);
    }
    layer.attention_output = loader.matrix(name("attn_output"), d.width, queries);
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
    backend_->gather(*embeddings_, ids, b.hidden);
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
    for (std::size_t i = 0; i < layers_.size(); ++i) {
        run_attention(layers_[i], i, n, sequences, cache);
        run_feed_forward(layers_[i], i, n);
    }
    if (outputs.empty()) return b.last;
    backend_->reserve(b.last, outputs.size());
    backend_->select(b.hidden, outputs, b.last);
    backend_->rms_norm(b.last, outputs.size(), output_norm_, d.epsilon, b.last);
    return b.last;
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
                     Rounding::fine);
    if (d.has_head_norms) {
        backend_->rms_norm(b.queries, n, layer.query_norm, d.epsilon, b.queries);
        backend_->rms_norm(b.keys, n, layer.key_norm, d.epsilon, b.keys);
    }
    backend_->rotate(b.queries, n, d.head_dim, b.angles[shape.rotary]);
    backend_->rotate(b.keys, n, d.head_dim, b.angles[shape.rotary]);
    Scoring scoring = d.scoring;
    scoring.window = shape.window;
    backend_->attention(b.queries, b.keys, b.values, sequences, d.n_heads, true, cache, index, b.attended,
                        scoring);
    add_branch(b.attended, n, layer.attention_output, layer.attention_post_norm, Rounding::coarse);
}

void DecoderModel::run_feed_forward(const Layer& layer, std::size_t index, std::size_t n) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    backend_->rms_norm(b.hidden, n, layer.feed_forward_norm, d.epsilon, b.normed);
    const Rounding late = index >= layers_.size() * 2 / 3 ? Rounding::fine : Rounding::coarse;
    if (d.experts.n > 0) {
        run_experts(layer, n, late);
        add_branch(n, layer.feed_forward_post_norm);
        return;
    }
    backend_->matmul(b.normed, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}});
    multiply_gate(b.gate, b.up, n);
    add_branch(b.gate, n, layer.down, layer.feed_forward_post_norm, late);
}

void DecoderModel::run_experts(const Layer& layer, std::size_t n, Rounding rounding) {
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
                            {{&layer.expert_gate, &b.routed_gate}, {&layer.expert_up, &b.routed_up}});
    multiply_gate(b.routed_gate, b.routed_up, n_routed);
    backend_->matmul_routed(b.routed_gate, b.routes, {{&layer.expert_down, &b.routed}}, rounding);
    if (experts.shared_feed_forward > 0) {
        backend_->reserve(b.shared_gate, n);
        backend_->matmul(b.normed, n,
                         {{&layer.shared_gate, &b.shared_gate}, {&layer.gate, &b.gate}, {&layer.up, &b.up}});
        multiply_gate(b.gate, b.up, n);
        backend_->matmul(b.gate, n, {{&layer.down, &b.branch}}, rounding);
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
