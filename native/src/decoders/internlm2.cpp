// InternLM 2 and 2.5.
#include "decoders/architectures.h"

namespace quarry {

Description describe_internlm2(const Keys& keys) {
    Description out = describe_common(keys);
    out.row_order = RowOrder::interleaved;
    return out;
}

}  // namespace quarry
