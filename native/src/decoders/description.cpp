#include "decoders/description.h"

#include <algorithm>
#include <array>

namespace quarry {

namespace {

// One flag for each layer, from an array of bools.
std::vector<bool> read_flags(const Keys& keys, std::string_view key, const GgufArray& array, std::size_t n) {
    if (array.type != ValueType::boolean || array.count < n) {
        throw GgufError("key '" + keys.name(key) + "' is an array of " + std::to_string(array.count) +
                        " items; a number or " + std::to_string(n) + " bools are expected");
    }
    std::vector<bool> flags(n);
    for (std::size_t i = 0; i < n; ++i) flags[i] = array.raw[i] != std::byte{0};
    return flags;
}

}  // namespace

std::string layer_tensor(std::size_t layer, std::string_view name) {
    return "blk." + std::to_string(layer) + "." + std::string(name);
}

Description describe_common(const Keys& keys) {
    Description out;
    out.context_length = keys.integer("context_length", 1, kMaxContext);
    out.width = keys.integer("embedding_length", 1, kMaxWidth);
    out.layers.resize(keys.integer("block_count", 1, kMaxLayers));
    out.feed_forward = keys.integer("feed_forward_length", 1, kMaxWidth);
    out.n_heads = keys.integer("attention.head_count", 1, kMaxHeads);
    out.n_kv_heads = keys.integer("attention.head_count_kv", 1, out.n_heads, out.n_heads);
    if (out.n_heads % out.n_kv_heads != 0) {
        throw GgufError(std::to_string(out.n_heads) + " attention heads do not divide among " +
                        std::to_string(out.n_kv_heads) + " key-value heads");
    }
    out.head_dim = keys.integer("attention.key_length", 2, kMaxHeadDim,
                                std::clamp<std::uint64_t>(out.width / out.n_heads, 2, kMaxHeadDim));
    if (keys.integer("attention.value_length", 1, kMaxHeadDim, out.head_dim) != out.head_dim) {
        throw GgufError("key '" + keys.name("attention.value_length") +
                        "' differs from the key length, which is not supported");
    }
    out.n_rotated = keys.integer("rope.dimension_count", 2, out.head_dim, out.head_dim / 2 * 2);
    if (out.n_rotated % 2 != 0) throw GgufError("key '" + keys.name("rope.dimension_count") + "' is odd");
    out.epsilon = keys.real("attention.layer_norm_rms_epsilon", 0, 1);
    out.scoring.scale = keys.real("attention.scale", 0, 1e3, 0);

    const GgufTensor* embeddings = keys.file().find_tensor("token_embd.weight");
    if (embeddings == nullptr) throw GgufError("tensor 'token_embd.weight' is missing");
    out.vocab_size = embeddings->rows();
    if (out.vocab_size > kMaxVocabulary) {
        throw GgufError("tensor 'token_embd.weight' has " + std::to_string(out.vocab_size) +
                        " rows; allowed are " + std::to_string(kMaxVocabulary));
    }
    return out;
}

void read_experts(const Keys& keys, bool normalizes, std::size_t feed_forward, Description& out) {
    Experts& experts = out.experts;
    experts.n = keys.integer("expert_count", 1, kMaxExperts);
    experts.n_used = keys.integer("expert_used_count", 1, experts.n);
    experts.feed_forward =
        keys.integer("expert_feed_forward_length", 1, kMaxWidth, std::max<std::size_t>(1, feed_forward));
    experts.normalizes = keys.boolean("expert_weights_norm", normalizes);
    experts.scale = keys.real("expert_weights_scale", 1e-6, 1e6, 1);
}

void read_window_pattern(const Keys& keys, std::uint64_t window, std::uint64_t period, Description& out) {
    constexpr std::string_view kPattern = "attention.sliding_window_pattern";
    const std::size_t n = out.layers.size();
    std::vector<bool> windowed;
    const auto& values = keys.file().values();
    const auto found = values.find(keys.name(kPattern));
    const auto* array = found == values.end() ? nullptr : std::get_if<GgufArray>(&found->second);
    if (array != nullptr) {
        windowed = read_flags(keys, kPattern, *array, n);
    } else {
        period = keys.integer(kPattern, 0, kMaxLayers, period);
        for (std::size_t i = 0; i < n; ++i) windowed.push_back(period == 0 || i % period < period - 1);
    }
    for (std::size_t i = 0; i < n; ++i) {
        if (windowed[i]) out.layers[i].window = window;
    }
}

}  // namespace quarry
