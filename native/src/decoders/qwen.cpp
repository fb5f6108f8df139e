// Qwen: the first three generations, dense and with experts.
#include "decoders/architectures.h"

namespace quarry {

namespace {

// Where a file does not say how large one expert is, those that a token uses share what the dense network
// has.
void read_qwen_experts(const Keys& keys, bool normalizes, Description& out) {
    const std::size_t n_used = keys.integer("expert_used_count", 1, kMaxExperts);
    read_experts(keys, normalizes, out.feed_forward / n_used, out);
}

}  // namespace

Description describe_qwen(const Keys& keys) {
    Description out = describe_common(keys);
    // The first generation's files count gate and up together.
    if (out.feed_forward % 2 != 0) {
        throw GgufError("key '" + keys.name("feed_forward_length") + "' is " +
                        std::to_string(out.feed_forward) + "; an even number is expected");
    }
    out.feed_forward /= 2;
    return out;
}

Description describe_qwen2(const Keys& keys) {
    return describe_common(keys);
}

Description describe_qwen3(const Keys& keys) {
    Description out = describe_common(keys);
    out.has_head_norms = true;
    return out;
}

Description describe_qwen2moe(const Keys& keys) {
    Description out = describe_common(keys);
    read_qwen_experts(keys, false, out);
    out.experts.shared_feed_forward =
        keys.integer("expert_shared_feed_forward_length", 1, kMaxWidth, out.feed_forward);
    return out;
}

Description describe_qwen3moe(const Keys& keys) {
    Description out = describe_common(keys);
    out.has_head_norms = true;
    read_qwen_experts(keys, true, out);
    return out;
}

}  // namespace quarry
