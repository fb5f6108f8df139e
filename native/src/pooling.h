// How the states of a sequence's tokens become one vector, and what sequences may be pooled.
#pragma once

#include <cstdint>
#include <span>

namespace quarry {

enum class Pooling : std::uint8_t { mean = 1, cls = 2, last = 3, rank = 4 };  // as in GGUF files

const char* name_of(Pooling pooling);

// Scales a vector to length 1; one of zeros stays.
void scale_to_one(std::span<float> vector);

// Throws: std::invalid_argument where sequence `index` is empty, too long or holds an unknown token.
void check_sequence(std::span<const std::int32_t> tokens, std::size_t index, std::size_t context_length,
                    std::size_t vocab_size);

}  // namespace quarry
