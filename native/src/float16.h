// Half-precision formats as the files store them: IEEE binary16 and bfloat16.
#pragma once

#include <bit>
#include <cstdint>

namespace quarry {

// Without branches, so that loops over it become vector code.
inline float f16_to_f32(std::uint16_t h) {
    const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
    const std::uint32_t shifted = static_cast<std::uint32_t>(h & 0x7fffu) << 13;
    // The product moves the exponent from bias 15 to 127, subnormals included; infinities and NaNs keep
    // theirs.
    const std::uint32_t finite = std::bit_cast<std::uint32_t>(std::bit_cast<float>(shifted) * 0x1p112f);
    const std::uint32_t magnitude = shifted >= 0x0f800000u ? shifted | 0x7f800000u : finite;
    return std::bit_cast<float>(sign | magnitude);
}

// Rounds to nearest, ties to even; out of range becomes infinity.
inline std::uint16_t f32_to_f16(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
    const float magnitude = std::bit_cast<float>(bits & 0x7fffffffu);
    if (magnitude != magnitude) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 65520.0f) return static_cast<std::uint16_t>(sign | 0x7c00u);
    if (magnitude < 0x1p-14f) {
        // Adding 0.5 leaves the subnormal mantissa, already rounded, in the low bits.
        const std::uint32_t shifted = std::bit_cast<std::uint32_t>(magnitude + 0.5f);
        return static_cast<std::uint16_t>(sign | (shifted - std::bit_cast<std::uint32_t>(0.5f)));
    }
    const std::uint32_t rest = bits & 0x7fffffffu;
    const std::uint32_t rounded = rest + 0xfffu + ((rest >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded >> 13) - (112u << 10)));
}

// Rounds to nearest, ties to even; NaN stays NaN.
inline std::uint16_t f32_to_bf16(float x) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
    if (x != x) return static_cast<std::uint16_t>(bits >> 16 | 0x40u);
    return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float bf16_to_f32(std::uint16_t h) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(h) << 16);
}

}  // namespace quarry
