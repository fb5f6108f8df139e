// Phi-3, Phi-3.5 and Phi-4-mini.
#include "decoders/architectures.h"

namespace quarry {

Description describe_phi3(const Keys& keys) {
    Description out = describe_common(keys);
    out.joins_gate_and_up = true;
    read_window_pattern(keys, keys.integer("attention.sliding_window", 0, kMaxContext, 0), 0, out);
    return out;
}

}  // namespace quarry
