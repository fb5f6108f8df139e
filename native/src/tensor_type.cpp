#include "tensor_type.h"

#include <array>

namespace quarry {

namespace {

// Known by size only: such a tensor may lie in a file, but not be computed with.
constexpr TensorType sized(std::uint32_t id, const char* name, std::size_t weights, std::size_t bytes) {
    return {id, name, weights, bytes, Layout::f32, nullptr, nullptr, nullptr};
}

constexpr std::array kUnreadable = {
    sized(9, "Q8_1", 32, 36),     sized(15, "Q8_K", 256, 292),   sized(16, "IQ2_XXS", 256, 66),
    sized(17, "IQ2_XS", 256, 74), sized(18, "IQ3_XXS", 256, 98), sized(19, "IQ1_S", 256, 50),
    sized(21, "IQ3_S", 256, 110), sized(22, "IQ2_S", 256, 82),   sized(24, "I8", 1, 1),
    sized(25, "I16", 1, 2),       sized(26, "I32", 1, 4),        sized(27, "I64", 1, 8),
    sized(28, "F64", 1, 8),       sized(29, "IQ1_M", 256, 56),   sized(34, "TQ1_0", 256, 54),
    sized(35, "TQ2_0", 256, 66),  sized(39, "MXFP4", 32, 17),
};

constexpr std::array kReadable = {
    &types::f32,  &types::f16,  &types::bf16, &types::q8_0,   &types::q4_0,
    &types::q4_1, &types::q5_0, &types::q5_1, &types::q2_k,   &types::q3_k,
    &types::q4_k, &types::q5_k, &types::q6_k, &types::iq4_nl, &types::iq4_xs,
};

}  // namespace

std::size_t tile_bytes(Layout layout, std::size_t width) {
    constexpr std::size_t kHalves = kTileRows * sizeof(std::uint16_t);
    constexpr std::size_t kBits = kTileRows * kGroup / 8;  // bytes of one bit of every weight of a group
    constexpr std::size_t kFactors = 2 * kNestedGroups * kTileRows;
    const std::size_t groups = width / kGroup;
    const std::size_t blocks = groups / kNestedGroups;
    switch (layout) {
        case Layout::f32:
            return kTileRows * width * sizeof(float);
        case Layout::f16:
        case Layout::bf16:
        case Layout::bf16_pairs:
            return kHalves * width;
        case Layout::q8:
            return groups * (kHalves + 8 * kBits);
        case Layout::q4:
        case Layout::t4:
            return groups * (kHalves + 4 * kBits);
        case Layout::q4_min:
            return groups * (2 * kHalves + 4 * kBits);
        case Layout::q5:
            return groups * (kHalves + 5 * kBits);
        case Layout::q5_min:
            return groups * (2 * kHalves + 5 * kBits);
        case Layout::q4_nested:
            return blocks * (2 * kHalves + kFactors + kNestedGroups * 4 * kBits);
        case Layout::q5_nested:
            return blocks * (2 * kHalves + kFactors + kNestedGroups * 5 * kBits);
        case Layout::q6_nested:
            return blocks * (kHalves + kFactors + kNestedGroups * 6 * kBits);
        case Layout::q2_nested:
            return blocks * (2 * kHalves + kFactors + kNestedGroups * 2 * kBits);
        case Layout::q3_nested:
            return blocks * (kHalves + kFactors + kNestedGroups * 3 * kBits);
        case Layout::t4_nested:
            return blocks * (kHalves + kFactors / 2 + kNestedGroups * 4 * kBits);
    }
    return 0;
}

const TensorType* find_tensor_type(std::uint32_t id) {
    for (const auto* type : kReadable) {
        if (type->id == id) return type;
    }
    for (const auto& type : kUnreadable) {
        if (type.id == id) return &type;
    }
    return nullptr;
}

const TensorType* find_tensor_type(std::string_view name) {
    for (const auto* type : kReadable) {
        if (type->name == name) return type;
    }
    for (const auto& type : kUnreadable) {
        if (type.name == name) return &type;
    }
    return nullptr;
}

std::vector<std::string> readable_type_names() {
    std::vector<std::string> names;
    for (const auto* type : kReadable) names.emplace_back(type->name);
    return names;
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
}

}  // namespace quarry
