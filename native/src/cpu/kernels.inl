// The kernels, written once over the vector types of an instruction set. Included by kernels_<set>.cpp after
// its vector header, inside namespace QUARRY_ISA. Nothing here may be an inline function shared with another
// translation unit: the linker would keep one copy, perhaps with instructions that this processor lacks.

namespace {

constexpr std::size_t kHalfBytes = sizeof(std::uint16_t);

inline std::int32_t word_at(const std::int8_t* p) {
    std::int32_t x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
}

// Source of the polynomial: Cephes expf. Below -87.3 the result is exactly 0.
inline Floats exp(Floats x) {
    const Floats limit = Floats::all(-87.3f);
    const Floats clamped = min(max(x, limit), Floats::all(88.3f));
    const Floats n = round(clamped * Floats::all(1.44269504088896341f));
    const Floats r =
        multiply_add(n, Floats::all(2.12194440e-4f), multiply_add(n, Floats::all(-0.693359375f), clamped));
    Floats p = Floats::all(1.9875691500e-4f);
    for (const float c :
         {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f}) {
        p = multiply_add(p, r, Floats::all(c));
    }
    const Floats y = multiply_add(p, r * r, r + Floats::all(1.0f));
    return zero_where_less(y * power_of_two(n), x, limit);
}

inline float exp(float x) {
    float lanes[kLanes];
    exp(Floats::all(x)).store(lanes);
    return lanes[0];
}

// A quotient of polynomials, odd and even, as Eigen has it: off by 3e-7 at most. Beyond 4 it is 1.
inline Floats erf(Floats x) {
    const Floats v = min(max(x, Floats::all(-4.0f)), Floats::all(4.0f));
    const Floats square = v * v;
    Floats p = Floats::all(-2.72614225801306e-10f);
    for (const float c : {2.77068142495902e-08f, -2.10102402082508e-06f, -5.69250639462346e-05f,
                          -7.34990630326855e-04f, -2.95459980854025e-03f, -1.60960333262415e-02f}) {
        p = multiply_add(p, square, Floats::all(c));
    }
    Floats q = Floats::all(-1.45660718464996e-05f);
    for (const float c :
         {-2.13374055278905e-04f, -1.68282697438203e-03f, -7.37332916720468e-03f, -1.42647390514189e-02f}) {
        q = multiply_add(q, square, Floats::all(c));
    }
    return v * p / q;
}

// cap * tanh(x / cap), by tanh(u) = 1 - 2 / (exp(2u) + 1): errors are small against the cap.
inline Floats cap_softly(Floats x, Floats cap, Floats inverse) {
    const Floats two = Floats::all(2.0f);
    const Floats one = Floats::all(1.0f);
    return cap * (one - two / (exp(two * x * inverse) + one));
}

void interleave(const float* x, std::size_t stride, std::size_t n, std::size_t width, float* out) {
    for (std::size_t t = 0; t < n; ++t) {
        for (std::size_t k = 0; k < width; ++k) out[k * n + t] = x[t * stride + k];
    }
}

// A run whose scale is less than this part of the largest before it takes that: the sums stay finite.
constexpr float kLeastScale = 1.0f / (1 << 20);

void quantize(const float* x, std::size_t width, const Chunk& out, float* residual) {
    const std::size_t n = out.n;
    const std::size_t n_groups = width / kGroup;
    for (std::size_t t = 0; t < n; ++t) {
        float last = 0.0f;
        float most = 0.0f;
        for (std::size_t first = 0, run = 0; first < n_groups; first += out.run_groups, ++run) {
            const std::size_t end = first + out.run_groups < n_groups ? first + out.run_groups : n_groups;
            const float* row = x + t * width;
            Floats largest = Floats::zero();
            for (std::size_t k = first * kGroup; k < end * kGroup; k += kLanes)
                largest = max(largest, abs(Floats::load(row + k)));
            float scale = largest.max() / 127.0f;
            if (scale < most * kLeastScale) scale = most * kLeastScale;
            if (scale > most) most = scale;
            const float inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
            out.ratios[run * n + t] = last * inverse;
            last = scale;
            for (std::size_t g = first; g < end; ++g) {
                std::int8_t* q = out.bytes + (g * n + t) * kGroup;
                std::int32_t halves[2];
                quantize_group(row + g * kGroup, inverse, q, halves);
                const std::int32_t sum = halves[0] + halves[1];
                out.sums[g * n + t] = static_cast<float>(sum);
                out.starts[g * n + t] = -kMostOffset * sum;
                for (std::size_t h = 0; h < 2; ++h) {
                    out.half_sums[(2 * g + h) * n + t] = static_cast<float>(halves[h]);
                    out.half_starts[(2 * g + h) * n + t] = -kMostOffset * halves[h];
                }
                if (residual == nullptr) continue;
                for (std::size_t k = 0; k < kGroup; ++k) {
                    residual[t * width + g * kGroup + k] =
                        row[g * kGroup + k] - scale * static_cast<float>(q[k]);
                }
            }
        }
        out.last_scales[t] = last;
    }
}

template <std::size_t N>
void store_tile(const Floats* total, std::size_t lane, const TileOutput& y) {
    if (lane >= y.n_rows) return;
    for (std::size_t t = 0; t < N; ++t) {
        float* out = y.out + t * y.stride + lane;
        Floats value = total[t];
        if (y.bias != nullptr) value = value + Floats::load(y.bias + lane);
        if (y.n_rows - lane >= kLanes) {
            if (y.accumulate) value = value + Floats::load(out);
            value.store(out);
            continue;
        }
        float lanes[kLanes];
        value.store(lanes);
        for (std::size_t i = 0; i < y.n_rows - lane; ++i) out[i] = lanes[i] + (y.accumulate ? out[i] : 0.0f);
    }
}

// How the integers and scales of each quantised layout lie in a tile (see tensor_type.h). quad(group, q,
// lane) gives weights 4q..4q+3 of a group; Scales serves the groups of one block, lane upward.
constexpr std::size_t kLineBytes = kTileRows * 4;
constexpr std::size_t kHalvesBytes = kTileRows * kHalfBytes;

template <std::size_t kQuad>
[[gnu::always_inline]] inline Line nibbles(const std::byte* lines, std::size_t lane) {
    const Line line = Line::load(lines + kQuad % 4 * kLineBytes + lane * 4);
    return line.template shifted_right<kQuad / 4 * 4>() & 0x0f0f0f0fu;
}

// One bit of each weight, to bit kTo: bit 8b + q of a row's word belongs to byte b of quad q.
template <std::size_t kQuad, int kTo>
inline Line single_bits(const std::byte* plane, std::size_t lane) {
    return Line::load(plane + lane * 4).template shifted_right<static_cast<int>(kQuad) - kTo>() &
           (0x01010101u << kTo);
}

// Two bits of each weight, to bit kTo and up: two words a row, of four quads each, with bits 8b + 2q and up.
template <std::size_t kQuad, int kTo>
inline Line bit_pairs(const std::byte* planes, std::size_t lane) {
    const Line plane = Line::load(planes + kQuad / 4 * kLineBytes + lane * 4);
    return plane.template shifted_right<static_cast<int>(kQuad % 4 * 2) - kTo>() & (0x03030303u << kTo);
}

inline const std::uint16_t* halves_at(const std::byte* p, std::size_t lane) {
    return reinterpret_cast<const std::uint16_t*>(p) + lane;
}

template <bool kWithMinimum>
struct PlainScales {
    static constexpr std::size_t kBytes = kHalvesBytes * (kWithMinimum ? 2 : 1);
    Floats scales, minima;
    PlainScales(const std::byte* block, std::size_t lane) : scales(Floats::load_f16(halves_at(block, lane))) {
        if constexpr (kWithMinimum) minima = Floats::load_f16(halves_at(block + kHalvesBytes, lane));
    }
    Floats scale(std::size_t) const { return scales; }
    Floats minimum(std::size_t) const { return minima; }
};

// Blocks of eight groups: scale and minimum of the block as f16, of each group as bytes that multiply them.
struct NestedScales {
    static constexpr std::size_t kBytes = 2 * kHalvesBytes + 16 * kTileRows;
    Floats scales, minima;
    const std::uint8_t* factors;
    NestedScales(const std::byte* block, std::size_t lane)
        : scales(Floats::load_f16(halves_at(block, lane))),
          minima(Floats::zero() - Floats::load_f16(halves_at(block + kHalvesBytes, lane))),
          factors(reinterpret_cast<const std::uint8_t*>(block + 2 * kHalvesBytes) + lane) {}
    Floats scale(std::size_t group) const { return scales * Floats::load_u8(factors + group * kTileRows); }
    Floats minimum(std::size_t group) const {
        return minima * Floats::load_u8(factors + (8 + group) * kTileRows);
    }
};

// The same for halves of groups, signed and without minima.
struct HalfScales {
    static constexpr std::size_t kBytes = kHalvesBytes + 16 * kTileRows;
    Floats scales;
    const std::int8_t* factors;
    HalfScales(const std::byte* block, std::size_t lane)
        : scales(Floats::load_f16(halves_at(block, lane))),
          factors(reinterpret_cast<const std::int8_t*>(block + kHalvesBytes) + lane) {}
    Floats scale(std::size_t half) const { return scales * Floats::load_s8(factors + half * kTileRows); }
};

// The same with minima; the nibbles of a byte multiply scale and minimum.
struct HalfScalesAndMinima {
    static constexpr std::size_t kBytes = 2 * kHalvesBytes + 16 * kTileRows;
    Floats scales, minima;
    const std::uint8_t* factors;
    HalfScalesAndMinima(const std::byte* block, std::size_t lane)
        : scales(Floats::load_f16(halves_at(block, lane))),
          minima(Floats::zero() - Floats::load_f16(halves_at(block + kHalvesBytes, lane))),
          factors(reinterpret_cast<const std::uint8_t*>(block + 2 * kHalvesBytes) + lane) {}
    Floats scale(std::size_t half) const {
        return scales * Floats::load_low_nibbles(factors + half * kTileRows);
    }
    Floats minimum(std::size_t half) const {
        return minima * Floats::load_high_nibbles(factors + half * kTileRows);
    }
};

// Blocks of eight groups with a signed byte each that multiplies the block's scale.
struct SignedScales {
    static constexpr std::size_t kBytes = kHalvesBytes + 8 * kTileRows;
    Floats scales;
    const std::int8_t* factors;
    SignedScales(const std::byte* block, std::size_t lane)
        : scales(Floats::load_f16(halves_at(block, lane))),
          factors(reinterpret_cast<const std::int8_t*>(block + kHalvesBytes) + lane) {}
    Floats scale(std::size_t group) const { return scales * Floats::load_s8(factors + group * kTileRows); }
};

struct TwoBits {
    static constexpr std::size_t kBytes = 2 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return bit_pairs<kQuad, 0>(group, lane);
    }
};

