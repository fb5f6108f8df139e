// What a decoder is made of. An architecture is one function that reads a Description from the keys of a file
// (architectures.h); DecoderModel turns it into operations of the backend.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend.h"
#include "gguf.h"

namespace quarry {

constexpr std::uint64_t kMaxContext = 1 << 24;
constexpr std::uint64_t kMaxVocabulary = 1 << 24;
constexpr std::uint64_t kMaxExperts = 1024;

enum class Activation : std::uint8_t { silu, gelu };

// How queries and keys are turned: one of these, or one for each kind of layer.
struct Rotary {
    std::vector<double> frequencies;  // [n_rotated / 2], radians per position
    double magnitude = 1;
};

struct LayerShape {
    std::size_t window = 0;     // keys that a query sees, its own among them; 0: all
    std::size_t rotary = 0;     // index of Description::rotaries
    bool is_recurrent = false;  // the gated delta rule instead of attention
};

// Feed-forward networks of which each token uses a few.
struct Experts {
    std::size_t n = 0;  // 0: none
    std::size_t n_used = 0;
    std::size_t feed_forward = 0;
    std::size_t shared_feed_forward = 0;  // of one more that every token uses; 0: none
    bool normalizes = true;               // the weights of those used sum to 1
    float scale = 1;                      // of the weights
};

struct Description {
    std::string architecture;
    std::size_t context_length = 0;
    std::size_t vocab_size = 0;
    std::size_t width = 0;
    std::size_t n_heads = 0;
    std::size_t n_kv_heads = 0;
    std::size_t head_dim = 0;
    std::size_t n_rotated = 0;
    std::size_t feed_forward = 0;
    float epsilon = 0;
    Experts experts;
    std::vector<LayerShape> layers;
    std::vector<Rotary> rotaries;

    RowOrder row_order = RowOrder::halves;  // of queries and keys in the file
    bool has_head_norms = false;            // of each query and key, before they are turned
    bool has_post_norms = false;            // of what attention and feed-forward give, before it is added
    bool gates_attention = false;  // attn_q holds, head by head, the query and what multiplies the result
    DeltaShape delta;              // of the recurrent layers
    std::string feed_forward_norm = "ffn_norm";
    bool joins_gate_and_up = false;  // ffn_up holds the rows of both
    Activation activation = Activation::silu;

    Scoring scoring;            // of all layers; their windows stand in `layers`
    float embedding_scale = 1;  // of token embeddings
    float residual_scale = 1;   // of what is added to the hidden state
    float logit_scale = 1;
    float logit_soft_cap = 0;  // 0: none
};

// The keys of one architecture: names are written without their prefix.
class Keys {
  public:
    Keys(const GgufFile& file, std::string_view architecture)
        : file_(file), prefix_(std::string(architecture) + ".") {}

    const GgufFile& file() const { return file_; }
    std::string name(std::string_view key) const { return prefix_ + std::string(key); }
    bool has(std::string_view key) const { return file_.has(name(key)); }
    std::uint64_t integer(std::string_view key, std::uint64_t min, std::uint64_t max) const {
        return file_.integer(name(key), min, max);
    }
    std::uint64_t integer(std::string_view key, std::uint64_t min, std::uint64_t max,
                          std::uint64_t absent) const {
        return file_.integer(name(key), min, max, absent);
    }
    float real(std::string_view key, double min, double max) const {
        return static_cast<float>(file_.real(name(key), min, max));
    }
    float real(std::string_view key, double min, double max, double absent) const {
        return static_cast<float>(file_.real(name(key), min, max, absent));
    }

    bool boolean(std::string_view key, bool absent) const { return file_.boolean(name(key), absent); }

  private:
    const GgufFile& file_;
    std::string prefix_;
};

// What nearly all architectures have: sizes, epsilon, one window of all layers that every file may name.
// Throws: GgufError.
Description describe_common(const Keys& keys);

// Gives every `period`-th layer all keys, and the others a window: `period` from the file, where it says so,
// a number or one flag for each layer; 0 makes all layers windowed.
void read_window_pattern(const Keys& keys, std::uint64_t window, std::uint64_t period, Description& out);

// Reads how many experts there are; `normalizes` and `feed_forward` are what they are where the file does not
// say.
void read_experts(const Keys& keys, bool normalizes, std::size_t feed_forward, Description& out);

// The name of a tensor of layer `layer`.
std::string layer_tensor(std::size_t layer, std::string_view name);

}  // namespace quarry
