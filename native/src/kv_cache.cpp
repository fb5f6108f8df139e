#include "kv_cache.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>

#include "float16.h"

namespace quarry {

namespace {

std::size_t checked_product(std::initializer_list<std::size_t> factors) {
    std::size_t product = 1;
    for (const auto factor : factors) {
        if (factor != 0 && product > std::numeric_limits<std::size_t>::max() / 2 / factor)
            throw std::bad_alloc();
        product *= factor;
    }
    return product;
}

std::size_t padded(std::size_t head_dim) {
    return (head_dim + kTileRows - 1) / kTileRows * kTileRows;
}

// Returns the scale by which the bytes are multiplied to get the values back.
float round_to_bytes(const std::uint16_t* halves, std::size_t n, std::int8_t* out) {
    constexpr float kLargest = 127;
    float values[kCacheGroup];
    float largest = 0;
    for (std::size_t i = 0; i < n; ++i) {
        values[i] = f16_to_f32(halves[i]);
        largest = std::max(largest, std::abs(values[i]));
    }
    // What is not finite would make every value of its group so: it is cut to the largest half instead.
    largest = std::min(largest, 65504.0f);
    const float inverse = largest > 0 ? kLargest / largest : 0;
    for (std::size_t i = 0; i < n; ++i) {
        const float scaled = std::clamp(values[i] * inverse, -kLargest, kLargest);
        out[i] = static_cast<std::int8_t>(scaled == scaled ? std::lrint(scaled) : 0);
    }
    return largest / kLargest;
}

}  // namespace

CacheType cache_type(std::string_view name) {
    if (name == "f16") return CacheType::f16;
    if (name == "q8_0") return CacheType::q8_0;
    throw std::invalid_argument("cache type '" + std::string(name) + "' is unknown; there are f16, q8_0");
}

KvCache::KvCache(std::size_t n_layers, std::size_t n_heads, std::size_t head_dim, std::size_t n_blocks,
                 CacheType type)
    : type_(type),
      n_layers_(n_layers),
      n_heads_(n_heads),
      head_dim_(head_dim),
      padded_dim_(padded(head_dim)),
      n_blocks_(n_blocks),
      head_bytes_(2 * kKeysPerBlock *
                  (type == CacheType::f16 ? padded_dim_ * sizeof(std::uint16_t)
                                          : padded_dim_ + cache_groups(padded_dim_) * sizeof(float))),
      layer_bytes_(checked_product({n_heads, head_bytes_})),
      data_(checked_product({n_layers, n_blocks, layer_bytes_})),
      blocks_(n_blocks) {
    free_.reserve(n_blocks);
    for (std::size_t i = n_blocks; i-- > 0;) free_.push_back(static_cast<BlockId>(i));
}

BlockId KvCache::take() {
    const BlockId block = free_.back();
    free_.pop_back();
    blocks_[block] = {1, false};
    return block;
}

void KvCache::hold(BlockId block) {
    if (is_held_by_tree_alone(block)) --n_kept_;
    ++blocks_[block].n;
}

void KvCache::give_back(BlockId block) {
    if (--blocks_[block].n == 0) free_.push_back(block);
    if (is_held_by_tree_alone(block)) ++n_kept_;
}

void KvCache::keep(BlockId block) {
    hold(block);
    blocks_[block].tree = true;
}

void KvCache::drop(BlockId block) {
    if (is_held_by_tree_alone(block)) --n_kept_;
    blocks_[block].tree = false;
    give_back(block);
}

std::byte* KvCache::layer_data(std::size_t layer, BlockId block) const {
    return data_.data() + (layer * n_blocks_ + block) * layer_bytes_;
}

std::byte* KvCache::head_data(std::size_t layer, BlockId block, std::size_t head) const {
    return layer_data(layer, block) + head * head_bytes_;
}

KeyValueBlock KvCache::block(std::size_t layer, BlockId block, std::size_t head) const {
    const auto* data = reinterpret_cast<const std::uint16_t*>(head_data(layer, block, head));
    return {data, data + padded_dim_ * kKeysPerBlock};
}

PackedBlock KvCache::packed_block(std::size_t layer, BlockId block, std::size_t head) const {
    const std::byte* data = head_data(layer, block, head);
    const std::size_t n_values = padded_dim_ * kKeysPerBlock;
    const auto* values = reinterpret_cast<const std::int8_t*>(data);
    const auto* scales = reinterpret_cast<const float*>(data + 2 * n_values);
    return {values, scales, values + n_values, scales + cache_groups(padded_dim_) * kKeysPerBlock};
}

void KvCache::store(std::size_t layer, BlockId block, std::size_t head, std::size_t slot,
                    const std::uint16_t* key, const std::uint16_t* value) {
    std::byte* data = head_data(layer, block, head);
    if (type_ == CacheType::q8_0) return store_packed(data, slot, key, value);
    auto* keys = reinterpret_cast<std::uint16_t*>(data);
    std::uint16_t* values = keys + padded_dim_ * kKeysPerBlock;
    for (std::size_t d = 0; d < padded_dim_; ++d) keys[d * kKeysPerBlock + slot] = key[d];
    std::memcpy(values + slot * padded_dim_, value, padded_dim_ * sizeof(std::uint16_t));
}

void KvCache::store_packed(std::byte* data, std::size_t slot, const std::uint16_t* key,
                           const std::uint16_t* value) {
    const std::size_t n_groups = cache_groups(padded_dim_);
    const std::size_t n_values = padded_dim_ * kKeysPerBlock;
    auto* keys = reinterpret_cast<std::int8_t*>(data);
    auto* key_scales = reinterpret_cast<float*>(data + 2 * n_values);
    float* value_scales = key_scales + n_groups * kKeysPerBlock;
    std::int8_t bytes[kCacheGroup];
    for (std::size_t group = 0; group < n_groups; ++group) {
        const std::size_t at = group * kCacheGroup;
        const std::size_t n = std::min(kCacheGroup, padded_dim_ - at);
        key_scales[group * kKeysPerBlock + slot] = round_to_bytes(key + at, n, bytes);
        for (std::size_t d = 0; d < n; ++d) keys[(at + d) * kKeysPerBlock + slot] = bytes[d];
        value_scales[slot * n_groups + group] = round_to_bytes(value + at, n, bytes);
        std::memcpy(keys + n_values + slot * padded_dim_ + at, bytes, n);
    }
}

void KvCache::copy_out(BlockId block, std::byte* out) const {
    for (std::size_t layer = 0; layer < n_layers_; ++layer)
        std::memcpy(out + layer * layer_bytes_, layer_data(layer, block), layer_bytes_);
}

void KvCache::copy_in(BlockId block, const std::byte* in) {
    for (std::size_t layer = 0; layer < n_layers_; ++layer)
        std::memcpy(layer_data(layer, block), in + layer * layer_bytes_, layer_bytes_);
}

}  // namespace quarry
