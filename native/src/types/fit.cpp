#include "fit.h"

#include <limits>
#include <numeric>

#include "../float16.h"

namespace quarry::types {

namespace {

constexpr float kNothing = 1e-15f;  // a largest weight below is taken for zero

// Sums that give the best scale for integers l: xl / ll; the larger xl^2 / ll, the smaller the error.
struct Fit {
    float xl = 0;
    float ll = 0;
    void add(float w, float x, float l) {
        xl += w * x * l;
        ll += w * l * l;
    }
    float scale() const { return ll > 0 ? xl / ll : 0.0f; }
    bool better_than(const Fit& other) const {
        return ll > 0 && xl * xl * other.ll > other.xl * other.xl * ll;
    }
};

float weight_of(const float* weights, std::span<const float> x, std::size_t i) {
    return weights != nullptr ? weights[i] : x[i] * x[i];
}

// Moves one integer after the other to where it fits best with the rest as they are, until nothing moves.
template <class Level>
void step_until_still(std::span<const float> x, const float* weights, int least, int most, Level* level,
                      Fit& fit) {
    constexpr int kRounds = 5;
    for (int round = 0; round < kRounds; ++round) {
        bool moved = false;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float w = weight_of(weights, x, i);
            const auto old = static_cast<float>(level[i]);
            Fit other{fit.xl - w * x[i] * old, fit.ll - w * old * old};
            if (!(other.xl > 0 && other.ll > 0)) continue;
            const int moved_to = nearest_within(x[i] * other.ll / other.xl, least, most);
            if (moved_to == level[i]) continue;
            other.add(w, x[i], static_cast<float>(moved_to));
            if (!other.better_than(fit)) continue;
            level[i] = static_cast<Level>(moved_to);
            fit = other;
            moved = true;
        }
        if (!moved) return;
    }
}

// x ~ scale * q with x >= 0: the scales and minima of groups.
float fit_unsigned(std::span<const float> x, const float* weights, int most, std::uint8_t* q) {
    const float largest = std::max(0.0f, *std::max_element(x.begin(), x.end()));
    std::fill_n(q, x.size(), std::uint8_t{0});
    if (largest < kNothing) return 0.0f;
    float best_inverse = 0;
    float best_error = std::numeric_limits<float>::infinity();
    const auto attempt = [&](float inverse) {
        float error = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float off =
                x[i] - 1.0f / inverse * static_cast<float>(nearest_within(inverse * x[i], 0, most));
            error += weights[i] * off * off;
        }
        if (error >= best_error) return;
        best_error = error;
        best_inverse = inverse;
    };
    const auto top = static_cast<float>(most);
    attempt(top / largest);
    for (int i = -4; i <= 4; ++i) {
        if (i != 0) attempt((top + 0.1f * static_cast<float>(i)) / largest);
    }
    Fit fit;
    for (std::size_t i = 0; i < x.size(); ++i) {
        q[i] = static_cast<std::uint8_t>(nearest_within(best_inverse * x[i], 0, most));
        fit.add(weights[i], x[i], q[i]);
    }
    step_until_still(x, weights, 0, most, q, fit);
    return fit.scale();
}

}  // namespace

float largest_of(std::span<const float> x) {
    float largest = 0;
    for (const float v : x) {
        if (std::fabs(v) > std::fabs(largest)) largest = v;
    }
    return largest;
}

float fit_signed(std::span<const float> x, const float* weights, int most, std::uint8_t* q) {
    const float largest = largest_of(x);
    if (std::fabs(largest) < kNothing) {
        std::fill_n(q, x.size(), std::uint8_t{0});
        return 0.0f;
    }
    float best_inverse = 0;
    Fit best;
    const auto attempt = [&](float inverse) {
        Fit fit;
        for (std::size_t i = 0; i < x.size(); ++i) {
            fit.add(weight_of(weights, x, i), x[i],
                    static_cast<float>(nearest_within(inverse * x[i], -most, most - 1)));
        }
        if (best_inverse != 0 && !fit.better_than(best)) return;
        best = fit;
        best_inverse = inverse;
    };
    const auto top = static_cast<float>(most);
    attempt(-top / largest);
    for (int i = -9; i <= 9; ++i) {
        if (i != 0) attempt(-(top + 0.1f * static_cast<float>(i)) / largest);
    }
    for (std::size_t i = 0; i < x.size(); ++i) {
        q[i] = static_cast<std::uint8_t>(nearest_within(best_inverse * x[i], -most, most - 1) + most);
    }
    return best.scale();
}

