// A decoder's weights, and the operations that turn tokens into logits.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backend.h"
#include "decoders/description.h"
#include "decoders/weight_loader.h"

namespace quarry {

enum class Head : std::uint8_t { present, absent };  // a model without one has states, but no logits

class DecoderModel {
  public:
    // `context` is the longest sequence that will be served. Throws: GgufError, std::bad_alloc.
    DecoderModel(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend, std::size_t context,
                 Head head = Head::present);
    ~DecoderModel();

    const Description& description() const { return description_; }
    std::size_t weight_bytes() const { return weight_bytes_; }
    std::size_t n_cached_layers() const { return n_cached_layers_; }
    // Whether sequences carry a state, which cannot be taken back; SequenceRows must name it.
    bool is_recurrent() const { return n_cached_layers_ < layers_.size(); }

    // Runs the layers over tokens `ids`, of which each sequence has its rows; keys and values go to `cache`.
    // Returns the logits of the rows `outputs`, valid until the next call.
    const Buffer& forward(std::span<const std::int32_t> ids, std::span<const SequenceRows> sequences,
                          std::span<const std::size_t> outputs, KvCache& cache);

    // The same up to the final norm: the states of the rows `outputs`, valid until the next call.
    const Buffer& states(std::span<const std::int32_t> ids, std::span<const SequenceRows> sequences,
                         std::span<const std::size_t> outputs, KvCache& cache);

  private:
    struct Layer {
        std::vector<float> attention_norm, query_norm, key_norm, attention_post_norm;
        Weight query, key, value, attention_gate, attention_output;
        // Of a recurrent layer, which has none of query, key and value.
        Weight mixed, decay, rate;
        std::vector<float> taps, delta_norm;
        DeltaWeights delta;
        std::size_t place = 0;  // among the layers of its kind: in the cache, or in the state
        std::vector<float> feed_forward_norm, feed_forward_post_norm;
        // Of the one network, or of the expert that every token uses.
        Weight gate, up, down;
        Weight shared_gate;  // [1][width]: how much of that expert
        Weight router, expert_gate, expert_up, expert_down;
    };
    struct Buffers;

    Layer load_layer(WeightLoader& loader, std::size_t index);
    void load_attention(WeightLoader& loader, std::size_t index, Layer& layer);
    void load_delta(WeightLoader& loader, std::size_t index, Layer& layer);
    void load_dense(WeightLoader& loader, std::size_t index, Layer& layer);
    void load_experts(WeightLoader& loader, std::size_t index, Layer& layer);
    // To the hidden state.
    void embed(std::span<const std::int32_t> ids);
    void run_attention(const Layer& layer, std::size_t index, std::size_t n,
                       std::span<const SequenceRows> sequences, KvCache& cache);
    void run_delta(const Layer& layer, std::size_t n, std::span<const SequenceRows> sequences);
    void run_feed_forward(const Layer& layer, std::size_t index, std::size_t n);
    // From b.normed to b.branch. `inputs` is how what goes into the experts is rounded.
    void run_experts(const Layer& layer, std::size_t n, Rounding inputs);
    void multiply_gate(Buffer& gate, const Buffer& up, std::size_t n);
    // Adds x * weight to the hidden state, by way of `post_norm` and the residual scale where there are such.
    void add_branch(const Buffer& x, std::size_t n, const Weight& weight, const std::vector<float>& post_norm,
                    Rounding rounding);
    // Adds b.branch to the hidden state.
    void add_branch(std::size_t n, const std::vector<float>& post_norm);

    std::shared_ptr<const GgufFile> file_;
    std::shared_ptr<Backend> backend_;
    Description description_;
    Rounding rounding_;  // of most matrices; some are always fine
    std::size_t weight_bytes_ = 0;
    std::size_t n_cached_layers_ = 0, n_recurrent_layers_ = 0;
    const GgufTensor* embeddings_ = nullptr;
    std::vector<Layer> layers_;
    std::vector<float> output_norm_;
    Weight output_;
    std::unique_ptr<Buffers> buffers_;
};

}  // namespace quarry
