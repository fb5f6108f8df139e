#include "decoders/architectures.h"

#include <algorithm>
#include <array>

#include "decoders/rotary.h"

namespace quarry {

namespace {

struct Architecture {
    std::string_view name;
    Description (*describe)(const Keys& keys);
};

constexpr std::array kArchitectures = {
    Architecture{"llama", describe_llama},         Architecture{"qwen", describe_qwen},
    Architecture{"qwen2", describe_qwen2},         Architecture{"qwen2moe", describe_qwen2moe},
    Architecture{"qwen3", describe_qwen3},         Architecture{"qwen3moe", describe_qwen3moe},
    Architecture{"qwen35", describe_qwen35},       Architecture{"gemma2", describe_gemma2},
    Architecture{"gemma3", describe_gemma3},       Architecture{"phi3", describe_phi3},
    Architecture{"internlm2", describe_internlm2}, Architecture{"minicpm", describe_minicpm},
    Architecture{"chatglm", describe_chatglm},     Architecture{"glm4", describe_glm4},
};

const Architecture& find_architecture(std::string_view name) {
    std::string known;
    for (const auto& architecture : kArchitectures) {
        if (architecture.name == name) return architecture;
        known += (known.empty() ? "" : ", ") + std::string(architecture.name);
    }
    throw GgufError("architecture '" + std::string(name.substr(0, 80)) +
                    "' is not supported for chat; supported are " + known);
}

}  // namespace

Description describe_decoder(const GgufFile& file, std::size_t context) {
    const Architecture& architecture = find_architecture(file.string("general.architecture"));
    const Keys keys(file, architecture.name);
    Description out = architecture.describe(keys);
    out.architecture = architecture.name;
    const Rotary rotary =
        read_rotary(keys, out.n_rotated, out.context_length, std::min(context, out.context_length));
    // An architecture with a second kind of rotation has put it at index 1.
    if (out.rotaries.empty()) out.rotaries.emplace_back();
    out.rotaries[0] = rotary;
    return out;
}

}  // namespace quarry
