#include "pass.h"

#include <numeric>

namespace quarry {

EncoderPass::EncoderPass(const EncoderModel& model, Backend& backend)
    : model_(model),
      backend_(backend),
      hidden_(model.width),
      input_(model.width),
      queries_(model.width),
      keys_(model.width),
      values_(model.width),
      attended_(model.width),
      gate_(model.feed_forward),
      up_(model.feed_forward),
      angles_{Buffer(model.width / model.n_heads), Buffer(model.width / model.n_heads)},
      router_(model.n_experts),
      routed_(model.n_experts > 0 ? model.width : 0),
      routed_up_(model.n_experts > 0 ? model.feed_forward : 0),
      pooled_(model.width),
      head_(model.width),
      scores_(model.n_scores()) {}

void EncoderPass::run(std::span<const EncoderInput> batch) {
    place(batch);
    embed();
    for (const auto& layer : model_.layers) run_layer(layer, ids_.size());
    norm(model_.final_norm, hidden_, ids_.size());
}

void EncoderPass::place(std::span<const EncoderInput> batch) {
    ids_.clear();
    positions_.clear();
    types_.clear();
    sequences_.clear();
    // A model with one kind of text is told of no second.
    const bool has_types = model_.type_embeddings != nullptr && model_.type_embeddings->rows() > 1;
    for (const auto& input : batch) {
        const std::size_t n = input.tokens.size();
        sequences_.push_back({ids_.size(), n, 0, {}});
        for (std::size_t i = 0; i < n; ++i) {
            ids_.push_back(input.tokens[i]);
            positions_.push_back(static_cast<std::int32_t>(i));
            types_.push_back(has_types && i >= input.second_text ? 1 : 0);
        }
    }
}

void EncoderPass::embed() {
    const std::size_t n = ids_.size();
    for (Buffer* buffer : {&hidden_, &input_, &queries_, &keys_, &values_, &attended_, &gate_, &up_})
        backend_.reserve(*buffer, n);
    backend_.gather(*model_.token_embeddings, ids_, hidden_);
    if (model_.position_embeddings != nullptr)
        backend_.gather(*model_.position_embeddings, positions_, hidden_, true);
    for (std::size_t k = 0; k < angles_.size() && !model_.frequencies[k].empty(); ++k) {
        backend_.reserve(angles_[k], n);
        for (std::size_t i = 0; i < n; ++i) {
            backend_.set_angles(angles_[k], i, static_cast<std::size_t>(positions_[i]), model_.frequencies[k],
                                1);
        }
    }
    if (model_.type_embeddings != nullptr) backend_.gather(*model_.type_embeddings, types_, hidden_, true);
    norm(model_.embedding_norm, hidden_, n);
}

void EncoderPass::run_layer(const EncoderLayer& layer, std::size_t n) {
    attend(layer, n);
    const bool adds_twice = !layer.second_norm.weight.empty();
    if (adds_twice) {
        rows_.resize(n);
        std::iota(rows_.begin(), rows_.end(), std::size_t{0});
        backend_.select(hidden_, rows_, input_);
    }
    backend_.matmul(attended_, n, {{&layer.attention_output, &hidden_, true}});
    norm(layer.attention_norm, hidden_, n);
    if (adds_twice) {
        backend_.add(input_, n, hidden_);
        norm(layer.second_norm, hidden_, n);
    }
    feed_forward(layer, n);
    norm(layer.output_norm, hidden_, n);
}

void EncoderPass::attend(const EncoderLayer& layer, std::size_t n) {
    const bool norms_first = !layer.first_norm.weight.empty();
    if (norms_first) norm(layer.first_norm, hidden_, n, input_);
    backend_.matmul(norms_first ? input_ : hidden_, n,
                    {{&layer.query, &queries_}, {&layer.key, &keys_}, {&layer.value, &values_}});
    norm(layer.query_norm, queries_, n);
    norm(layer.key_norm, keys_, n);
    if (!model_.frequencies[0].empty()) {
        for (Buffer* buffer : {&queries_, &keys_})
            backend_.rotate(*buffer, n, model_.width / model_.n_heads, angles_[layer.is_local ? 1 : 0]);
    }
    Scoring scoring;
    scoring.slopes = model_.slopes;
    scoring.reach = layer.is_local ? model_.reach : 0;
    // Where the weights were rounded, so may be what is multiplied here.
    const bool exact = layer.value.layout == Layout::f32 || layer.value.layout == Layout::f16;
    backend_.attention_within(queries_, keys_, values_, sequences_, model_.n_heads, attended_, scoring,
                              exact ? Rounding::fine : Rounding::coarse);
}

void EncoderPass::feed_forward(const EncoderLayer& layer, std::size_t n) {
    if (layer.router.rows > 0) {
        run_experts(layer, n);
        return;
    }
    const bool norms_first = !layer.feed_forward_norm.weight.empty();
    if (norms_first) norm(layer.feed_forward_norm, hidden_, n, input_);
    const Buffer& x = norms_first ? input_ : hidden_;
    if (layer.gate.rows == 0) {
        backend_.matmul(x, n, {{&layer.up, &up_}});
        backend_.gelu(up_, n);
    } else {
        backend_.matmul(x, n, {{&layer.gate, &gate_}, {&layer.up, &up_}});
        if (model_.architecture == "nomic-bert") {
            backend_.silu_multiply(gate_, up_, n, up_);
        } else {
            backend_.gelu(gate_, n);
            backend_.multiply(gate_, n, up_);
        }
    }
    backend_.matmul(up_, n, {{&layer.down, &hidden_, true}});
}

void EncoderPass::run_experts(const EncoderLayer& layer, std::size_t n) {
    const std::size_t n_routed = n * model_.n_used;
    backend_.reserve(router_, n);
    for (Buffer* buffer : {&routed_, &routed_up_}) backend_.reserve(*buffer, n_routed);
    // A rounded score may choose another expert.
    backend_.matmul(hidden_, n, {{&layer.router, &router_}}, Rounding::fine);
    backend_.route(router_, n, model_.n_used, false, 1, routes_);
    backend_.gather_routed(hidden_, routes_, routed_);
    backend_.matmul_routed(routed_, routes_, {{&layer.up, &routed_up_}});
    backend_.gelu(routed_up_, n_routed);
    backend_.matmul_routed(routed_up_, routes_, {{&layer.down, &routed_}});
    backend_.add_routed(routed_, routes_, n, hidden_);
}

void EncoderPass::norm(const EncoderNorm& norm, const Buffer& x, std::size_t n, Buffer& out) {
    backend_.layer_norm(x, n, norm.weight, norm.bias, model_.epsilon, out);
}

void EncoderPass::gather_pooled(Pooling pooling) {
    backend_.reserve(pooled_, sequences_.size());
    if (pooling == Pooling::mean) {
        backend_.average(hidden_, sequences_, pooled_);
        return;
    }
    rows_.clear();
    for (const auto& rows : sequences_)
        rows_.push_back(rows.first_row + (pooling == Pooling::last ? rows.n_rows - 1 : 0));
    backend_.select(hidden_, rows_, pooled_);
}

void EncoderPass::pool(float* out) {
    gather_pooled(model_.pooling);
    for (std::size_t i = 0; i < sequences_.size(); ++i) backend_.read(pooled_, i, out + i * model_.width);
}

void EncoderPass::score(float* out) {
    const std::size_t n = sequences_.size();
    gather_pooled(model_.head_pooling);
    for (Buffer* buffer : {&head_, &scores_}) backend_.reserve(*buffer, n);
    if (model_.head.rows > 0) {
        backend_.matmul(pooled_, n, {{&model_.head, &head_}});
        if (model_.head_norm.weight.empty()) {
            backend_.tanh(head_, n);
        } else {
            backend_.gelu(head_, n);
            norm(model_.head_norm, head_, n);
        }
    }
    backend_.matmul(model_.head.rows > 0 ? head_ : pooled_, n, {{&model_.head_output, &scores_}});
    for (std::size_t i = 0; i < n; ++i) backend_.read(scores_, i, out + i * model_.n_scores());
}

}  // namespace quarry