struct ThreeBits {
    static constexpr std::size_t kBytes = 3 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return bit_pairs<kQuad, 0>(group, lane) | single_bits<kQuad, 2>(group + 2 * kLineBytes, lane);
    }
};

// kCodebook with offset 128.
struct Codebook {
    std::uint8_t v[16] = {};
    constexpr Codebook() {
        for (std::size_t i = 0; i < 16; ++i) v[i] = static_cast<std::uint8_t>(kCodebook[i] + 128);
    }
};

// Four bits that are places in the codebook.
struct CodebookBits {
    static constexpr std::size_t kBytes = 4 * kLineBytes;
    static constexpr Codebook kValues{};
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return look_up(nibbles<kQuad>(group, lane), kValues.v);
    }
};

struct EightBits {
    static constexpr std::size_t kBytes = 8 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return Line::load(group + kQuad * kLineBytes + lane * 4);
    }
};

struct FourBits {
    static constexpr std::size_t kBytes = 4 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return nibbles<kQuad>(group, lane);
    }
};

struct FiveBits {
    static constexpr std::size_t kBytes = 5 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return nibbles<kQuad>(group, lane) | single_bits<kQuad, 4>(group + 4 * kLineBytes, lane);
    }
};

struct SixBits {
    static constexpr std::size_t kBytes = 6 * kLineBytes;
    template <std::size_t kQuad>
    static Line quad(const std::byte* group, std::size_t lane) {
        return nibbles<kQuad>(group, lane) | bit_pairs<kQuad, 4>(group + 4 * kLineBytes, lane);
    }
};

