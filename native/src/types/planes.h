// Writes the integers of a group of 32 weights into tile lines; see tensor_type.h for where bits go.
#pragma once

#include "blocks.h"

namespace quarry::types {

constexpr std::size_t kLine = kTileRows * sizeof(std::uint32_t);
constexpr std::size_t kHalves = kTileRows * sizeof(std::uint16_t);

inline void store_word(std::byte* group, std::size_t line, std::size_t row, std::uint32_t word) {
    std::memcpy(group + line * kLine + row * sizeof word, &word, sizeof word);
}

// low(i): low four bits of weights 4i..4i+3, one in each byte.
template <class Low>
void store_nibbles(std::byte* group, std::size_t row, Low low) {
    for (std::size_t i = 0; i < 4; ++i) store_word(group, i, row, low(i) | low(i + 4) << 4);
}

// Four bits to the lowest bits of four bytes.
inline std::uint32_t spread(std::uint32_t bits) {
    return (bits & 1u) | (bits & 2u) << 7 | (bits & 4u) << 14 | (bits & 8u) << 21;
}

// bit(i): one bit of weights 4i..4i+3, as 0 or 1 in each byte.
template <class Bit>
void store_bits(std::byte* group, std::size_t line, std::size_t row, Bit bit) {
    std::uint32_t word = 0;
    for (std::size_t i = 0; i < 8; ++i) word |= bit(i) << i;
    store_word(group, line, row, word);
}

// pair(i): two bits of weights 4i..4i+3, as 0 to 3 in each byte.
template <class Pair>
void store_pairs(std::byte* group, std::size_t line, std::size_t row, Pair pair) {
    for (std::size_t half = 0; half < 2; ++half) {
        std::uint32_t word = 0;
        for (std::size_t i = 0; i < 4; ++i) word |= pair(4 * half + i) << 2 * i;
        store_word(group, line + half, row, word);
    }
}

// The low two bits of 256 weights to 2 x 32 bytes: pair p of byte j of half h is weight 128 h + 32 p + j.
inline void store_pair_runs(const std::uint8_t* q, std::byte* out) {
    for (std::size_t at = 0; at < 64; ++at) {
        const std::uint8_t* run = q + at / 32 * 128 + at % 32;
        out[at] = static_cast<std::byte>((run[0] & 3) | (run[32] & 3) << 2 | (run[64] & 3) << 4 |
                                         (run[96] & 3) << 6);
    }
}

// Nibbles of 16 bytes, byte j with weights j and 16 + j, lie as the tile has them.
inline void store_split_nibbles(std::byte* group, std::size_t row, const std::byte* nibbles) {
    for (std::size_t i = 0; i < 4; ++i) store_word(group, i, row, load<std::uint32_t>(nibbles + 4 * i));
}

// Calls each(block of the row, row, block of the tile) for all blocks of all rows; the tile is zeroed first.
template <class Each>
void pack_blocks(const std::byte* const* rows, std::size_t n_blocks, std::size_t block_bytes, std::byte* tile,
                 std::size_t tile_block_bytes, Each each) {
    std::memset(tile, 0, n_blocks * tile_block_bytes);
    for (std::size_t b = 0; b < n_blocks; ++b) {
        for (std::size_t row = 0; row < kTileRows && rows[row] != nullptr; ++row) {
            each(rows[row] + b * block_bytes, row, tile + b * tile_block_bytes);
        }
    }
}

inline void store_half(std::byte* block, std::size_t index, std::size_t row, std::uint16_t half) {
    std::memcpy(block + (index * kTileRows + row) * sizeof half, &half, sizeof half);
}

}  // namespace quarry::types
