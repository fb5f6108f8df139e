#include "prefix_tree.h"

#include <algorithm>

namespace quarry {

std::size_t PrefixTree::Node::Hash::operator()(const std::array<std::int32_t, kKeysPerBlock>& tokens) const {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a over whole tokens
    for (const auto id : tokens) hash = (hash ^ static_cast<std::uint32_t>(id)) * 0x100000001b3u;
    return hash;
}

BlockId PrefixTree::take() {
    if (cache_->n_free() == 0) {
        const auto is_idle = [&](const Node* node) {
            return node->children_.empty() && cache_->is_held_by_tree_alone(node->block_);
        };
        // There is one: a node that nobody reads has no reader below it.
        remove(**std::find_if(by_use_.rbegin(), by_use_.rend(), is_idle));
    }
    return cache_->take();
}

PrefixTree::Node* PrefixTree::enter(std::string_view tenant) {
    auto& root = roots_[std::string(tenant)];
    if (root == nullptr) {
        root = std::make_unique<Node>();
        root->tenant_ = tenant;
    }
    ++root->n_readers_;
    return root.get();
}

void PrefixTree::leave(Node* root) {
    --root->n_readers_;
    remove_root_if_idle(*root);
}

void PrefixTree::remove_root_if_idle(Node& root) {
    if (root.n_readers_ == 0 && root.children_.empty()) roots_.erase(std::string(root.tenant_));
}

PrefixTree::Node* PrefixTree::follow(Node& node, Tokens tokens) {
    std::array<std::int32_t, kKeysPerBlock> key;
    std::copy(tokens.begin(), tokens.end(), key.begin());
    const auto found = node.children_.find(key);
    if (found == node.children_.end()) return nullptr;
    cache_->hold(found->second->block_);
    return found->second.get();
}

PrefixTree::Node* PrefixTree::add(Node& node, Tokens tokens, BlockId block) {
    if (Node* known = follow(node, tokens)) {
        cache_->give_back(block);
        return known;
    }
    auto child = std::make_unique<Node>();
    std::copy(tokens.begin(), tokens.end(), child->tokens_.begin());
    child->block_ = block;
    child->parent_ = &node;
    by_use_.push_front(child.get());
    child->place_ = by_use_.begin();
    cache_->keep(block);
    return (node.children_[child->tokens_] = std::move(child)).get();
}

void PrefixTree::remove(Node& leaf) {
    cache_->drop(leaf.block_);
    by_use_.erase(leaf.place_);
    Node& parent = *leaf.parent_;
    parent.children_.erase(std::array(leaf.tokens_));
    if (parent.parent_ == nullptr) remove_root_if_idle(parent);
}

void PrefixTree::clear() {
    for (const Node* node : by_use_) cache_->drop(node->block_);
    by_use_.clear();
    roots_.clear();
    ++age_;
}

}  // namespace quarry
