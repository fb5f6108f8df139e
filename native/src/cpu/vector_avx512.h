// Sixteen lanes of AVX-512 with VNNI, and with BF16 where the compiler is told so; QUARRY_AVX512 is its
// namespace.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

#define QUARRY_STRING_OF(name) #name
#define QUARRY_STRING(name) QUARRY_STRING_OF(name)

namespace quarry::QUARRY_AVX512 {

constexpr const char* kName = QUARRY_STRING(QUARRY_AVX512);
constexpr std::size_t kLanes = 16;
constexpr std::size_t kChunk = 12;
constexpr bool kHasPanels = true;

struct Floats {
    __m512 v;
    static Floats zero() { return {_mm512_setzero_ps()}; }
    static Floats all(float x) { return {_mm512_set1_ps(x)}; }
    static Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
    static Floats load_f16(const std::uint16_t* p) {
        return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static Floats load_bf16(const std::uint16_t* p) {
        const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
        return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
    }
    static Floats load_u8(const std::uint8_t* p) {
        return {
            _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
    }
    static Floats load_low_nibbles(const std::uint8_t* p) {
        const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {_mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)))};
    }
    static Floats load_high_nibbles(const std::uint8_t* p) {
        const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
        return {_mm512_cvtepi32_ps(_mm512_srli_epi32(bytes, 4))};
    }
    static Floats load_s8(const std::int8_t* p) {
        return {
            _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
    }
    void store(float* p) const { _mm512_storeu_ps(p, v); }
    void store_f16(std::uint16_t* p) const {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    float sum() const { return _mm512_reduce_add_ps(v); }
    float max() const { return _mm512_reduce_max_ps(v); }
};

inline Floats operator+(Floats a, Floats b) {
    return {_mm512_add_ps(a.v, b.v)};
}
inline Floats operator-(Floats a, Floats b) {
    return {_mm512_sub_ps(a.v, b.v)};
}
inline Floats operator*(Floats a, Floats b) {
    return {_mm512_mul_ps(a.v, b.v)};
}
inline Floats operator/(Floats a, Floats b) {
    return {_mm512_div_ps(a.v, b.v)};
}
inline Floats multiply_add(Floats a, Floats b, Floats c) {
    return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
inline Floats max(Floats a, Floats b) {
    return {_mm512_max_ps(a.v, b.v)};
}
inline Floats min(Floats a, Floats b) {
    return {_mm512_min_ps(a.v, b.v)};
}
inline Floats abs(Floats a) {
    return {_mm512_abs_ps(a.v)};
}
inline Floats round(Floats a) {
    return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
// 2 to the power of an integral n in [-126, 127].
inline Floats power_of_two(Floats n) {
    const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
    return {_mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23))};
}
// x * 2^n for an integral n, at most 127; 0 where that is too small.
inline Floats times_power_of_two(Floats x, Floats n) {
    return {_mm512_scalef_ps(x.v, n.v)};
}
inline Floats zero_where_less(Floats value, Floats x, Floats limit) {
    return {_mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x.v, limit.v, _CMP_GE_OQ), value.v)};
}

// 4 * kLanes bytes: four of each row, as one little-endian word.
struct Line {
    __m512i v;
    static Line load(const std::byte* p) { return {_mm512_loadu_si512(p)}; }
    void store(std::byte* p) const { _mm512_storeu_si512(p, v); }
    template <int kBits>
    Line shifted_right() const {
        return {kBits >= 0 ? _mm512_srli_epi32(v, kBits) : _mm512_slli_epi32(v, -kBits)};
    }
};

inline Line operator&(Line a, std::uint32_t mask) {
    return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(mask)))};
}
inline Line operator+(Line a, std::uint32_t word) {
    return {_mm512_add_epi32(a.v, _mm512_set1_epi32(static_cast<int>(word)))};
}
inline Line operator|(Line a, Line b) {
    return {_mm512_or_si512(a.v, b.v)};
}

// Each byte, below 16, to what it names in the table.
inline Line look_up(Line places, const std::uint8_t* table) {
    const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
    return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(values), places.v)};
}

// Four weights of each row, as dot() takes them.
using Weights = Line;
inline Weights to_weights(Line line) {
    return line;
}

struct Ints {
    __m512i v;
    static Ints all(std::int32_t x) { return {_mm512_set1_epi32(x)}; }
    Floats to_floats() const { return {_mm512_cvtepi32_ps(v)}; }
};

// The dot product of weights minus kOffset, built from dot(); `most` is the sum of the
// activations' bytes times -kMostOffset.
template <int kOffset>
inline Ints start(std::int32_t most) {
    return Ints::all(part_of<kOffset>(most));
}
template <int kOffset>
inline Ints dot(Ints sum, Weights w, std::int32_t x) {
    return {_mm512_dpbusd_epi32(sum.v, w.v, _mm512_set1_epi32(x))};
}

// kGroup floats to bytes of the same order; `sums` gets those of the two halves. `inverse` maps the largest
// to 127.
inline void quantize_group(const float* x, float inverse, std::int8_t* out, std::int32_t* sums) {
    const __m512 factor = _mm512_set1_ps(inverse);
    __m128i bytes[2];
    for (int half = 0; half < 2; ++half) {
        // What is not finite converts to the smallest integer, and hides the largest value from the scale: of
        // either, sums would overflow.
        const __m512i rounded = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 16 * half), factor));
        const __m512i words = _mm512_max_epi32(rounded, _mm512_set1_epi32(-127));
        bytes[half] = _mm512_cvtsepi32_epi8(words);
    }
    const __m256i group = _mm256_set_m128i(bytes[1], bytes[0]);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), group);
    const __m256i unsigned_bytes = _mm256_xor_si256(group, _mm256_set1_epi8(-128));
    const __m256i quarters = _mm256_sad_epu8(unsigned_bytes, _mm256_setzero_si256());
    const __m256i halves = _mm256_add_epi64(quarters, _mm256_bsrli_epi128(quarters, 8));
    sums[0] = _mm256_extract_epi32(halves, 0) - 16 * 128;
    sums[1] = _mm256_extract_epi32(halves, 4) - 16 * 128;
}

#ifdef __AVX512BF16__
// Two bf16 numbers in each lane, of one row.
struct Pairs {
    __m512i v;
    static Pairs load(const std::byte* p) { return {_mm512_loadu_si512(p)}; }
    static Pairs all(std::int32_t pair) { return {_mm512_set1_epi32(pair)}; }
    static Pairs rounded(const float* x) {
        return {
            reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + kLanes), _mm512_loadu_ps(x)))};
    }
    // a and b of each lane.
    static Pairs zipped(Floats a, Floats b) {
        const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                               23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        const __m512i halves = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(b.v, a.v));
        return {_mm512_permutexvar_epi16(order, halves)};
    }
    void store(std::int32_t* p) const { _mm512_storeu_si512(p, v); }
};
// sum + a[0] * b[0] + a[1] * b[1] in each lane.
inline Floats dot(Floats sum, Pairs a, Pairs b) {
    return {_mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}
#endif

}  // namespace quarry::QUARRY_AVX512
