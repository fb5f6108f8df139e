#include "pooling.h"

#include <array>
#include <cmath>
#include <stdexcept>
#include <string>

namespace quarry {

const char* name_of(Pooling pooling) {
    constexpr std::array names = {"mean", "cls", "last", "rank"};
    return names[static_cast<std::size_t>(pooling) - 1];
}

void scale_to_one(std::span<float> vector) {
    double squares = 0;
    for (const float x : vector) squares += static_cast<double>(x) * x;
    const double factor = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (float& x : vector) x = static_cast<float>(x * factor);
}

void check_sequence(std::span<const std::int32_t> tokens, std::size_t index, std::size_t context_length,
                    std::size_t vocab_size) {
    const std::string where = "sequence " + std::to_string(index);
    if (tokens.empty()) throw std::invalid_argument(where + " has no tokens");
    if (tokens.size() > context_length) {
        throw std::invalid_argument(where + " has " + std::to_string(tokens.size()) +
                                    " tokens; the model reads at most " + std::to_string(context_length));
    }
    for (const auto id : tokens) {
        if (id < 0 || static_cast<std::size_t>(id) >= vocab_size) {
            throw std::invalid_argument(where + " holds token " + std::to_string(id) +
                                        ", which is outside the vocabulary of " + std::to_string(vocab_size));
        }
    }
}

}  // namespace quarry
