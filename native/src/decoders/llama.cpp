// Llama and what is built like it: Mistral, Mixtral, Yi, TinyLlama, SmolLM, Chinese-LLaMA-2, ...
#include "decoders/architectures.h"

namespace quarry {

Description describe_llama(const Keys& keys) {
    Description out = describe_common(keys);
    out.row_order = RowOrder::interleaved;
    // Mistral 7B v0.1 was trained to see 4096 tokens back.
    read_window_pattern(keys, keys.integer("attention.sliding_window", 0, kMaxContext, 0), 0, out);
    if (keys.integer("expert_count", 0, kMaxExperts, 0) > 0) read_experts(keys, true, out.feed_forward, out);
    return out;
}

}  // namespace quarry
