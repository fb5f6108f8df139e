// Rotary position embedding: the frequencies that a file asks for.
#pragma once

#include "decoders/description.h"

namespace quarry {

// Reads base, factors and scaling. `context` is the longest sequence that will be served: with it longrope
// chooses between its factors for short and long texts. Throws: GgufError.
Rotary read_rotary(const Keys& keys, std::size_t n_rotated, std::size_t trained_context, std::size_t context);

// Frequencies of `base` without any scaling.
std::vector<double> plain_frequencies(double base, std::size_t n_rotated);

}  // namespace quarry
