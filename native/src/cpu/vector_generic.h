// Sixteen lanes in plain C++: the reference for the other instruction sets, and what runs everywhere.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "../float16.h"

namespace quarry::generic {

constexpr const char* kName = "generic";
constexpr std::size_t kLanes = 16;
constexpr std::size_t kChunk = 4;
constexpr bool kHasPanels = false;

struct Floats {
    float v[kLanes];

    template <class F>
    static Floats make(F f) {
        Floats out;
        for (std::size_t i = 0; i < kLanes; ++i) out.v[i] = f(i);
        return out;
    }
    static Floats zero() { return all(0.0f); }
    static Floats all(float x) {
        return make([&](std::size_t) { return x; });
    }
    static Floats load(const float* p) {
        return make([&](std::size_t i) { return p[i]; });
    }
    static Floats load_f16(const std::uint16_t* p) {
        return make([&](std::size_t i) { return f16_to_f32(p[i]); });
    }
    static Floats load_bf16(const std::uint16_t* p) {
        return make([&](std::size_t i) { return bf16_to_f32(p[i]); });
    }
    static Floats load_u8(const std::uint8_t* p) {
        return make([&](std::size_t i) { return static_cast<float>(p[i]); });
    }
    static Floats load_s8(const std::int8_t* p) {
        return make([&](std::size_t i) { return static_cast<float>(p[i]); });
    }
    static Floats load_low_nibbles(const std::uint8_t* p) {
        return make([&](std::size_t i) { return static_cast<float>(p[i] & 15); });
    }
    static Floats load_high_nibbles(const std::uint8_t* p) {
        return make([&](std::size_t i) { return static_cast<float>(p[i] >> 4); });
    }
    void store(float* p) const { std::memcpy(p, v, sizeof v); }
    void store_f16(std::uint16_t* p) const {
        for (std::size_t i = 0; i < kLanes; ++i) p[i] = f32_to_f16(v[i]);
    }
    float sum() const {
        float total = 0;
        for (const float x : v) total += x;
        return total;
    }
    float max() const { return *std::max_element(v, v + kLanes); }
};

inline Floats operator+(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] + b.v[i]; });
}
inline Floats operator-(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] - b.v[i]; });
}
inline Floats operator*(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] * b.v[i]; });
}
inline Floats operator/(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] / b.v[i]; });
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return Floats::make([&](std::size_t i) { return a.v[i] * b.v[i] + c.v[i]; });
}
inline Floats max(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] > b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats min(Floats a, Floats b) {
    return Floats::make([&](std::size_t i) { return a.v[i] < b.v[i] ? a.v[i] : b.v[i]; });
}
inline Floats abs(Floats a) {
    return Floats::make([&](std::size_t i) { return std::fabs(a.v[i]); });
}
inline Floats round(Floats a) {
    return Floats::make([&](std::size_t i) { return std::nearbyintf(a.v[i]); });
}
// 2 to the power of an integral n in [-126, 127].
inline Floats power_of_two(Floats n) {
    return Floats::make([&](std::size_t i) {
        const float exponent = std::clamp(n.v[i], -126.0f, 127.0f);
        return std::bit_cast<float>(static_cast<std::uint32_t>(static_cast<std::int32_t>(exponent) + 127)
                                    << 23);
    });
}
// x * 2^n for an integral n, at most 127; tiny where that is too small.
inline Floats times_power_of_two(Floats x, Floats n) {
    return x * power_of_two(max(n, Floats::all(-126.0f)));
}
inline Floats zero_where_less(Floats value, Floats x, Floats limit) {
    return Floats::make([&](std::size_t i) { return x.v[i] >= limit.v[i] ? value.v[i] : 0.0f; });
}

// 4 * kLanes bytes: four of each row, as one little-endian word.
struct Line {
    std::uint32_t v[kLanes];

    template <class F>
    static Line make(F f) {
        Line out;
        for (std::size_t i = 0; i < kLanes; ++i) out.v[i] = f(i);
        return out;
    }
    static Line load(const std::byte* p) {
        Line out;
        std::memcpy(out.v, p, sizeof out.v);
        return out;
    }
    template <int kBits>
    Line shifted_right() const {
        return make([&](std::size_t i) { return kBits >= 0 ? v[i] >> (kBits & 31) : v[i] << (-kBits & 31); });
    }
};

inline Line operator&(Line a, std::uint32_t mask) {
    return Line::make([&](std::size_t i) { return a.v[i] & mask; });
}
inline Line operator|(Line a, Line b) {
    return Line::make([&](std::size_t i) { return a.v[i] | b.v[i]; });
}

// Each byte, below 16, to what it names in the table.
inline Line look_up(Line places, const std::uint8_t* table) {
    return Line::make([&](std::size_t i) {
        std::uint32_t word = 0;
        for (unsigned at = 0; at < 32; at += 8) {
            word |= std::uint32_t{table[places.v[i] >> at & 15u]} << at;
        }
        return word;
    });
}

// Four weights of each row, as dot() takes them: as floats, whose products compilers turn into vector code.
struct Weights {
    float v[4][kLanes];
};
inline Weights to_weights(Line line) {
    Weights out;
    for (unsigned j = 0; j < 4; ++j) {
        for (std::size_t i = 0; i < kLanes; ++i) {
            out.v[j][i] = static_cast<float>(static_cast<std::int32_t>(line.v[i] >> (8 * j) & 255u));
        }
    }
    return out;
}

// Whole numbers below 2^24, which floats hold exactly.
struct Ints {
    Floats v;
    Floats to_floats() const { return v; }
};

// The dot product of weights minus kOffset, built from dot(); `most` is the sum of the
// activations' bytes times -kMostOffset.
template <int kOffset>
inline Ints start(std::int32_t most) {
    return {Floats::all(static_cast<float>(part_of<kOffset>(most)))};
}
template <int kOffset>
inline Ints dot(Ints sum, const Weights& w, std::int32_t x) {
    std::int8_t bytes[4];
    std::memcpy(bytes, &x, sizeof bytes);
    for (std::size_t j = 0; j < 4; ++j) {
        const auto factor = static_cast<float>(bytes[j]);
        for (std::size_t i = 0; i < kLanes; ++i) sum.v.v[i] += w.v[j][i] * factor;
    }
    return sum;
}

// kGroup floats to bytes of the same order; `sums` gets those of the two halves. `inverse` maps the largest
// to 127.
inline void quantize_group(const float* x, float inverse, std::int8_t* out, std::int32_t* sums) {
    sums[0] = sums[1] = 0;
    for (std::size_t k = 0; k < kGroup; ++k) {
        const float scaled = std::nearbyintf(x[k] * inverse);
        out[k] = scaled >= -127.0f && scaled <= 127.0f ? static_cast<std::int8_t>(scaled) : std::int8_t{0};
        sums[k / (kGroup / 2)] += out[k];
    }
}

}  // namespace quarry::generic
