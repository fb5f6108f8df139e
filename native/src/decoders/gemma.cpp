// Gemma 2 and 3. Their files hold 1 + weight of every norm.
#include <cmath>

#include "decoders/architectures.h"
#include "decoders/rotary.h"

namespace quarry {

namespace {

constexpr std::uint64_t kWindow = 4096;  // where a file of Gemma 2 does not say

// The models of 27 B divide scores by another size than that of a head, and files do not say so.
Description describe_gemma(const Keys& keys, std::size_t n_layers_of_27b) {
    Description out = describe_common(keys);
    out.activation = Activation::gelu;
    out.has_post_norms = true;
    out.embedding_scale = std::sqrt(static_cast<float>(out.width));
    out.logit_soft_cap = keys.real("final_logit_softcapping", 0, 1e6, 0);
    const std::size_t divisor = out.layers.size() == n_layers_of_27b ? out.width / out.n_heads : out.head_dim;
    if (out.scoring.scale == 0 && divisor > 0) out.scoring.scale = 1 / std::sqrt(static_cast<float>(divisor));
    return out;
}

}  // namespace

Description describe_gemma2(const Keys& keys) {
    Description out = describe_gemma(keys, 46);
    out.scoring.soft_cap = keys.real("attn_logit_softcapping", 0, 1e6, 50);
    if (!keys.has("final_logit_softcapping")) out.logit_soft_cap = 30;
    read_window_pattern(keys, keys.integer("attention.sliding_window", 0, kMaxContext, kWindow), 2, out);
    return out;
}

Description describe_gemma3(const Keys& keys) {
    Description out = describe_gemma(keys, 62);
    out.has_head_norms = true;
    out.scoring.soft_cap = keys.real("attn_logit_softcapping", 0, 1e6, 0);
    read_window_pattern(keys, keys.integer("attention.sliding_window", 0, kMaxContext, 0), 6, out);
    // Layers with a window turn by a base of their own, which no scaling touches.
    out.rotaries.resize(2);
    out.rotaries[1].frequencies =
        plain_frequencies(keys.real("rope.freq_base_swa", 1, 1e12, 10000), out.n_rotated);
    for (auto& layer : out.layers) layer.rotary = layer.window > 0 ? 1 : 0;
    return out;
}

}  // namespace quarry
