// MiniCPM 1, 2 and 4: a Llama whose embeddings, branches and logits are scaled.
#include <cmath>

#include "decoders/architectures.h"

namespace quarry {

Description describe_minicpm(const Keys& keys) {
    Description out = describe_common(keys);
    out.row_order = RowOrder::interleaved;
    // Where a file does not say: the published values of MiniCPM-2B.
    out.embedding_scale = keys.real("embedding_scale", 1e-6, 1e6, 12);
    out.residual_scale =
        keys.real("residual_scale", 1e-6, 1e6, 1.4 / std::sqrt(static_cast<double>(out.layers.size())));
    out.logit_scale = 1 / keys.real("logit_scale", 1e-6, 1e6, static_cast<double>(out.width) / 256);
    return out;
}

}  // namespace quarry
