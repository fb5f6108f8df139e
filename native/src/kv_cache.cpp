#include "kv_cache.h"

#include <cstring>
#include <limits>
#include <new>

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

}  // namespace

KvCache::KvCache(std::size_t n_layers, std::size_t n_heads, std::size_t head_dim, std::size_t n_blocks)
    : n_layers_(n_layers),
      n_heads_(n_heads),
      head_dim_(head_dim),
      padded_dim_(padded(head_dim)),
      n_blocks_(n_blocks),
      layer_bytes_(checked_product({n_heads, padded_dim_, kKeysPerBlock, 2, sizeof(std::uint16_t)})),
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

std::uint16_t* KvCache::head_data(std::size_t layer, BlockId block, std::size_t head) const {
    return reinterpret_cast<std::uint16_t*>(layer_data(layer, block)) +
           head * padded_dim_ * kKeysPerBlock * 2;
}

KeyValueBlock KvCache::block(std::size_t layer, BlockId block, std::size_t head) const {
    const std::uint16_t* data = head_data(layer, block, head);
    return {data, data + padded_dim_ * kKeysPerBlock};
}

void KvCache::store(std::size_t layer, BlockId block, std::size_t head, std::size_t slot,
                    const std::uint16_t* key, const std::uint16_t* value) {
    std::uint16_t* keys = head_data(layer, block, head);
    std::uint16_t* values = keys + padded_dim_ * kKeysPerBlock;
    for (std::size_t d = 0; d < padded_dim_; ++d) keys[d * kKeysPerBlock + slot] = key[d];
    std::memcpy(values + slot * padded_dim_, value, padded_dim_ * sizeof(std::uint16_t));
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