// Weights are read once, forward, and few tokens leave little to do with them: they are asked for early, as
// the processor's own prefetching ends with each page. What lies past the end is not touched by asking for
// it.
template <std::size_t kBytes, std::size_t N>
[[gnu::always_inline]] inline void fetch_ahead(const std::byte* weights) {
    constexpr std::size_t kAhead = 4096;
    constexpr std::size_t kCacheLine = 64;
    if constexpr (N <= 4) {
#pragma GCC unroll 16
        for (std::size_t at = 0; at < kBytes; at += kCacheLine) __builtin_prefetch(weights + kAhead + at);
    }
}

template <int kOffset, class Bits, std::size_t kFirst, std::size_t kEnd, std::size_t N>
[[gnu::always_inline]] inline void dot_quads(Ints* sum, const std::byte* group, std::size_t lane,
                                             const std::int8_t* x) {
    if constexpr (kFirst < kEnd) {
        const Weights w = to_weights(Bits::template quad<kFirst>(group, lane));
#pragma GCC unroll 12
        for (std::size_t t = 0; t < N; ++t)
            sum[t] = dot<kOffset>(sum[t], w, word_at(x + t * kGroup + kFirst * 4));
        dot_quads<kOffset, Bits, kFirst + 1, kEnd, N>(sum, group, lane, x);
    }
}

// Sums in units of the scale of the run before to units of this one's.
template <std::size_t N>
[[gnu::always_inline]] inline void change_units(Floats* total, const float* ratios) {
#pragma GCC unroll 12
    for (std::size_t t = 0; t < N; ++t) total[t] = total[t] * Floats::all(ratios[t]);
}

