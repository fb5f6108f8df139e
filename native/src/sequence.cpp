#include "sequence.h"

#include <stdexcept>

namespace quarry {

std::size_t Sequence::blocks_missing(std::size_t n_tokens) const {
    return (n_cached() + n_tokens + kKeysPerBlock - 1) / kKeysPerBlock - blocks_.size();
}

PrefixTree::Tokens Sequence::tokens_of(std::size_t block) const {
    return std::span(tokens_).subspan(block * kKeysPerBlock).first<kKeysPerBlock>();
}

PrefixTree::Node* Sequence::place() {
    if (!tenant_) return nullptr;
    const bool is_outdated = root_ != nullptr && age_ != tree_->age();
    // The tree was cleared: what this sequence holds stays its own.
    if (is_outdated && !tokens_.empty()) return nullptr;
    if (is_outdated || root_ == nullptr) {
        root_ = tree_->enter(*tenant_);
        age_ = tree_->age();
    }
    return nodes_.empty() ? root_ : nodes_.back();
}

std::size_t Sequence::reuse(std::span<const std::int32_t> next) {
    std::size_t n = 0;
    while (tokens_.size() == nodes_.size() * kKeysPerBlock && next.size() - n >= kKeysPerBlock) {
        PrefixTree::Node* from = place();
        if (from == nullptr) break;
        const auto tokens = next.subspan(n).first<kKeysPerBlock>();
        PrefixTree::Node* node = tree_->follow(*from, tokens);
        if (node == nullptr) break;
        nodes_.push_back(node);
        blocks_.push_back(node->block());
        tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
        if (!sampler.has_drawn()) {
            for (const auto id : tokens) sampler.accept_prompt(id);
        }
        n += kKeysPerBlock;
    }
    return n;
}

bool Sequence::restore(std::span<const std::int32_t> tokens, std::span<const std::byte> data) {
    KvCache& cache = tree_->cache();
    if (tokens.size() != kKeysPerBlock || data.size() != cache.block_bytes()) {
        throw std::invalid_argument("a block to restore has " + std::to_string(tokens.size()) +
                                    " tokens and " + std::to_string(data.size()) + " bytes; it must have " +
                                    std::to_string(kKeysPerBlock) + " and " +
                                    std::to_string(cache.block_bytes()));
    }
    if (is_recurrent) throw std::invalid_argument("the model's state is not in the cache's blocks");
    if (n_cached() % kKeysPerBlock != 0)
        throw std::invalid_argument("a block cannot be restored behind one that is not full");
    if (tree_->n_available() == 0) return false;
    extend(tokens);
    cache.copy_in(blocks_.back(), data.data());
    if (!sampler.has_drawn()) {
        for (const auto id : tokens) sampler.accept_prompt(id);
    }
    share();
    return true;
}

std::vector<std::byte> Sequence::copy_block(std::size_t index) const {
    if (index >= n_cached() / kKeysPerBlock) {
        throw std::invalid_argument("block " + std::to_string(index) + " is not one of the " +
                                    std::to_string(n_cached() / kKeysPerBlock) + " full ones");
    }
    std::vector<std::byte> data(tree_->cache().block_bytes());
    tree_->cache().copy_out(blocks_[index], data.data());
    return data;
}

void Sequence::extend(std::span<const std::int32_t> tokens) {
    for (std::size_t n = blocks_missing(tokens.size()); n > 0; --n) blocks_.push_back(tree_->take());
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
}

void Sequence::shorten(std::size_t n_tokens) {
    tokens_.resize(tokens_.size() - n_tokens);
    const std::size_t n_blocks = (tokens_.size() + kKeysPerBlock - 1) / kKeysPerBlock;
    for (; blocks_.size() > n_blocks; blocks_.pop_back()) tree_->cache().give_back(blocks_.back());
}

void Sequence::share() {
    while ((nodes_.size() + 1) * kKeysPerBlock <= tokens_.size()) {
        PrefixTree::Node* from = place();
        if (from == nullptr) return;
        const std::size_t i = nodes_.size();
        nodes_.push_back(tree_->add(*from, tokens_of(i), blocks_[i]));
        // Somebody may have computed the same at the same time: one copy is enough.
        blocks_[i] = nodes_.back()->block();
    }
}

void Sequence::release() {
    if (root_ != nullptr && age_ == tree_->age()) {
        for (auto node = nodes_.rbegin(); node != nodes_.rend(); ++node) tree_->touch(**node);
    }
    for (const auto block : blocks_) tree_->cache().give_back(block);
    if (root_ != nullptr && age_ == tree_->age()) tree_->leave(root_);
    root_ = nullptr;
    nodes_.clear();
    blocks_.clear();
    tokens_.clear();
    sampler.forget_undrawn();
}

void Sequence::set_mask(std::vector<std::uint32_t> allowed) {
    const std::size_t words = (vocab_size_ + 31) / 32;
    if (!allowed.empty() && allowed.size() != words) {
        throw std::invalid_argument("the mask has " + std::to_string(allowed.size()) +
                                    " words; the vocabulary needs " + std::to_string(words));
    }
    sampler.set_mask(std::move(allowed));
}

}  // namespace quarry
