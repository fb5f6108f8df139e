// What an encoder is made of: sizes, tables, and the weights of its layers.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "../backend.h"
#include "../pooling.h"

namespace quarry {

struct EncoderNorm {
    std::vector<float> weight, bias;  // empty where the model has none
};

struct EncoderLayer {
    Weight query, key, value, attention_output, gate, up, down;
    Weight router;  // where up and down are those of experts
    EncoderNorm query_norm, key_norm, first_norm, attention_norm, second_norm, feed_forward_norm, output_norm;
    bool is_local = false;  // sees only its neighbours
};

struct EncoderModel {
    std::shared_ptr<const GgufFile> file;  // the tables lie in it
    std::string architecture;
    std::size_t vocab_size = 0, context_length = 0, width = 0, n_layers = 0, n_heads = 0, feed_forward = 0;
    std::size_t n_experts = 0, n_used = 0, expert_period = 0;  // every so many layers have experts
    std::size_t weight_bytes = 0;
    float epsilon = 0;
    Pooling pooling = Pooling::mean, head_pooling = Pooling::cls;
    const GgufTensor* token_embeddings = nullptr;
    const GgufTensor* position_embeddings = nullptr;  // absent where positions are rotary
    const GgufTensor* type_embeddings = nullptr;      // may be absent
    // Of rotary positions, [head_dim / 2]: of layers that see everything, and of local ones.
    std::array<std::vector<double>, 2> frequencies;
    std::vector<float> slopes;  // of linear biases, one a head
    std::size_t reach = 0;      // of local layers, to either side
    std::size_t local_period = 0;
    EncoderNorm embedding_norm, final_norm, head_norm;
    std::vector<EncoderLayer> layers;
    Weight head, head_output;  // of models that score; head may be absent there

    std::size_t n_scores() const { return head_output.rows; }
};

std::vector<std::string_view> encoder_architectures();

// The caller holds the backend's mutex. Throws: GgufError, std::bad_alloc.
EncoderModel load_encoder(std::shared_ptr<const GgufFile> file, Backend& backend);

}  // namespace quarry