// sums: of the bytes that weights were multiplied by, where these have a minimum.
template <std::size_t N, bool kWithMinimum, class Scales>
[[gnu::always_inline]] inline void add_scaled(Floats* total, const Ints* products, const Scales& scales,
                                              std::size_t index, const float* sums) {
    const Floats scale = scales.scale(index);
#pragma GCC unroll 12
    for (std::size_t t = 0; t < N; ++t) total[t] = multiply_add(products[t].to_floats(), scale, total[t]);
    if constexpr (kWithMinimum) {
        const Floats minimum = scales.minimum(index);
#pragma GCC unroll 12
        for (std::size_t t = 0; t < N; ++t) total[t] = multiply_add(minimum, Floats::all(sums[t]), total[t]);
    }
}

// Scales: of the groups of one block, or of their halves.
template <class Bits, class Scales, std::size_t kGroups, int kOffset, bool kWithMinimum, bool kHalves>
struct Quantized {
    static constexpr std::size_t kParts = kHalves ? 2 : 1;  // scales of a group
    static constexpr std::size_t kBlockBytes = Scales::kBytes + kGroups * Bits::kBytes;

    template <std::size_t N>
    static void matmul(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y) {
        for (std::size_t lane = 0; lane < kTileRows; lane += kLanes) {
            Floats total[N];
#pragma GCC unroll 12
            for (std::size_t t = 0; t < N; ++t) total[t] = Floats::zero();
            const std::byte* block = tile;
            const float* ratios = x.ratios;
            const std::size_t within_run = x.run_groups - 1;
            for (std::size_t first = 0; first < width / kGroup; first += kGroups, block += kBlockBytes) {
                const Scales scales(block, lane);
                for (std::size_t j = 0; j < kGroups; ++j) {
                    const std::size_t g = first + j;
                    const std::byte* group = block + Scales::kBytes + j * Bits::kBytes;
                    fetch_ahead<Bits::kBytes, N>(group);
                    if ((g & within_run) == 0) {
                        change_units<N>(total, ratios);
                        ratios += N;
                    }
                    if constexpr (kHalves) {
                        add_part<N, 0, 4>(total, group, lane, x, g, x.half_starts + 2 * g * N, scales, 2 * j,
                                          x.half_sums + 2 * g * N);
                        add_part<N, 4, 8>(total, group, lane, x, g, x.half_starts + (2 * g + 1) * N, scales,
                                          2 * j + 1, x.half_sums + (2 * g + 1) * N);
                    } else {
                        add_part<N, 0, 8>(total, group, lane, x, g, x.starts + g * N, scales, j,
                                          x.sums + g * N);
                    }
                }
            }
            change_units<N>(total, x.last_scales);
            store_tile<N>(total, lane, y);
        }
    }

  private:
    template <std::size_t N, std::size_t kFirst, std::size_t kEnd>
    [[gnu::always_inline]] static void add_part(Floats* total, const std::byte* group, std::size_t lane,
                                                const Chunk& x, std::size_t g, const std::int32_t* starts,
                                                const Scales& scales, std::size_t index, const float* sums) {
        Ints products[N];
#pragma GCC unroll 12
        for (std::size_t t = 0; t < N; ++t) products[t] = start<kOffset>(starts[t]);
        dot_quads<kOffset, Bits, kFirst, kEnd, N>(products, group, lane, x.bytes + g * kGroup * N);
        add_scaled<N, kWithMinimum>(total, products, scales, index, sums);
    }
};

template <class Number, Floats (*kLoad)(const Number*)>
struct Plain {
    template <std::size_t N>
    static void matmul(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y) {
        const auto* numbers = reinterpret_cast<const Number*>(tile);
        for (std::size_t lane = 0; lane < kTileRows; lane += kLanes) {
            Floats total[N];
#pragma GCC unroll 12
            for (std::size_t t = 0; t < N; ++t) total[t] = Floats::zero();
            for (std::size_t k = 0; k < width; ++k) {
                const Floats w = kLoad(numbers + k * kTileRows + lane);
#pragma GCC unroll 12
                for (std::size_t t = 0; t < N; ++t) {
                    total[t] = multiply_add(w, Floats::all(x.floats[k * N + t]), total[t]);
                }
            }
            store_tile<N>(total, lane, y);
        }
    }
};

// Calls Operation::run<n>(arguments...) with n as a constant.
template <template <std::size_t> class Operation, std::size_t N = kChunk, class... Arguments>
inline void with_constant(std::size_t n, Arguments&&... arguments) {
    if constexpr (N > 1) {
        if (n < N) return with_constant<Operation, N - 1>(n, arguments...);
    }
    Operation<N>::run(arguments...);
}

#include "panel.inl"

