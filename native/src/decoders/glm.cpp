// ChatGLM 2 and 3, GLM-4-9B (chatglm) and GLM-4-0414 (glm4).
#include "decoders/architectures.h"

namespace quarry {

Description describe_chatglm(const Keys& keys) {
    Description out = describe_common(keys);
    out.row_order = RowOrder::interleaved;
    out.joins_gate_and_up = true;
    return out;
}

Description describe_glm4(const Keys& keys) {
    if (keys.has("rope.dimension_sections")) {
        throw GgufError("key '" + keys.name("rope.dimension_sections") +
                        "' is set: the file holds a model of images, GLM-4V; GLM-4-0414 would work");
    }
    Description out = describe_chatglm(keys);
    out.has_post_norms = true;
    return out;
}

}  // namespace quarry
