// Eight lanes of AVX2 with FMA and F16C.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace quarry::avx2 {

constexpr const char* kName = "avx2";
constexpr std::size_t kLanes = 8;
constexpr std::size_t kChunk = 4;
constexpr bool kHasPanels = false;

struct Floats {
    __m256 v;
    static Floats zero() { return {_mm256_setzero_ps()}; }
    static Floats all(float x) { return {_mm256_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
    static Floats load_f16(const std::uint16_t* p) {
        return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
    }
    static Floats load_bf16(const std::uint16_t* p) {
        const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
    }
    static Floats load_u8(const std::uint8_t* p) {
        return {
            _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
    }
    static Floats load_low_nibbles(const std::uint8_t* p) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        return {_mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)))};
    }
    static Floats load_high_nibbles(const std::uint8_t* p) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
        return {_mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4))};
    }
    static Floats load_s8(const std::int8_t* p) {
        return {
            _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))))};
    }
    void store(float* p) const { _mm256_storeu_ps(p, v); }
    void store_f16(std::uint16_t* p) const {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    float sum() const {
        const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
    }
    float max() const {
        const __m128 half = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        const __m128 pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
    }
};

inline Floats operator+(Floats a, Floats b) {
    return {_mm256_add_ps(a.v, b.v)};
}
inline Floats operator-(Floats a, Floats b) {
    return {_mm256_sub_ps(a.v, b.v)};
}
inline Floats operator*(Floats a, Floats b) {
    return {_mm256_mul_ps(a.v, b.v)};
}
inline Floats operator/(Floats a, Floats b) {
    return {_mm256_div_ps(a.v, b.v)};
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
inline Floats max(Floats a, Floats b) {
    return {_mm256_max_ps(a.v, b.v)};
}
inline Floats min(Floats a, Floats b) {
    return {_mm256_min_ps(a.v, b.v)};
}
inline Floats abs(Floats a) {
    return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)};
}
inline Floats round(Floats a) {
    return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2 to the power of an integral n in [-126, 127].
inline Floats power_of_two(Floats n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23))};
}
// x * 2^n for an integral n, at most 127; tiny where that is too small.
inline Floats times_power_of_two(Floats x, Floats n) {
    return x * power_of_two(max(n, Floats::all(-126.0f)));
}
inline Floats zero_where_less(Floats value, Floats x, Floats limit) {
    return {_mm256_and_ps(_mm256_cmp_ps(x.v, limit.v, _CMP_GE_OQ), value.v)};
}

// 4 * kLanes bytes: four of each row, as one little-endian word.
struct Line {
    __m256i v;
    static Line load(const std::byte* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
    template <int kBits>
    Line shifted_right() const {
        return {kBits >= 0 ? _mm256_srli_epi32(v, kBits) : _mm256_slli_epi32(v, -kBits)};
    }
};

inline Line operator&(Line a, std::uint32_t mask) {
    return {_mm256_and_si256(a.v, _mm256_set1_epi32(static_cast<int>(mask)))};
}
inline Line operator|(Line a, Line b) {
    return {_mm256_or_si256(a.v, b.v)};
}

// Each byte, below 16, to what it names in the table.
inline Line look_up(Line places, const std::uint8_t* table) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return {_mm256_shuffle_epi8(_mm256_broadcastsi128_si256(values), places.v)};
}

// Four weights of each row, as dot() takes them.
using Weights = Line;
inline Weights to_weights(Line line) {
    return line;
}

struct Ints {
    __m256i v;
    static Ints all(std::int32_t x) { return {_mm256_set1_epi32(x)}; }
    Floats to_floats() const { return {_mm256_cvtepi32_ps(v)}; }
};

// The dot product of weights minus kOffset, built from dot(); `most` is the sum of the
// activations' bytes times -kMostOffset. Bytes
// with offset 128 are made signed first: two products of unsigned 8-bit weights overflow 16 bits.
template <int kOffset>
inline Ints start(std::int32_t most) {
    return Ints::all(kOffset == kMostOffset ? 0 : part_of<kOffset>(most));
}
template <int kOffset>
inline Ints dot(Ints sum, Weights w, std::int32_t x) {
    __m256i magnitude = w.v;
    __m256i signed_x = _mm256_set1_epi32(x);
    if constexpr (kOffset == 128) {
        const __m256i signed_w = _mm256_xor_si256(w.v, _mm256_set1_epi8(static_cast<char>(0x80)));
        magnitude = _mm256_abs_epi8(signed_w);
        signed_x = _mm256_sign_epi8(signed_x, signed_w);
    }
    const __m256i pairs = _mm256_maddubs_epi16(magnitude, signed_x);
    return {_mm256_add_epi32(sum.v, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))};
}

inline std::int32_t sum_of(__m256i words) {
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0x4e));
    sum = _mm_add_epi32(sum, _mm_shuffle_epi32(sum, 0xb1));
    return _mm_cvtsi128_si32(sum);
}

// kGroup floats to bytes of the same order; `sums` gets those of the two halves. `inverse` maps the largest
// to 127.
inline void quantize_group(const float* x, float inverse, std::int8_t* out, std::int32_t* sums) {
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i words[4];
    for (int i = 0; i < 4; ++i) {
        // What is not finite converts to the smallest integer, and hides the largest value from the scale: of
        // either, sums would overflow.
        const __m256i rounded = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), factor));
        words[i] =
            _mm256_min_epi32(_mm256_max_epi32(rounded, _mm256_set1_epi32(-127)), _mm256_set1_epi32(127));
    }
    const __m256i bytes =
        _mm256_packs_epi16(_mm256_packs_epi32(words[0], words[1]), _mm256_packs_epi32(words[2], words[3]));
    // The packs work within 128-bit halves; put the 4-byte words back in order.
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_permutevar8x32_epi32(bytes, order));
    sums[0] = sum_of(_mm256_add_epi32(words[0], words[1]));
    sums[1] = sum_of(_mm256_add_epi32(words[2], words[3]));
}

}  // namespace quarry::avx2
