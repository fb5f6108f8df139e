// Memory for weights, activations and caches: aligned for vectors, zeroed, committed when first touched.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>
#include <utility>

namespace quarry {

class LazyMemory {
  public:
    LazyMemory() = default;
    // Throws: std::bad_alloc.
    explicit LazyMemory(std::size_t size) : size_(size) {
        if (size == 0) return;
        void* data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) throw std::bad_alloc();
        data_ = static_cast<std::byte*>(data);
#ifdef MADV_HUGEPAGE
        constexpr std::size_t kWorthHugePages = std::size_t{2} << 20;  // the size of one
        if (size >= kWorthHugePages) ::madvise(data, size, MADV_HUGEPAGE);
#endif
    }
    ~LazyMemory() {
        if (data_ != nullptr) ::munmap(data_, size_);
    }
    LazyMemory(LazyMemory&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    LazyMemory& operator=(LazyMemory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }

    std::byte* data() const { return data_; }
    std::size_t size() const { return size_; }

  private:
    std::byte* data_ = nullptr;
    std::size_t size_ = 0;
};

constexpr std::size_t kAlign = 64;  // of what vectors are loaded from

// What was there is lost where it grows.
inline void grow(LazyMemory& memory, std::size_t bytes) {
    if (memory.size() < bytes) memory = LazyMemory(bytes + bytes / 4);
}

// Hands out aligned pieces of one allocation.
class Carver {
  public:
    explicit Carver(std::byte* at) : at_(at) {}
    template <class T>
    T* take(std::size_t n) {
        T* piece = reinterpret_cast<T*>(at_);
        at_ += (n * sizeof(T) + kAlign - 1) / kAlign * kAlign;
        return piece;
    }

  private:
    std::byte* at_;
};

}  // namespace quarry