#ifdef __AVX512BF16__
// Pairs of bf16 weights times pairs of activations rounded to bf16.
struct PairsOfBf16 {
    template <std::size_t N>
    static void matmul(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y) {
        Floats total[N];
#pragma GCC unroll 12
        for (std::size_t t = 0; t < N; ++t) total[t] = Floats::zero();
        constexpr std::size_t kOfGroup = kGroup / 2;
        for (std::size_t g = 0; g < width / kGroup; ++g, tile += kOfGroup * kLineBytes) {
            const std::int32_t* pairs = x.pairs + g * kOfGroup * N;
            for (std::size_t k = 0; k < kOfGroup; ++k) {
                const Pairs w = Pairs::load(tile + k * kLineBytes);
#pragma GCC unroll 12
                for (std::size_t t = 0; t < N; ++t) {
                    total[t] = dot(total[t], w, Pairs::all(pairs[t * kOfGroup + k]));
                }
            }
        }
        store_tile<N>(total, 0, y);
    }
};

// The same of two tiles by six tokens, as in panel.inl; the tiles' lines lie in turn.
struct PairsPanel {
    static constexpr std::size_t kGroupBytes = kGroup / 2 * kPanelLine;

    static void unpack(const std::byte* const* tiles, std::size_t width, std::byte* panel) {
        for (std::size_t k = 0; k < width / 2; ++k, panel += kPanelLine) {
            for (std::size_t side = 0; side < kPanelTiles; ++side)
                Line::load(tiles[side] + k * kLineBytes).store(panel + side * kLineBytes);
        }
    }

    template <std::size_t T>
    struct Sized {
        static void run(const std::byte* panel, std::size_t groups, const Chunk& x, std::size_t first,
                        const TileOutput& y) {
            constexpr std::size_t kOfGroup = kGroup / 2;
            Floats left[T];
            Floats right[T];
#pragma GCC unroll 6
            for (std::size_t t = 0; t < T; ++t) left[t] = right[t] = Floats::zero();
            for (std::size_t g = 0; g < groups; ++g) {
                const std::int32_t* pairs = x.pairs + (g * x.n + first) * kOfGroup;
                for (std::size_t k = 0; k < kOfGroup; ++k, panel += kPanelLine) {
                    const Pairs left_w = Pairs::load(panel);
                    const Pairs right_w = Pairs::load(panel + kLineBytes);
#pragma GCC unroll 6
                    for (std::size_t t = 0; t < T; ++t) {
                        const Pairs pair = Pairs::all(pairs[t * kOfGroup + k]);
                        left[t] = dot(left[t], left_w, pair);
                        right[t] = dot(right[t], right_w, pair);
                    }
                }
            }
            TileOutput out = y;
            out.out += first * y.stride;
            store_tile<T>(left, 0, out);
            store_tile<T>(right, kTileRows, out);
        }
    };

    static void multiply(const std::byte* panel, std::size_t width, const Chunk& x, const TileOutput& y) {
        for (std::size_t first = 0; first < x.n; first += kPanelTokens) {
            with_constant<Sized, kPanelTokens>(x.n - first < kPanelTokens ? x.n - first : kPanelTokens, panel,
                                               width / kGroup, x, first, y);
        }
    }
};

void pair_up(const float* x, std::size_t stride, std::size_t n, std::size_t width, std::int32_t* out) {
    for (std::size_t t = 0; t < n; ++t) {
        static_assert(kGroup == 2 * kLanes);
        for (std::size_t g = 0; g < width / kGroup; ++g)
            Pairs::rounded(x + t * stride + g * kGroup).store(out + (g * n + t) * kLanes);
    }
}
#endif

template <class Kind>
struct Matmul {
    template <std::size_t N>
    struct Sized {
        static void run(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y) {
            Kind::template matmul<N>(tile, width, x, y);
        }
    };
    static void run(const std::byte* tile, std::size_t width, const Chunk& x, const TileOutput& y) {
        with_constant<Sized>(x.n, tile, width, x, y);
    }
};

// Calls body(lanes at i) for whole vectors of n floats; the rest goes through padded copies.
template <class Body>
inline void map(const float* x, std::size_t n, float* out, Body body) {
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) body(Floats::load(x + i), i).store(out + i);
    if (i == n) return;
    float lanes[kLanes] = {};
    __builtin_memcpy(lanes, x + i, (n - i) * sizeof(float));
    body(Floats::load(lanes), i).store(lanes);
    __builtin_memcpy(out + i, lanes, (n - i) * sizeof(float));
}

inline Floats load_some(const float* x, std::size_t i, std::size_t n) {
    if (n - i >= kLanes) return Floats::load(x + i);
    float lanes[kLanes] = {};
    __builtin_memcpy(lanes, x + i, (n - i) * sizeof(float));
    return Floats::load(lanes);
}

void soft_cap(float* x, std::size_t n, float cap) {
    const Floats all = Floats::all(cap);
    const Floats inverse = Floats::all(1.0f / cap);
    map(x, n, x, [&](Floats v, std::size_t) { return cap_softly(v, all, inverse); });
}

#include "cache_q8.inl"

