// 110 bytes for 256 weights: 32 bytes of third bits (bit g of byte j: weight 32 g + j), 64 bytes of bit pairs
// as in Q2_K, 16 scales of 6 bits in 12 bytes (low nibbles of 8 bytes, then their high nibbles; bit pair p of
// byte 8 + j goes on top of scale 4 p + j), scale f16. Offsets 4 and 32.
#include "fit.h"
#include "planes.h"

namespace quarry::types {

constexpr std::size_t kBytes = 110;
constexpr std::size_t kPairs = 32;
constexpr std::size_t kScales = 96;
constexpr std::size_t kScale = 108;

static std::int8_t factor_of(const std::byte* block, std::size_t half) {
    const auto byte = [&](std::size_t i) { return int{load<std::uint8_t>(block + kScales + i)}; };
    const int low = byte(half % 8) >> half / 8 * 4 & 15;
    const int high = byte(8 + half % 4) >> half / 4 * 2 & 3;
    return static_cast<std::int8_t>((low | high << 4) - 32);
}

static void dequantize(const std::byte* row, std::size_t width, float* out) {
    for (std::size_t b = 0; b < width / kBlockWeights; ++b, row += kBytes) {
        const float scale = f16_to_f32(load<std::uint16_t>(row + kScale));
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            const int low = load<std::uint8_t>(row + kPairs + k / 128 * 32 + k % 32) >> k % 128 / 32 * 2 & 3;
            const int high = load<std::uint8_t>(row + k % 32) >> k / 32 & 1;
            *out++ = scale * static_cast<float>(factor_of(row, k / 16)) *
                     static_cast<float>((low | high << 2) - 4);
        }
    }
}

static void pack(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    constexpr std::size_t kIntegers = kHalves + 2 * kNestedGroups * kTileRows;
    pack_blocks(rows, width / kBlockWeights, kBytes, tile, tile_bytes(Layout::q3_nested, kBlockWeights),
                [](const std::byte* block, std::size_t row, std::byte* out) {
                    store_half(out, 0, row, load<std::uint16_t>(block + kScale));
                    for (std::size_t half = 0; half < 2 * kNestedGroups; ++half) {
                        out[kHalves + half * kTileRows + row] =
                            static_cast<std::byte>(factor_of(block, half));
                    }
                    for (std::size_t g = 0; g < kNestedGroups; ++g) {
                        std::byte* group = out + kIntegers + g * 3 * kLine;
                        const std::byte* run = block + kPairs + g / 4 * 32;
                        store_pairs(group, 0, row, [&](std::size_t i) {
                            return load<std::uint32_t>(run + 4 * i) >> g % 4 * 2 & 0x03030303u;
                        });
                        store_bits(group, 2, row, [&](std::size_t i) {
                            return load<std::uint32_t>(block + 4 * i) >> g & 0x01010101u;
                        });
                    }
                });
}

static void store_factors(const SignedBlock& block, std::byte* out) {
    std::uint8_t bytes[12] = {};
    for (std::size_t half = 0; half < kMostGroups; ++half) {
        const int factor = block.factors[half] + 32;
        bytes[half % 8] |= static_cast<std::uint8_t>((factor & 15) << half / 8 * 4);
        bytes[8 + half % 4] |= static_cast<std::uint8_t>(factor >> 4 << half / 4 * 2);
    }
    std::memcpy(out, bytes, sizeof bytes);
}

static void quantize(const float* x, std::size_t width, const float* importance, std::byte* row) {
    constexpr int kMost = 4;
    for (std::size_t at = 0; at < width; at += kBlockWeights, x += kBlockWeights, row += kBytes) {
        SignedBlock block{};
        const float square = 2 * mean_square({x, kBlockWeights});
        float scales[kMostGroups];
        float sums[kMostGroups] = {};
        for (std::size_t half = 0; half < kMostGroups; ++half) {
            const std::span<const float> group(x + half * kHalfGroup, kHalfGroup);
            std::uint8_t* q = block.q + half * kHalfGroup;
            if (importance == nullptr) {
                scales[half] = fit_signed_stepwise(group, kMost, q);
                continue;
            }
            float weights[kHalfGroup];
            weigh(group, importance + at + half * kHalfGroup, square, weights);
            for (const float w : weights) sums[half] += w;
            scales[half] = fit_signed(group, weights, kMost, q);
        }
        if (importance == nullptr) {
            round_to_largest(scales, -32, block);
        } else {
            std::uint8_t factors[kMostGroups];
            block.scale = f32_to_f16(fit_signed(scales, sums, 32, factors));
            for (std::size_t half = 0; half < kMostGroups; ++half) {
                block.factors[half] = static_cast<std::int8_t>(factors[half] - 32);
            }
        }
        round_signed(x, kMost, block);
        std::memset(row, 0, kPairs);
        for (std::size_t k = 0; k < kBlockWeights; ++k) {
            row[k % 32] |= static_cast<std::byte>(block.q[k] >> 2 << k / 32);
        }
        store_pair_runs(block.q, row + kPairs);
        store_factors(block, row + kScales);
        store(row + kScale, block.scale);
    }
}

const TensorType q3_k{11, "Q3_K", kBlockWeights, kBytes, Layout::q3_nested, dequantize, pack, quantize};

}  // namespace quarry::types
