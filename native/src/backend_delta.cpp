// The gated delta rule on the CPU: each head keeps a matrix that maps keys to values and corrects it by every
// token. Source: Yang, Kautz, Hatamizadeh, Gated Delta Networks, arXiv 2412.06464.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend.h"

namespace quarry {

namespace {

float sigmoid(float x) {
    return 1 / (1 + std::exp(-x));
}

// ln(1 + exp(x)), which is x where exp(x) would be too large.
float softplus(float x) {
    return x > 20 ? x : std::log1p(std::exp(x));
}

// x / |x| * scale
void normalize(const float* x, std::size_t n, float epsilon, float scale, float* out) {
    float squares = 0;
    for (std::size_t i = 0; i < n; ++i) squares += x[i] * x[i];
    const float factor = scale / std::sqrt(squares + epsilon);
    for (std::size_t i = 0; i < n; ++i) out[i] = x[i] * factor;
}

}  // namespace

void Backend::reset(RecurrentState& state, std::size_t size) const {
    state.values_.assign(size, 0.0f);
}

void Backend::convolve(const Buffer& x, std::span<const SequenceRows> sequences,
                       const std::vector<float>& taps, std::size_t state_offset, Buffer& out) {
    const std::size_t width = x.width();
    const std::size_t n_before = taps.size() / width - 1;
    for (const auto& sequence : sequences) {
        float* history = sequence.state->values_.data() + state_offset;  // [n_before][width]
        const auto input = [&](std::size_t at) -> const float* {
            return at < n_before ? history + at * width : x.row(sequence.first_row + at - n_before);
        };
        each_row(sequence.n_rows, width * (n_before + 1), [&](std::size_t i) {
            float* row = out.row(sequence.first_row + i);
            std::memset(row, 0, width * sizeof(float));
            for (std::size_t tap = 0; tap <= n_before; ++tap) {
                const float* from = input(i + tap);
                const float* factors = taps.data() + tap * width;
                for (std::size_t c = 0; c < width; ++c) row[c] += factors[c] * from[c];
            }
            for (std::size_t c = 0; c < width; ++c) row[c] *= sigmoid(row[c]);
        });
        // Forward, so that what is kept is read before it is written over.
        for (std::size_t i = 0; i < n_before; ++i)
            std::memmove(history + i * width, input(sequence.n_rows + i), width * sizeof(float));
    }
}

void Backend::gated_delta(const Buffer& mixed, const Buffer& decays, const Buffer& rates,
                          std::span<const SequenceRows> sequences, const DeltaShape& shape,
                          const DeltaWeights& weights, float epsilon, std::size_t state_offset, Buffer& out) {
    const std::size_t dk = shape.key_dim;
    const std::size_t dv = shape.value_dim;
    const std::size_t keys = shape.n_key_heads * dk;
    const float scale = 1 / std::sqrt(static_cast<float>(dk));
    pool_.parallel(sequences.size() * shape.n_value_heads, [&](std::size_t item, std::size_t) {
        const SequenceRows& sequence = sequences[item / shape.n_value_heads];
        const std::size_t head = item % shape.n_value_heads;
        // Value heads take turns with the key heads.
        const std::size_t key_head = head % shape.n_key_heads;
        float* state = sequence.state->values_.data() + state_offset + head * dk * dv;  // [dk][dv]
        float query[kMaxHeadDim];
        float key[kMaxHeadDim];
        float change[kMaxHeadDim];
        for (std::size_t row = sequence.first_row; row < sequence.first_row + sequence.n_rows; ++row) {
            const float* parts = mixed.row(row);
            normalize(parts + key_head * dk, dk, epsilon, scale, query);
            normalize(parts + keys + key_head * dk, dk, epsilon, 1, key);
            const float* value = parts + 2 * keys + head * dv;
            const float keep =
                std::exp(weights.rates[head] * softplus(decays.row(row)[head] + weights.biases[head]));
            const float rate = sigmoid(rates.row(row)[head]);
            std::fill(change, change + dv, 0.0f);
            for (std::size_t k = 0; k < dk; ++k) {
                for (std::size_t v = 0; v < dv; ++v) {
                    state[k * dv + v] *= keep;
                    change[v] += key[k] * state[k * dv + v];
                }
            }
            for (std::size_t v = 0; v < dv; ++v) change[v] = (value[v] - change[v]) * rate;
            float* given = out.row(row) + head * dv;
            std::fill(given, given + dv, 0.0f);
            for (std::size_t k = 0; k < dk; ++k) {
                for (std::size_t v = 0; v < dv; ++v) {
                    state[k * dv + v] += key[k] * change[v];
                    given[v] += query[k] * state[k * dv + v];
                }
            }
        }
    });
}

void Backend::sigmoid_multiply(const Buffer& gate, std::size_t n, Buffer& x) {
    each_row(n, x.width(), [&](std::size_t i) {
        const float* gates = gate.row(i);
        float* row = x.row(i);
        for (std::size_t d = 0; d < x.width(); ++d) row[d] *= sigmoid(gates[d]);
    });
}

}  // namespace quarry