float fit_signed_stepwise(std::span<const float> x, int most, std::uint8_t* q) {
    const float largest = largest_of(x);
    std::fill_n(q, x.size(), std::uint8_t{0});
    if (std::fabs(largest) < kNothing) return 0.0f;
    std::int8_t level[kHalfGroup];
    Fit fit;
    for (std::size_t i = 0; i < x.size(); ++i) {
        level[i] = static_cast<std::int8_t>(
            nearest_within(-static_cast<float>(most) / largest * x[i], -most, most - 1));
        fit.add(x[i] * x[i], x[i], level[i]);
    }
    step_until_still(x, nullptr, -most, most - 1, level, fit);
    for (std::size_t i = 0; i < x.size(); ++i) q[i] = static_cast<std::uint8_t>(level[i] + most);
    return fit.scale();
}

Affine fit_affine(std::span<const float> x, const float* weights, int most, const Steps& steps,
                  std::uint8_t* q) {
    const auto [least, greatest] = std::minmax_element(x.begin(), x.end());
    const float largest = *greatest;
    float minimum = std::min(0.0f, *least);
    std::fill_n(q, x.size(), std::uint8_t{0});
    if (largest <= minimum) return {0.0f, -minimum};
    float sum_w = 0;
    float sum_x = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        sum_w += weights[i];
        sum_x += weights[i] * x[i];
    }
    std::uint8_t level[kGroup];
    const auto round_all = [&](float inverse) {
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float at = std::min(std::max(inverse * (x[i] - minimum), 0.0f), static_cast<float>(most));
            level[i] = static_cast<std::uint8_t>(nearest(at));
        }
    };
    const auto error_of = [&](float scale, float offset) {
        float error = 0;
        for (std::size_t i = 0; i < x.size(); ++i) {
            const float off = scale * static_cast<float>(level[i]) + offset - x[i];
            error += weights[i] * (steps.absolute ? std::fabs(off) : off * off);
        }
        return error;
    };
    const auto top = static_cast<float>(most);
    round_all(top / (largest - minimum));
    float scale = (largest - minimum) / top;
    float best = error_of(scale, minimum);
    std::copy_n(level, x.size(), q);
    for (int i = 0; i <= steps.n; ++i) {
        round_all((top + steps.first + steps.step * static_cast<float>(i)) / (largest - minimum));
        float sum_l = 0;
        float sum_ll = 0;
        float sum_xl = 0;
        for (std::size_t k = 0; k < x.size(); ++k) {
            const float wl = weights[k] * static_cast<float>(level[k]);
            sum_l += wl;
            sum_ll += wl * static_cast<float>(level[k]);
            sum_xl += wl * x[k];
        }
        const float determinant = sum_w * sum_ll - sum_l * sum_l;
        if (!(determinant > 0)) continue;
        float this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
        float this_minimum = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
        if (this_minimum > 0) {
            this_minimum = 0;
            this_scale = sum_xl / sum_ll;
        }
        const float error = error_of(this_scale, this_minimum);
        if (!(error < best)) continue;
        best = error;
        scale = this_scale;
        minimum = this_minimum;
        std::copy_n(level, x.size(), q);
    }
    return {scale, -minimum};
}

std::uint8_t codebook_place(float x) {
    int place = 0;
    for (int i = 1; i < 16; ++i) place += 2 * x >= static_cast<float>(kCodebook[i - 1] + kCodebook[i]);
    return static_cast<std::uint8_t>(place);
}

float fit_codebook(std::span<const float> x, const float* weights, std::uint8_t* q) {
    const float largest = largest_of(x);
    if (std::fabs(largest) < kNothing) {
        std::fill_n(q, x.size(), codebook_place(0));
        return 0.0f;
    }
    Fit best;
    bool first = true;
    const auto attempt = [&](float inverse) {
        Fit fit;
        for (std::size_t i = 0; i < x.size(); ++i) {
            fit.add(weight_of(weights, x, i), x[i],
                    static_cast<float>(kCodebook[codebook_place(inverse * x[i])]));
        }
        if (!first && !fit.better_than(best)) return;
        best = fit;
        first = false;
    };
    attempt(-static_cast<float>(kCodebook[0]) / largest);
    for (int i = -7; i <= 7; ++i) attempt(static_cast<float>(kCodebook[0] + i) / largest);
    const float scale = best.scale();
    const float inverse = scale != 0 ? 1.0f / scale : 0.0f;
    for (std::size_t i = 0; i < x.size(); ++i) q[i] = codebook_place(inverse * x[i]);
    return scale;
}

