// What the types share: unaligned loads, and the packing of plain numbers.
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

template <class T>
void store(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof value);
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