template <std::size_t N>
struct Attend {
    static void run(const AttentionTask& task) {
        const std::size_t head_dim = task.head_dim;
        float* queries = task.scratch;        // [head_dim][N]
        float* out = queries + N * head_dim;  // [N][head_dim]
        float* weights = out + N * head_dim;  // [N][kKeysPerBlock]
        float largest[N];
        float total[N];
        std::size_t n_keys = 0;
        std::size_t first_key = task.first_visible[0];
        for (std::size_t r = 0; r < N; ++r) {
            largest[r] = kMasked;
            total[r] = 0.0f;
            if (task.n_visible[r] > n_keys) n_keys = task.n_visible[r];
            if (task.first_visible[r] < first_key) first_key = task.first_visible[r];
            for (std::size_t d = 0; d < head_dim; ++d) queries[d * N + r] = task.queries[r][d];
        }
        __builtin_memset(out, 0, N * head_dim * sizeof(float));
        first_key = first_key / kKeysPerBlock * kKeysPerBlock;
        for (std::size_t first = first_key; first < n_keys; first += kKeysPerBlock) {
            const KeyValueBlock block = block_at(task, first / kKeysPerBlock, weights + N * kKeysPerBlock);
            const std::size_t n_block = n_keys - first < kKeysPerBlock ? n_keys - first : kKeysPerBlock;
            score(block.keys, queries, head_dim, weights);
            if (task.soft_cap > 0) soft_cap(weights, N * kKeysPerBlock, task.soft_cap);
            if (task.slope > 0) lower_far(task, first, weights);
            for (std::size_t r = 0; r < N; ++r) {
                const auto within = [&](std::size_t key) {
                    return key < first ? 0 : key - first < kKeysPerBlock ? key - first : kKeysPerBlock;
                };
                soften(weights + r * kKeysPerBlock, within(task.first_visible[r]), within(task.n_visible[r]),
                       largest[r], total[r], out + r * head_dim, head_dim);
            }
            add_values(block.values, weights, n_block, head_dim, out);
        }
        for (std::size_t r = 0; r < N; ++r) {
            const Floats inverse = Floats::all(1.0f / total[r]);
            for (std::size_t d = 0; d < head_dim; d += kLanes) {
                (Floats::load(out + r * head_dim + d) * inverse).store(task.out[r] + d);
            }
        }
    }

  private:
    static constexpr float kMasked = -1e30f;

    static KeyValueBlock block_at(const AttentionTask& task, std::size_t index, float* scratch) {
        if (task.packed == nullptr) return task.blocks[index];
        auto* keys = reinterpret_cast<std::uint16_t*>(scratch);
        std::uint16_t* values = keys + task.head_dim * kKeysPerBlock;
        unpack(task.packed[index], task.head_dim, keys, values);
        return {keys, values};
    }

    static void score(const std::uint16_t* keys, const float* queries, std::size_t head_dim, float* scores) {
        for (std::size_t lane = 0; lane < kKeysPerBlock; lane += kLanes) {
            Floats sum[N];
#pragma GCC unroll 12
            for (std::size_t r = 0; r < N; ++r) sum[r] = Floats::zero();
            for (std::size_t d = 0; d < head_dim; ++d) {
                const Floats key = Floats::load_f16(keys + d * kKeysPerBlock + lane);
#pragma GCC unroll 12
                for (std::size_t r = 0; r < N; ++r) {
                    sum[r] = multiply_add(key, Floats::all(queries[d * N + r]), sum[r]);
                }
            }
#pragma GCC unroll 12
            for (std::size_t r = 0; r < N; ++r) sum[r].store(scores + r * kKeysPerBlock + lane);
        }
    }

    // Attention with linear biases, in both directions.
    static void lower_far(const AttentionTask& task, std::size_t first, float* scores) {
        for (std::size_t r = 0; r < N; ++r) {
            const float start = static_cast<float>(first) - static_cast<float>(task.positions[r]);
            for (std::size_t j = 0; j < kKeysPerBlock; ++j) {
                const float distance = start + static_cast<float>(j);
                scores[r * kKeysPerBlock + j] -= task.slope * (distance < 0 ? -distance : distance);
            }
        }
    }

    // Scores of one block to weights relative to the largest score so far; what was summed before is
    // rescaled.
    static void soften(float* scores, std::size_t first_visible, std::size_t n_visible, float& largest,
                       float& total, float* out, std::size_t head_dim) {
        if (first_visible >= n_visible) {
            for (std::size_t j = 0; j < kKeysPerBlock; ++j) scores[j] = 0.0f;
            return;
        }
        for (std::size_t j = 0; j < first_visible; ++j) scores[j] = kMasked;
        for (std::size_t j = n_visible; j < kKeysPerBlock; ++j) scores[j] = kMasked;
        Floats top = Floats::all(largest);
        for (std::size_t j = 0; j < kKeysPerBlock; j += kLanes) top = max(top, Floats::load(scores + j));
        const float new_largest = top.max();
        if (new_largest > largest) {
            const float factor = exp(largest - new_largest);
            total *= factor;
            for (std::size_t d = 0; d < head_dim; d += kLanes) {
                (Floats::load(out + d) * Floats::all(factor)).store(out + d);
            }
            largest = new_largest;
        }
        Floats sum = Floats::zero();
        for (std::size_t j = 0; j < kKeysPerBlock; j += kLanes) {
            const Floats weight = exp(Floats::load(scores + j) - Floats::all(largest));
            weight.store(scores + j);
            sum = sum + weight;
        }
        total += sum.sum();
    }

