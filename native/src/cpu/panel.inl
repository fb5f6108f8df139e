// Products of many tokens: two tiles are unpacked into a panel once, bytes and scales of each group side by
// side, and then multiplied by one chunk of activations after another. Two tiles by six tokens keep the sums
// and totals in 28 of 32 registers, and need 8 loads for 12 products. The floating-point operations are those
// of Quantized in the same order: a token's result does not tell which of them computed
// it. Part of kernels.inl, where the vectors have 16 lanes and there are 32 of them.

constexpr std::size_t kPanelTokens = 6;
constexpr std::size_t kPanelLine = kPanelTiles * kLineBytes;
constexpr std::size_t kPanelIntegers = 8 * kPanelLine;  // of a group

// Of one tile in a panel.
struct PanelScales {
    const float* at;
    Floats scale(std::size_t) const { return Floats::load(at); }
    Floats minimum(std::size_t) const { return Floats::load(at + kPanelTiles * kTileRows); }
};

// kShifted: bytes with offset 128 instead of 0. kParts: scales of a group.
template <bool kShifted, std::size_t kParts, bool kWithMinimum>
struct Panel {
    static constexpr std::size_t kPartBytes = kPanelLine * (kWithMinimum ? 2 : 1);
    static constexpr std::size_t kGroupBytes = kPanelIntegers + kParts * kPartBytes;

    template <std::size_t T>
    struct Sized {
        static void run(const std::byte* panel, std::size_t groups, const Chunk& x, std::size_t first,
                        const TileOutput& y) {
            Floats left[T];
            Floats right[T];
#pragma GCC unroll 6
            for (std::size_t t = 0; t < T; ++t) left[t] = right[t] = Floats::zero();
            const float* ratios = x.ratios + first;
            const std::size_t within_run = x.run_groups - 1;
            for (std::size_t g = 0; g < groups; ++g, panel += kGroupBytes) {
                if ((g & within_run) == 0) {
                    change_units<T>(left, ratios);
                    change_units<T>(right, ratios);
                    ratios += x.n;
                }
                add_part<T, 0>(left, right, panel, x, first, g);
                if constexpr (kParts == 2) add_part<T, 1>(left, right, panel, x, first, g);
            }
            change_units<T>(left, x.last_scales + first);
            change_units<T>(right, x.last_scales + first);
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

  private:
    template <std::size_t T, std::size_t kPart>
    [[gnu::always_inline]] static void add_part(Floats* left, Floats* right, const std::byte* panel,
                                                const Chunk& x, std::size_t first, std::size_t g) {
        constexpr std::size_t kQuads = 8 / kParts;
        const std::size_t n = x.n;
        const std::size_t at = (kParts * g + kPart) * n + first;
        const std::int32_t* starts = (kParts == 1 ? x.starts : x.half_starts) + at;
        const std::int8_t* bytes = x.bytes + (g * n + first) * kGroup + kPart * kQuads * 4;
        const std::byte* lines = panel + kPart * kQuads * kPanelLine;
        Ints left_sum[T];
        Ints right_sum[T];
#pragma GCC unroll 6
        for (std::size_t t = 0; t < T; ++t)
            left_sum[t] = right_sum[t] = start<kShifted ? kMostOffset : 0>(starts[t]);
#pragma GCC unroll 8
        for (std::size_t q = 0; q < kQuads; ++q) {
            const Weights left_w = to_weights(Line::load(lines + q * kPanelLine));
            const Weights right_w = to_weights(Line::load(lines + q * kPanelLine + kLineBytes));
#pragma GCC unroll 6
            for (std::size_t t = 0; t < T; ++t) {
                const std::int32_t word = word_at(bytes + t * kGroup + q * 4);
                left_sum[t] = dot<kShifted ? kMostOffset : 0>(left_sum[t], left_w, word);
                right_sum[t] = dot<kShifted ? kMostOffset : 0>(right_sum[t], right_w, word);
            }
        }
        const auto* scales = reinterpret_cast<const float*>(panel + kPanelIntegers + kPart * kPartBytes);
        const float* sums = (kParts == 1 ? x.sums : x.half_sums) + at;
        add_scaled<T, kWithMinimum>(left, left_sum, PanelScales{scales}, 0, sums);
        add_scaled<T, kWithMinimum>(right, right_sum, PanelScales{scales + kTileRows}, 0, sums);
    }
};

template <class Bits, int kOffset, std::size_t kQuad = 0>
[[gnu::always_inline]] inline void unpack_quads(const std::byte* group, std::byte* lines) {
    if constexpr (kQuad < 8) {
        auto line = Bits::template quad<kQuad>(group, 0);
        // No byte overflows into the next one.
        if constexpr (kOffset != 0 && kOffset != kMostOffset)
            line = line + (kMostOffset - kOffset) * 0x01010101u;
        line.store(lines + kQuad * kPanelLine);
        unpack_quads<Bits, kOffset, kQuad + 1>(group, lines);
    }
}

template <class Kind>
struct Unpacked;

template <class Bits, class Scales, std::size_t kGroups, int kOffset, bool kWithMinimum, bool kHalves>
struct Unpacked<Quantized<Bits, Scales, kGroups, kOffset, kWithMinimum, kHalves>> {
    using Packed = Quantized<Bits, Scales, kGroups, kOffset, kWithMinimum, kHalves>;
    using Shape = Panel<kOffset != 0, Packed::kParts, kWithMinimum>;

    static void unpack(const std::byte* const* tiles, std::size_t width, std::byte* panel) {
        for (std::size_t side = 0; side < kPanelTiles; ++side) {
            const std::byte* block = tiles[side];
            std::byte* out = panel + side * kLineBytes;
            for (std::size_t g = 0; g < width / kGroup; g += kGroups, block += Packed::kBlockBytes) {
                const Scales scales(block, 0);
                for (std::size_t j = 0; j < kGroups; ++j, out += Shape::kGroupBytes) {
                    unpack_quads<Bits, kOffset>(block + Scales::kBytes + j * Bits::kBytes, out);
                    for (std::size_t part = 0; part < Packed::kParts; ++part) {
                        auto* at = reinterpret_cast<float*>(out + kPanelIntegers + part * Shape::kPartBytes);
                        scales.scale(j * Packed::kParts + part).store(at);
                        if constexpr (kWithMinimum)
                            scales.minimum(j * Packed::kParts + part).store(at + kPanelTiles * kTileRows);
                    }
                }
            }
        }
    }
};
