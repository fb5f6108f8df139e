#include "decoders/rotary.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

namespace quarry {

namespace {

struct Scaling {
    double base;
    double factor;
    std::size_t trained_context;  // before the model was taught longer ones
};

// Divides by the numbers of a tensor: those of Llama 3, or those of longrope.
void divide(const GgufFile& file, const std::string& name, std::vector<double>& frequencies) {
    const auto& tensor = file.tensor(name, std::array<std::uint64_t, 1>{frequencies.size()});
    std::vector<float> divisors(frequencies.size());
    GgufFile::read_row(tensor, 0, divisors.data());
    for (std::size_t i = 0; i < frequencies.size(); ++i) {
        if (!(divisors[i] > 0) || std::isinf(divisors[i])) {
            throw GgufError("tensor '" + name + "' holds " + std::to_string(divisors[i]) +
                            "; allowed are positive numbers");
        }
        frequencies[i] /= divisors[i];
    }
}

// Source: YaRN, arXiv 2309.00071: slow pairs are interpolated, fast ones stay, with a ramp between.
void apply_yarn(const Keys& keys, const Scaling& scaling, Rotary& out) {
    const auto n_rotated = static_cast<double>(2 * out.frequencies.size());
    const double fast = keys.real("rope.scaling.yarn_beta_fast", 1e-3, 1e6, 32);
    const double slow = keys.real("rope.scaling.yarn_beta_slow", 1e-3, 1e6, 1);
    const auto dimension_turning = [&](double turns) {
        return n_rotated *
               std::log(static_cast<double>(scaling.trained_context) / (turns * 2 * std::numbers::pi)) /
               (2 * std::log(scaling.base));
    };
    const double low = std::max(0.0, std::floor(dimension_turning(fast)));
    const double high = std::min(n_rotated - 1, std::ceil(dimension_turning(slow)));
    for (std::size_t i = 0; i < out.frequencies.size(); ++i) {
        const double ramp =
            std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
        out.frequencies[i] *= (1 - ramp) + ramp / scaling.factor;
    }
    out.magnitude *= 1 + 0.1 * std::log(scaling.factor);
}

}  // namespace

std::vector<double> plain_frequencies(double base, std::size_t n_rotated) {
    std::vector<double> frequencies;
    for (std::size_t i = 0; i < n_rotated / 2; ++i) {
        frequencies.push_back(std::pow(base, -static_cast<double>(2 * i) / static_cast<double>(n_rotated)));
    }
    return frequencies;
}

// Source: RoPE, arXiv 2104.09864; LongRoPE, arXiv 2402.13753.
Rotary read_rotary(const Keys& keys, std::size_t n_rotated, std::size_t trained_context,
                   std::size_t context) {
    const GgufFile& file = keys.file();
    Scaling scaling{};
    scaling.base = file.real(keys.name("rope.freq_base"), 1, 1e12, 10000);
    Rotary out;
    out.frequencies = plain_frequencies(scaling.base, n_rotated);
    if (file.find_tensor("rope_freqs.weight") != nullptr) divide(file, "rope_freqs.weight", out.frequencies);

    const double linear = file.real(keys.name("rope.scale_linear"), 1e-6, 1e6, 1);
    const std::string type_key = keys.name("rope.scaling.type");
    const std::string_view type = file.string(type_key, linear == 1 ? "none" : "linear");
    if (type != "none" && type != "linear" && type != "yarn" && type != "longrope") {
        throw GgufError("key '" + type_key + "' is '" + std::string(type.substr(0, 40)) +
                        "'; supported are none, linear, yarn, longrope");
    }
    scaling.factor = file.real(keys.name("rope.scaling.factor"), 1e-6, 1e6, linear);
    scaling.trained_context =
        keys.integer("rope.scaling.original_context_length", 1, kMaxContext, trained_context);
    out.magnitude = file.real(keys.name("rope.scaling.attn_factor"), 1e-3, 1e3, 1);
    if (type == "yarn") apply_yarn(keys, scaling, out);
    if (type == "linear") {
        for (auto& frequency : out.frequencies) frequency /= scaling.factor;
    }
    // Files name the type or only hold the factors.
    const char* factors =
        context > scaling.trained_context ? "rope_factors_long.weight" : "rope_factors_short.weight";
    if (type == "longrope" || file.find_tensor(factors) != nullptr) divide(file, factors, out.frequencies);
    return out;
}

}  // namespace quarry
