// Llama and what is built like it: Mistral, Yi, TinyLlama, SmolLM, Chinese-LLaMA-2, ...
#include "decoders/architectures.h"

namespace quarry {

Description describe_llama(const Keys& keys) {
    Description out = describe_common(keys);
    out.row_order = RowOrder::interleaved;
    // Mistral 7B v0.1 was trained to see 4096 tokens back.
    read_window_pattern(keys, keys.integer("attention.sliding_window", 0, kMaxContext, 0), 0, out);
    return out;
}

}  // namespace quarry
