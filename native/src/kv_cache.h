// Keys and values of cached tokens, in blocks of kKeysPerBlock tokens, each held by the sequences that read
// it and, once it is full, by the tree of known beginnings.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "cpu/kernels.h"
#include "memory.h"

namespace quarry {

using BlockId = std::uint32_t;
constexpr std::size_t kMaxHeadDim = 512;

// f16, or 8 bits with a scale for each kCacheGroup values of a token.
enum class CacheType : std::uint8_t { f16, q8_0 };

// Throws: std::invalid_argument naming those that there are.
CacheType cache_type(std::string_view name);

class KvCache {
  public:
    // Throws: std::bad_alloc.
    KvCache(std::size_t n_layers, std::size_t n_heads, std::size_t head_dim, std::size_t n_blocks,
            CacheType type = CacheType::f16);

    std::size_t n_layers() const { return n_layers_; }
    std::size_t n_heads() const { return n_heads_; }
    std::size_t head_dim() const { return head_dim_; }           // as the model has it
    std::size_t padded_head_dim() const { return padded_dim_; }  // multiple of kTileRows, zeros behind
    std::size_t n_blocks() const { return n_blocks_; }
    std::size_t n_bytes() const { return data_.size(); }

    std::size_t n_free() const { return free_.size(); }
    // Blocks that only the tree holds: it gives them up for whoever needs one.
    std::size_t n_kept() const { return n_kept_; }

    // A block with one holder. The caller checks n_free() first.
    BlockId take();
    // One holder more, and one less; the last one frees it.
    void hold(BlockId block);
    void give_back(BlockId block);
    // The tree's own hold, on a block that a sequence holds too.
    void keep(BlockId block);
    void drop(BlockId block);
    bool is_held_by_tree_alone(BlockId block) const { return blocks_[block] == Holders{1, true}; }

    CacheType type() const { return type_; }
    // What the type has of the two.
    PackedBlock packed_block(std::size_t layer, BlockId block, std::size_t head) const;
    KeyValueBlock block(std::size_t layer, BlockId block, std::size_t head) const;
    // Stores one token's key and value of one head, given as f16 with zeros up to padded_head_dim().
    void store(std::size_t layer, BlockId block, std::size_t head, std::size_t slot, const std::uint16_t* key,
               const std::uint16_t* value);

    // A block as it is kept outside: layer after layer.
    std::size_t block_bytes() const { return n_layers_ * layer_bytes_; }
    void copy_out(BlockId block, std::byte* out) const;
    void copy_in(BlockId block, const std::byte* in);

  private:
    struct Holders {
        std::uint32_t n;
        bool tree;
        bool operator==(const Holders&) const = default;
    };

    std::byte* layer_data(std::size_t layer, BlockId block) const;
    std::byte* head_data(std::size_t layer, BlockId block, std::size_t head) const;
    void store_packed(std::byte* data, std::size_t slot, const std::uint16_t* key,
                      const std::uint16_t* value);

    CacheType type_;
    std::size_t n_layers_;
    std::size_t n_heads_;
    std::size_t head_dim_;
    std::size_t padded_dim_;
    std::size_t n_blocks_;
    std::size_t head_bytes_;   // of one block of one head
    std::size_t layer_bytes_;  // of one block in one layer
    LazyMemory data_;          // [layer][block][head][keys, values, then key scales and value scales]
    std::vector<BlockId> free_;
    std::vector<Holders> blocks_;  // [n_blocks]
    std::size_t n_kept_ = 0;
};

}  // namespace quarry