    static void add_values(const std::uint16_t* values, const float* weights, std::size_t n_block,
                           std::size_t head_dim, float* out) {
        for (std::size_t d = 0; d < head_dim; d += kLanes) {
            Floats sum[N];
#pragma GCC unroll 12
            for (std::size_t r = 0; r < N; ++r) sum[r] = Floats::load(out + r * head_dim + d);
            for (std::size_t j = 0; j < n_block; ++j) {
                const Floats value = Floats::load_f16(values + j * head_dim + d);
#pragma GCC unroll 12
                for (std::size_t r = 0; r < N; ++r) {
                    sum[r] = multiply_add(value, Floats::all(weights[r * kKeysPerBlock + j]), sum[r]);
                }
            }
#pragma GCC unroll 12
            for (std::size_t r = 0; r < N; ++r) sum[r].store(out + r * head_dim + d);
        }
    }
};

void attend(const AttentionTask& task) {
    with_constant<Attend>(task.n_rows, task);
}

#include "attention_within.inl"

#ifdef __AVX512BF16__
using RoundedPairs = Bf16Pairs;
#else
using RoundedPairs = FloatPairs;
#endif

template <class Term>
inline float sum_of(const float* x, std::size_t n, Term term) {
    Floats total = Floats::zero();
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) total = total + term(Floats::load(x + i));
    float sum = total.sum();
    for (; i < n; ++i) {
        float lanes[kLanes];
        term(Floats::all(x[i])).store(lanes);
        sum += lanes[0];
    }
    return sum;
}

void rms_norm(const float* x, const float* weight, std::size_t width, float epsilon, float* out) {
    const float squares = sum_of(x, width, [](Floats v) { return v * v; });
    const Floats factor = Floats::all(1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon));
    map(x, width, out, [&](Floats v, std::size_t i) { return v * factor * load_some(weight, i, width); });
}

void layer_norm(const float* x, const float* weight, const float* bias, std::size_t width, float epsilon,
                float* out) {
    const float mean = sum_of(x, width, [](Floats v) { return v; }) / static_cast<float>(width);
    const Floats center = Floats::all(mean);
    const float squares = sum_of(x, width, [&](Floats v) { return (v - center) * (v - center); });
    const Floats factor = Floats::all(1.0f / __builtin_sqrtf(squares / static_cast<float>(width) + epsilon));
    map(x, width, out, [&](Floats v, std::size_t i) {
        return multiply_add((v - center) * factor, load_some(weight, i, width), load_some(bias, i, width));
    });
}

void silu_multiply(const float* gate, const float* up, std::size_t n, float* out) {
    const Floats one = Floats::all(1.0f);
    map(gate, n, out,
        [&](Floats v, std::size_t i) { return v / (one + exp(Floats::zero() - v)) * load_some(up, i, n); });
}

void gelu_multiply(const float* gate, const float* up, std::size_t n, float* out) {
    const Floats one = Floats::all(1.0f);
    // x * (1 + tanh(u)) / 2 = x / (1 + exp(-2u)), u = sqrt(2 / pi) * (x + 0.044715 x^3).
    map(gate, n, out, [&](Floats v, std::size_t i) {
        const Floats twice =
            v * multiply_add(v * v, Floats::all(-0.0713548163f), Floats::all(-1.5957691216f));
        return v / (one + exp(twice)) * load_some(up, i, n);
    });
}

void gelu(float* x, std::size_t n) {
    const Floats half = Floats::all(0.5f);
    map(x, n, x, [&](Floats v, std::size_t) {
        return half * v * (Floats::all(1.0f) + erf(v * Floats::all(0.70710678118654752f)));
    });
}

void add(const float* x, std::size_t n, float* out) {
    map(x, n, out, [&](Floats v, std::size_t i) { return v + load_some(out, i, n); });
}

void scale(float* x, std::size_t n, float factor) {
    map(x, n, x, [&](Floats v, std::size_t) { return v * Floats::all(factor); });
}

void to_f16(const float* x, std::size_t n, std::uint16_t* out) {
    std::size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) Floats::load(x + i).store_f16(out + i);
    if (i == n) return;
    std::uint16_t halves[kLanes];
    load_some(x, i, n).store_f16(halves);
    __builtin_memcpy(out + i, halves, (n - i) * kHalfBytes);
}

