// Keys and values of cached tokens, in blocks of kKeysPerBlock tokens that sequences own one by one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/kernels.h"
#include "memory.h"

namespace quarry {

using BlockId = std::uint32_t;
constexpr std::size_t kMaxHeadDim = 512;

class KvCache {
  public:
    // Throws: std::bad_alloc.
    KvCache(std::size_t n_layers, std::size_t n_heads, std::size_t head_dim, std::size_t n_blocks);

    std::size_t n_layers() const { return n_layers_; }
    std::size_t n_heads() const { return n_heads_; }
    std::size_t head_dim() const { return head_dim_; }           // as the model has it
    std::size_t padded_head_dim() const { return padded_dim_; }  // multiple of kTileRows, zeros behind
    std::size_t n_blocks() const { return n_blocks_; }
    std::size_t n_free() const { return free_.size(); }
    std::size_t n_bytes() const { return data_.size(); }

    // The caller checks n_free() first.
    BlockId take();
    void give_back(BlockId block);

    KeyValueBlock block(std::size_t layer, BlockId block, std::size_t head) const;
    // Stores one token's key and value of one head, given as f16 with zeros up to padded_head_dim().
    void store(std::size_t layer, BlockId block, std::size_t head, std::size_t slot, const std::uint16_t* key,
               const std::uint16_t* value);

  private:
    std::uint16_t* head_data(std::size_t layer, BlockId block, std::size_t head) const;

    std::size_t n_layers_;
    std::size_t n_heads_;
    std::size_t head_dim_;
    std::size_t padded_dim_;
    std::size_t n_blocks_;
    LazyMemory data_;  // [layer][block][head][keys then values]
    std::vector<BlockId> free_;
};

}  // namespace quarry
