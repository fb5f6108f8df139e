// Bidirectional models that turn a token sequence into one vector, or into scores by a head on top: bert and
// its relatives that differ by positions, gates and norms.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"
#include "pooling.h"

namespace quarry {

// One input. Models that know two kinds of text (question and passage) are told where the second begins.
struct EncoderInput {
    std::span<const std::int32_t> tokens;
    std::size_t second_text;  // tokens.size() where there is none
};

std::vector<std::string_view> encoder_architectures();

class Encoder {
  public:
    // Throws: GgufError, std::bad_alloc.
    Encoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend);
    ~Encoder();

    const std::string& architecture() const { return architecture_; }
    std::size_t vocab_size() const { return vocab_size_; }
    std::size_t context_length() const { return context_length_; }
    std::size_t embedding_length() const { return width_; }
    std::size_t weight_bytes() const { return weight_bytes_; }
    Pooling pooling() const { return pooling_; }
    // Scores that the head gives, 0 where the file has none.
    std::size_t n_scores() const { return head_output_.rows; }

    // Pooled vectors, [batch.size()][embedding_length]. Throws: std::invalid_argument.
    std::vector<float> encode(std::span<const std::span<const std::int32_t>> batch, bool normalize);
    // What the head makes of the first token, [batch.size()][n_scores]. Throws: std::invalid_argument.
    std::vector<float> score(std::span<const EncoderInput> batch);

  private:
    struct Norm {
        std::vector<float> weight, bias;  // empty where the model has none
    };
    struct Layer {
        Weight query, key, value, attention_output, gate, up, down;
        Weight router;  // where up and down are those of experts
        Norm query_norm, key_norm, first_norm, attention_norm, second_norm, feed_forward_norm, output_norm;
        bool is_local = false;  // sees only its neighbours
    };

    void load_sizes();
    void load_positions();
    void load_reach();
    void load_embeddings();
    void load_head();
    void load_layer(std::size_t index);
    void load_attention(Layer& layer, const std::string& prefix);
    void load_feed_forward(Layer& layer, const std::string& prefix);
    void load_experts(Layer& layer, const std::string& prefix);
    Rounding usual_rounding() const;
    Weight load(const std::string& name, std::size_t rows, std::size_t width, Rounding rounding);
    // Rows [first, first + rows) of a matrix of `all` rows.
    Weight load_rows(const std::string& name, std::size_t all, std::size_t first, std::size_t rows,
                     std::size_t width, Rounding rounding);
    std::vector<float> load_vector(const std::string& name);
    Norm load_norm(const std::string& name, bool required = true);

    void check(std::span<const EncoderInput> batch) const;
    // Runs the model over as many inputs from `first` on as make one pass; returns the index behind them.
    std::size_t run_pass(std::span<const EncoderInput> batch, std::size_t first);
    void place(std::span<const EncoderInput> batch);
    void embed();
    void run_layer(const Layer& layer, std::size_t n);
    void feed_forward(const Layer& layer, std::size_t n);
    void run_experts(const Layer& layer, std::size_t n);
    void norm(const Norm& norm, const Buffer& x, std::size_t n, Buffer& out);
    void norm(const Norm& norm, Buffer& x, std::size_t n) {
        if (!norm.weight.empty()) this->norm(norm, x, n, x);
    }
    // Leaves one row for each sequence of the pass in the buffer `pooled`.
    void pool(Pooling pooling);

    std::shared_ptr<const GgufFile> file_;
    std::shared_ptr<Backend> backend_;
    std::string architecture_, prefix_;
    std::size_t vocab_size_ = 0, context_length_ = 0, width_ = 0, n_layers_ = 0, n_heads_ = 0,
                feed_forward_ = 0;
    std::size_t n_experts_ = 0, n_used_ = 0, expert_period_ = 0;  // every so many layers have experts
    std::size_t weight_bytes_ = 0;
    float epsilon_ = 0;
    Pooling pooling_ = Pooling::mean, head_pooling_ = Pooling::cls;
    const GgufTensor* token_embeddings_ = nullptr;
    const GgufTensor* position_embeddings_ = nullptr;  // absent where positions are rotary
    const GgufTensor* type_embeddings_ = nullptr;      // may be absent
    // Of rotary positions, [head_dim / 2]: of layers that see everything, and of local ones.
    std::array<std::vector<double>, 2> frequencies_;
    std::vector<float> slopes_;  // of linear biases, one a head
    std::size_t reach_ = 0;      // of local layers, to either side
    std::size_t local_period_ = 0;
    Norm embedding_norm_, final_norm_, head_norm_;
    std::vector<Layer> layers_;
    Weight head_, head_output_;  // head_ may be absent

    struct Buffers;
    std::unique_ptr<Buffers> buffers_;
};

}  // namespace quarry
