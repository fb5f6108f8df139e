// The decoder architectures that this engine runs. Each is a function that says what a file of its kind
// holds; a new one is such a function and a line in the table.
#pragma once

#include <string_view>

#include "decoders/description.h"

namespace quarry {

// `context` is the longest sequence that will be served.
// Throws: GgufError naming the architectures that there are, or the key, its value and what would work.
Description describe_decoder(const GgufFile& file, std::size_t context);

Description describe_llama(const Keys& keys);
Description describe_qwen(const Keys& keys);
Description describe_qwen2(const Keys& keys);
Description describe_qwen2moe(const Keys& keys);
Description describe_qwen3(const Keys& keys);
Description describe_qwen3moe(const Keys& keys);
Description describe_qwen35(const Keys& keys);
Description describe_gemma2(const Keys& keys);
Description describe_gemma3(const Keys& keys);
Description describe_phi3(const Keys& keys);
Description describe_internlm2(const Keys& keys);
Description describe_minicpm(const Keys& keys);
Description describe_chatglm(const Keys& keys);
Description describe_glm4(const Keys& keys);

}  // namespace quarry
