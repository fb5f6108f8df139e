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
          gate(d.feed_forward),
          up(d.feed_forward),
          last(d.width),
          logits(d.vocab_size) {
        for (const auto& rotary : d.rotaries) angles.emplace_back(2 * rotary.frequencies.size());
    }
    Buffer hidden, normed, branch, queries, keys, values, attended, gate, up, last, logits;
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
    const std::size_t n = d.feed_forward;
    if (d.joins_gate_and_up) {
        layer.gate = loader.some_rows(name("ffn_up"), 2 * n, d.width, 0, n);
        layer.up = loader.some_rows(name("ffn_up"), 2 * n, d.width, n, n);
    } else {
        layer.gate = loader.matrix(name("ffn_gate"), n, d.width);
        layer.up = loader.matrix(name("ffn_up"), n, d.width);
    }
    layer.down = loader.matrix(name("ffn_down"), d.width, n);
    return layer;
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
    backend_->matmul(b.normed, n, {{&layer.gate, &b.gate}, {&layer.up, &b.up}});
    if (d.activation == Activation::gelu) {
        backend_->gelu_multiply(b.gate, b.up, n, b.gate);
    } else {
        backend_->silu_multiply(b.gate, b.up, n, b.gate);
    }
    const Rounding late = index >= layers_.size() * 2 / 3 ? Rounding::fine : Rounding::coarse;
    add_branch(b.gate, n, layer.down, layer.feed_forward_post_norm, late);
}

void DecoderModel::add_branch(const Buffer& x, std::size_t n, const Weight& weight,
                              const std::vector<float>& post_norm, Rounding rounding) {
    const Description& d = description_;
    Buffers& b = *buffers_;
    if (post_norm.empty() && d.residual_scale == 1) {
        backend_->matmul(x, n, {{&weight, &b.hidden, true}}, rounding);
        return;
    }
    backend_->matmul(x, n, {{&weight, &b.branch}}, rounding);
    if (!post_norm.empty()) backend_->rms_norm(b.branch, n, post_norm, d.epsilon, b.branch);
    if (d.residual_scale != 1) backend_->scale(b.branch, n, d.residual_scale);
    backend_->add(b.branch, n, b.hidden);
}

}  // namespace quarry
