// One sequence's place in the cache, with its sampler.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backend.h"
#include "prefix_tree.h"
#include "sampler.h"

namespace quarry {

class Sequence {
  public:
    // Shares beginnings with the sequences of its tenant; with nobody where there is none.
    Sequence(std::shared_ptr<PrefixTree> tree, std::size_t vocab_size, SamplingParams params,
             std::optional<std::string> tenant)
        : sampler(std::move(params)),
          tree_(std::move(tree)),
          vocab_size_(vocab_size),
          tenant_(std::move(tenant)) {}
    ~Sequence() { release(); }
    Sequence(const Sequence&) = delete;
    Sequence& operator=(const Sequence&) = delete;

    std::size_t n_cached() const { return tokens_.size(); }
    std::span<const BlockId> blocks() const { return blocks_; }
    std::size_t blocks_missing(std::size_t n_tokens) const;

    // Takes over the blocks that the tree has for the tokens that come next, and tells how many tokens they
    // hold: whole blocks, and only where this sequence has none but whole ones.
    std::size_t reuse(std::span<const std::int32_t> next);
    // Takes the next block from outside: kKeysPerBlock tokens, and the block as KvCache::copy_out() gave it.
    // Throws: std::invalid_argument (sizes, a block begun, a model with a state); false where there is no
    // block to take.
    bool restore(std::span<const std::int32_t> tokens, std::span<const std::byte> data);
    // Throws: std::invalid_argument where the block is not full.
    std::vector<std::byte> copy_block(std::size_t index) const;

    // Takes the blocks for the tokens and notes them; the caller has checked that there are enough.
    void extend(std::span<const std::int32_t> tokens);
    // Forgets the last n_tokens, which are not yet shared.
    void shorten(std::size_t n_tokens);
    // Lets others find the full blocks.
    void share();
    void release();
    // Restricts the next draws to tokens whose bit is set; empty lifts it.
    // Throws: std::invalid_argument where the mask is not as long as the vocabulary.
    void set_mask(std::vector<std::uint32_t> allowed);

    Sampler sampler;
    // Of models that have such, whose past blocks of the cache alone do not tell.
    RecurrentState state;
    bool is_recurrent = false;

  private:
    // Where the tree goes on after the blocks that it knows of this sequence; nullptr: nothing is shared.
    PrefixTree::Node* place();
    PrefixTree::Tokens tokens_of(std::size_t block) const;

    std::shared_ptr<PrefixTree> tree_;
    std::size_t vocab_size_;
    std::optional<std::string> tenant_;
    std::vector<std::int32_t> tokens_;
    std::vector<BlockId> blocks_;
    PrefixTree::Node* root_ = nullptr;
    std::vector<PrefixTree::Node*> nodes_;  // of the first blocks
    std::uint64_t age_ = 0;                 // of the tree, when root_ and nodes_ were found
};

}  // namespace quarry
