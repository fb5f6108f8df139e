#include "importance.h"

namespace quarry {

void ImportanceCollector::see(const Weight& weight, std::size_t part, const float* x, std::size_t n,
                              std::size_t width) {
    Sums& sums = sums_[weight.name];
    sums.width = width;
    if (sums.counts.size() <= part) {
        sums.counts.resize(part + 1);
        sums.squares.resize((part + 1) * width);
    }
    sums.counts[part] += n;
    double* squares = sums.squares.data() + part * width;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t k = 0; k < width; ++k) {
            const double value = x[i * width + k];
            squares[k] += value * value;
        }
    }
}

}  // namespace quarry
