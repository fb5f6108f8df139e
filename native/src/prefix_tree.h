// Known beginnings: full blocks of the cache by the tokens that led to them, one tree for each tenant. A
// block that no sequence reads stays until its memory is needed; the one used longest ago goes first, and a
// block never before those that follow it.
#pragma once

#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>

#include "kv_cache.h"

namespace quarry {

class PrefixTree {
  public:
    using Tokens = std::span<const std::int32_t, kKeysPerBlock>;

    // One block and the tokens in it. A node whose block a sequence holds does not go away, save by clear().
    class Node {
      public:
        BlockId block() const { return block_; }

      private:
        friend class PrefixTree;
        struct Hash {
            std::size_t operator()(const std::array<std::int32_t, kKeysPerBlock>& tokens) const;
        };
        std::array<std::int32_t, kKeysPerBlock> tokens_{};
        BlockId block_ = 0;
        Node* parent_ = nullptr;     // of the first block of a beginning: the tenant's root
        std::string tenant_;         // of a root
        std::size_t n_readers_ = 0;  // of a root: sequences that may come back to it
        std::unordered_map<std::array<std::int32_t, kKeysPerBlock>, std::unique_ptr<Node>, Hash> children_;
        std::list<Node*>::iterator place_;
    };

    explicit PrefixTree(std::shared_ptr<KvCache> cache) : cache_(std::move(cache)) {}

    KvCache& cache() const { return *cache_; }
    // Blocks that can be taken: the free ones, and those that only the tree holds.
    std::size_t n_available() const { return cache_->n_free() + cache_->n_kept(); }
    // Takes a block, from the tree if need be. The caller checks n_available() first.
    BlockId take();

    // The tenant's root, which stays until leave().
    Node* enter(std::string_view tenant);
    void leave(Node* root);
    // The node that follows, with its block held for the caller; nullptr where there is none.
    Node* follow(Node& node, Tokens tokens);
    // Adds a block that the caller holds, or finds the one that is there: then the caller holds that instead.
    Node* add(Node& node, Tokens tokens, BlockId block);
    // Tells that a node was used now. Of a beginning, the last node first.
    void touch(Node& node) { by_use_.splice(by_use_.begin(), by_use_, node.place_); }
    // Forgets everything; sequences keep what they hold. Nodes and roots from before are gone.
    void clear();
    // Counts calls of clear(): whoever kept a node compares.
    std::uint64_t age() const { return age_; }

  private:
    void remove(Node& leaf);
    void remove_root_if_idle(Node& root);

    std::shared_ptr<KvCache> cache_;
    std::unordered_map<std::string, std::unique_ptr<Node>> roots_;
    std::list<Node*> by_use_;  // latest first; no roots
    std::uint64_t age_ = 0;
};

}  // namespace quarry