void rotate(float* x, const float* cosines, const float* sines, std::size_t half) {
    std::size_t i = 0;
    for (; i + kLanes <= half; i += kLanes) {
        const Floats a = Floats::load(x + i);
        const Floats b = Floats::load(x + half + i);
        const Floats c = Floats::load(cosines + i);
        const Floats s = Floats::load(sines + i);
        (a * c - b * s).store(x + i);
        (a * s + b * c).store(x + half + i);
    }
    for (; i < half; ++i) {
        const float a = x[i];
        const float b = x[half + i];
        x[i] = a * cosines[i] - b * sines[i];
        x[half + i] = a * sines[i] + b * cosines[i];
    }
}

// How a layout is multiplied by many tokens.
template <class Kind>
constexpr PanelKernels panels_of() {
    if constexpr (kHasPanels) {
        return {Unpacked<Kind>::Shape::kGroupBytes, Unpacked<Kind>::unpack, Unpacked<Kind>::Shape::multiply};
    } else {
        return {};
    }
}

#ifdef __AVX512BF16__
constexpr MatmulTile kPairs = Matmul<PairsOfBf16>::run;
constexpr auto kPairUp = pair_up;
constexpr PanelKernels kPairsPanel{PairsPanel::kGroupBytes, PairsPanel::unpack, PairsPanel::multiply};
#else
constexpr MatmulTile kPairs = nullptr;
constexpr std::nullptr_t kPairUp = nullptr;
constexpr PanelKernels kPairsPanel{};
#endif

}  // namespace

const Kernels kernels = {
    kName,
    kChunk,
    interleave,
    quantize,
    {
        Matmul<Plain<float, Floats::load>>::run,
        Matmul<Plain<std::uint16_t, Floats::load_f16>>::run,
        Matmul<Plain<std::uint16_t, Floats::load_bf16>>::run,
        Matmul<Quantized<EightBits, PlainScales<false>, 1, 128, false, false>>::run,
        Matmul<Quantized<FourBits, PlainScales<false>, 1, 8, false, false>>::run,
        Matmul<Quantized<FourBits, PlainScales<true>, 1, 0, true, false>>::run,
        Matmul<Quantized<FiveBits, PlainScales<false>, 1, 16, false, false>>::run,
        Matmul<Quantized<FiveBits, PlainScales<true>, 1, 0, true, false>>::run,
        Matmul<Quantized<FourBits, NestedScales, 8, 0, true, false>>::run,
        Matmul<Quantized<FiveBits, NestedScales, 8, 0, true, false>>::run,
        Matmul<Quantized<SixBits, HalfScales, 8, 32, false, true>>::run,
        Matmul<Quantized<TwoBits, HalfScalesAndMinima, 8, 0, true, true>>::run,
        Matmul<Quantized<ThreeBits, HalfScales, 8, 4, false, true>>::run,
        Matmul<Quantized<CodebookBits, PlainScales<false>, 1, 128, false, false>>::run,
        Matmul<Quantized<CodebookBits, SignedScales, 8, 128, false, false>>::run,
        kPairs,
    },
    {
        {},
        {},
        {},
        panels_of<Quantized<EightBits, PlainScales<false>, 1, 128, false, false>>(),
        panels_of<Quantized<FourBits, PlainScales<false>, 1, 8, false, false>>(),
        panels_of<Quantized<FourBits, PlainScales<true>, 1, 0, true, false>>(),
        panels_of<Quantized<FiveBits, PlainScales<false>, 1, 16, false, false>>(),
        panels_of<Quantized<FiveBits, PlainScales<true>, 1, 0, true, false>>(),
        panels_of<Quantized<FourBits, NestedScales, 8, 0, true, false>>(),
        panels_of<Quantized<FiveBits, NestedScales, 8, 0, true, false>>(),
        panels_of<Quantized<SixBits, HalfScales, 8, 32, false, true>>(),
        panels_of<Quantized<TwoBits, HalfScalesAndMinima, 8, 0, true, true>>(),
        panels_of<Quantized<ThreeBits, HalfScales, 8, 4, false, true>>(),
        panels_of<Quantized<CodebookBits, PlainScales<false>, 1, 128, false, false>>(),
        panels_of<Quantized<CodebookBits, SignedScales, 8, 128, false, false>>(),
        kPairsPanel,
    },
    kPairUp,
    rms_norm,
    layer_norm,
    silu_multiply,
    gelu_multiply,
    gelu,
    add,
    scale,
    soft_cap,
    to_f16,
    rotate,
    attend,
    {AttendWithin<FloatPairs>::run, AttendWithin<FloatPairs>::scratch_bytes},
    {AttendWithin<RoundedPairs>::run, AttendWithin<RoundedPairs>::scratch_bytes},
    kPeakInt8,
    kPeakBf16,
    kPeakF32,
    read_bytes,
};