void weigh(std::span<const float> x, const float* importance, float square, float* weights) {
    for (std::size_t i = 0; i < x.size(); ++i) weights[i] = importance[i] * std::sqrt(square + x[i] * x[i]);
}

float mean_square(std::span<const float> x) {
    float sum = 0;
    for (const float v : x) sum += v * v;
    return sum / static_cast<float>(x.size());
}

AffineBlock fit_affine_block(const float* x, const float* importance, const AffineShape& shape) {
    AffineBlock block{};
    const std::size_t n_groups = kBlockWeights / shape.group;
    const float square = shape.square * mean_square({x, kBlockWeights});
    float scales[kMostGroups];
    float minima[kMostGroups];
    float sums[kMostGroups];
    for (std::size_t g = 0; g < n_groups; ++g) {
        const std::span<const float> group(x + g * shape.group, shape.group);
        float weights[kGroup];
        if (importance != nullptr) {
            weigh(group, importance + g * shape.group, square, weights);
        } else {
            const float average = shape.add_average ? std::sqrt(mean_square(group)) : 0.0f;
            for (std::size_t i = 0; i < shape.group; ++i) weights[i] = average + std::fabs(group[i]);
        }
        sums[g] = std::accumulate(weights, weights + shape.group, 0.0f);
        const Affine fit =
            fit_affine(group, weights, shape.most, importance != nullptr ? kStepsByImportance : shape.steps,
                       block.q + g * shape.group);
        scales[g] = fit.scale;
        minima[g] = fit.minimum;
    }
    const auto round_factors = [&](const float* factors, std::uint8_t* rounded) {
        if (importance != nullptr) {
            return f32_to_f16(fit_unsigned({factors, n_groups}, sums, shape.most_factor, rounded));
        }
        const float largest = std::max(0.0f, *std::max_element(factors, factors + n_groups));
        const auto top = static_cast<float>(shape.most_factor);
        for (std::size_t g = 0; g < n_groups; ++g) {
            rounded[g] = static_cast<std::uint8_t>(
                largest > 0 ? nearest_within(top / largest * factors[g], 0, shape.most_factor) : 0);
        }
        return f32_to_f16(largest / top);
    };
    block.scale = round_factors(scales, block.scales);
    block.minimum = round_factors(minima, block.minima);
    for (std::size_t k = 0; k < kBlockWeights; ++k) {
        const std::size_t g = k / shape.group;
        const float scale = f16_to_f32(block.scale) * static_cast<float>(block.scales[g]);
        if (scale == 0) continue;
        const float minimum = f16_to_f32(block.minimum) * static_cast<float>(block.minima[g]);
        block.q[k] = static_cast<std::uint8_t>(nearest_within((x[k] + minimum) / scale, 0, shape.most));
    }
    return block;
}

void round_to_largest(std::span<const float> scales, int least, SignedBlock& block) {
    const std::size_t n_groups = std::min(scales.size(), kMostGroups);
    const float largest = largest_of(scales);
    if (std::fabs(largest) < kNothing) {
        block.scale = 0;
        std::fill_n(block.factors, n_groups, std::int8_t{0});
        return;
    }
    const float inverse = static_cast<float>(least) / largest;
    block.scale = f32_to_f16(1.0f / inverse);
    for (std::size_t g = 0; g < n_groups; ++g) {
        block.factors[g] = static_cast<std::int8_t>(nearest_within(inverse * scales[g], least, -least - 1));
    }
}

void round_signed(const float* x, int most, SignedBlock& block) {
    for (std::size_t k = 0; k < kBlockWeights; ++k) {
        const float scale = f16_to_f32(block.scale) * static_cast<float>(block.factors[k / kHalfGroup]);
        if (scale == 0) continue;
        block.q[k] = static_cast<std::uint8_t>(nearest_within(x[k] / scale, -most, most - 1) + most);
    }
}

}  // namespace quarry::types
