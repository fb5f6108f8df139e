// What the types share: unaligned loads and the copying of 4-byte words into tile lines.
#pragma once

#include <cstring>

#include "../float16.h"
#include "../tensor_type.h"

namespace quarry::types {

template <class T>
T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// Packs rows of 32-weight blocks whose integers are kWords 4-byte words in the order of the tile's lines.
// `scales(block, lane, tile)` writes the block's scale (and minimum) into its lane; `word` maps each word.
template <std::size_t kBlockBytes, std::size_t kHeaderBytes, std::size_t kWords, class Scales, class Word>
void pack_words(const std::byte* const* rows, std::size_t width, std::byte* tile, std::size_t scale_bytes,
                Scales scales, Word word) {
    constexpr std::size_t kLine = kTileRows * sizeof(std::uint32_t);
    const std::size_t group_bytes = scale_bytes + kWords * kLine;
    std::memset(tile, 0, width / kGroup * group_bytes);
    for (std::size_t g = 0; g < width / kGroup; ++g, tile += group_bytes) {
        for (std::size_t r = 0; r < kTileRows && rows[r] != nullptr; ++r) {
            const std::byte* block = rows[r] + g * kBlockBytes;
            scales(block, r, reinterpret_cast<std::uint16_t*>(tile));
            for (std::size_t i = 0; i < kWords; ++i) {
                const std::uint32_t mapped = word(load<std::uint32_t>(block + kHeaderBytes + 4 * i));
                std::memcpy(tile + scale_bytes + i * kLine + 4 * r, &mapped, sizeof mapped);
            }
        }
    }
}

// Packs rows of plain numbers: line k holds the k-th number of every row.
template <class T>
void pack_numbers(const std::byte* const* rows, std::size_t width, std::byte* tile) {
    for (std::size_t r = 0; r < kTileRows; ++r) {
        for (std::size_t k = 0; k < width; ++k) {
            const T value = rows[r] == nullptr ? T{} : load<T>(rows[r] + k * sizeof(T));
            std::memcpy(tile + (k * kTileRows + r) * sizeof(T), &value, sizeof(T));
        }
    }
}

}  // namespace quarry::types
