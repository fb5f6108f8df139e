// Qwen, second and third generation.
#include "decoders/architectures.h"

namespace quarry {

Description describe_qwen2(const Keys& keys) {
    return describe_common(keys);
}

Description describe_qwen3(const Keys& keys) {
    Description out = describe_common(keys);
    out.has_head_norms = true;
    return out;
}

}  // namespace quarry
