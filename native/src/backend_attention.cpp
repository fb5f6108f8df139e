// Attention on the CPU: queries that read the same keys go together, over the blocks of the cache.
#include <array>
#include <cmath>
#include <cstring>

#include "backend.h"

namespace quarry {

void Backend::attention(const Buffer& queries, const Buffer& keys, const Buffer& values,
                        std::span<const SequenceRows> sequences, std::size_t n_query_heads, bool causal,
                        KvCache& cache, std::size_t layer, Buffer& out, const Scoring& scoring) {
    const std::size_t dim = cache.head_dim();
    const std::size_t padded = cache.padded_head_dim();
    const std::size_t n_heads = cache.n_heads();
    const std::size_t group = n_query_heads / n_heads;
    std::size_t most_blocks = 0;
    for (const auto& sequence : sequences) {
        most_blocks = std::max(most_blocks, sequence.blocks.size());
        each_row(sequence.n_rows, keys.width(), [&](std::size_t i) {
            const std::size_t position = sequence.first_position + i;
            std::array<std::uint16_t, kMaxHeadDim> key{};
            std::array<std::uint16_t, kMaxHeadDim> value{};
            for (std::size_t head = 0; head < n_heads; ++head) {
                kernels_.to_f16(keys.row(sequence.first_row + i) + head * dim, dim, key.data());
                kernels_.to_f16(values.row(sequence.first_row + i) + head * dim, dim, value.data());
                cache.store(layer, sequence.blocks[position / kKeysPerBlock], head, position % kKeysPerBlock,
                            key.data(), value.data());
            }
        });
    }

    // One item is up to max_chunk query rows that read the same keys: (token, query head of the group) pairs.
    struct Item {
        const SequenceRows* sequence;
        std::size_t head;
        std::size_t first;
        std::size_t n;
    };
    std::vector<Item> items;
    for (const auto& sequence : sequences) {
        const std::size_t n_pairs = sequence.n_rows * group;
        for (std::size_t head = 0; head < n_heads; ++head) {
            for (std::size_t first = 0; first < n_pairs; first += kernels_.max_chunk) {
                items.push_back({&sequence, head, first, std::min(kernels_.max_chunk, n_pairs - first)});
            }
        }
    }
    const std::size_t row_floats = 2 * kMaxChunk * padded;
    for (auto& scratch : scratch_) {
        grow(scratch, (row_floats + attention_scratch(padded)) * sizeof(float) +
                          most_blocks * (sizeof(KeyValueBlock) + sizeof(PackedBlock)) + 4 * kAlign);
    }
    const bool is_packed = cache.type() == CacheType::q8_0;
    const float scale = scoring.scale > 0 ? scoring.scale : 1.0f / std::sqrt(static_cast<float>(dim));
    pool_.parallel(items.size(), [&](std::size_t index, std::size_t thread) {
        const Item& item = items[index];
        Carver carver(scratch_[thread].data());
        float* staged = carver.take<float>(row_floats);
        auto* blocks = carver.take<KeyValueBlock>(is_packed ? 0 : most_blocks);
        auto* packed = carver.take<PackedBlock>(is_packed ? most_blocks : 0);
        const float* query_rows[kMaxChunk];
        float* out_rows[kMaxChunk];
        std::size_t n_visible[kMaxChunk];
        std::size_t first_visible[kMaxChunk];
        std::size_t positions[kMaxChunk];
        const auto place = [&](std::size_t r) {
            const std::size_t pair = item.first + r;
            return std::pair(item.sequence->first_row + pair / group,
                             (item.head * group + pair % group) * dim);
        };
        for (std::size_t r = 0; r < item.n; ++r) {
            float* query = staged + 2 * r * padded;
            const auto [row, at] = place(r);
            for (std::size_t d = 0; d < padded; ++d)
                query[d] = d < dim ? queries.row(row)[at + d] * scale : 0.0f;
            query_rows[r] = query;
            out_rows[r] = query + padded;
            n_visible[r] = item.sequence->first_position +
                           (causal ? (item.first + r) / group + 1 : item.sequence->n_rows);
            first_visible[r] =
                scoring.window > 0 && n_visible[r] > scoring.window ? n_visible[r] - scoring.window : 0;
            positions[r] = item.sequence->first_position + (item.first + r) / group;
            if (!causal && scoring.reach > 0) {
                n_visible[r] = std::min(n_visible[r], positions[r] + scoring.reach + 1);
                first_visible[r] = positions[r] > scoring.reach ? positions[r] - scoring.reach : 0;
            }
        }
        const std::size_t n_blocks = (n_visible[item.n - 1] + kKeysPerBlock - 1) / kKeysPerBlock;
        for (std::size_t b = 0; b < n_blocks; ++b) {
            if (is_packed)
                packed[b] = cache.packed_block(layer, item.sequence->blocks[b], item.head);
            else
                blocks[b] = cache.block(layer, item.sequence->blocks[b], item.head);
        }
        // Query heads that share keys have slopes of their own; models with slopes share none.
        const float slope = scoring.slopes.empty() ? 0 : scoring.slopes[item.head * group];
        kernels_.attend({item.n, padded, query_rows, first_visible, n_visible, scoring.soft_cap, slope,
                         positions, blocks, out_rows, carver.take<float>(attention_scratch(padded)),
                         is_packed ? packed : nullptr});
        for (std::size_t r = 0; r < item.n; ++r) {
            const auto [row, at] = place(r);
            std::memcpy(out.row(row) + at, out_rows[r], dim * sizeof(float));
        }
    });
}

void Backend::attention_within(const Buffer& queries, const Buffer& keys, const Buffer& values,
                               std::span<const SequenceRows> sequences, std::size_t n_heads, Buffer& out,
                               const Scoring& scoring, Rounding rounding) {
    const WithinKernel& kernel =
        rounding == Rounding::fine ? kernels_.attend_within : kernels_.attend_within_rounded;
    const std::size_t width = queries.width();
    const std::size_t dim = width / n_heads;
    std::size_t longest = 0;
    for (const auto& sequence : sequences) longest = std::max(longest, sequence.n_rows);
    for (auto& scratch : scratch_) grow(scratch, kernel.scratch_bytes(longest, dim));
    const float scale = scoring.scale > 0 ? scoring.scale : 1.0f / std::sqrt(static_cast<float>(dim));
    pool_.parallel(sequences.size() * n_heads, [&](std::size_t index, std::size_t thread) {
        const SequenceRows& sequence = sequences[index / n_heads];
        const std::size_t head = index % n_heads;
        const std::size_t row = sequence.first_row;
        const std::size_t at = head * dim;
        kernel.run({sequence.n_rows, dim, width, queries.row(row) + at, keys.row(row) + at,
                    values.row(row) + at, out.row(row) + at, scale,
                    scoring.slopes.empty() ? 0 : scoring.slopes[head], scoring.reach,
                    scratch_[thread].data()});
    });
}

}  // namespace quarry
