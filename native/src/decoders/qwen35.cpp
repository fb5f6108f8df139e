// Qwen 3.5: three of four layers follow the gated delta rule, and the fourth has gated attention.
#include <string>

#include "decoders/architectures.h"

namespace quarry {

namespace {

constexpr std::uint64_t kMaxTaps = 64;

void read_delta(const Keys& keys, DeltaShape& out) {
    out.n_taps = keys.integer("ssm.conv_kernel", 1, kMaxTaps);
    out.key_dim = keys.integer("ssm.state_size", 1, kMaxHeadDim);
    out.n_key_heads = keys.integer("ssm.group_count", 1, kMaxHeads);
    out.n_value_heads = keys.integer("ssm.time_step_rank", 1, kMaxHeads);
    const std::uint64_t values = keys.integer("ssm.inner_size", 1, kMaxWidth);
    if (values % out.n_value_heads != 0 || values / out.n_value_heads > kMaxHeadDim ||
        out.n_value_heads % out.n_key_heads != 0) {
        throw GgufError("key '" + keys.name("ssm.inner_size") + "' is " + std::to_string(values) +
                        ", which does not divide among " + std::to_string(out.n_value_heads) +
                        " value heads of " + std::to_string(out.n_key_heads) + " key heads");
    }
    out.value_dim = values / out.n_value_heads;
}

}  // namespace

Description describe_qwen35(const Keys& keys) {
    Description out = describe_common(keys);
    // The layers that guess further tokens come last; they are not run.
    const std::size_t n_all = out.layers.size();
    out.layers.resize(n_all - keys.integer("nextn_predict_layers", 0, n_all - 1, 0));
    out.has_head_norms = true;
    out.gates_attention = true;
    out.feed_forward_norm = "post_attention_norm";
    read_delta(keys, out.delta);
    const std::uint64_t period = keys.integer("full_attention_interval", 1, kMaxLayers, 4);
    for (std::size_t i = 0; i < out.layers.size(); ++i) out.layers[i].is_recurrent = (i + 1) % period != 0;
    return out;
}

}  // namespace quarry
