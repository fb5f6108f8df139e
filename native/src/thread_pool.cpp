#include "thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quarry {

namespace {

// Long enough to bridge the gap between two operations of a model, short against a time slice.
constexpr int kSpins = 4000;

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(std::size_t n_threads) {
    for (std::size_t i = 1; i < n_threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
    stopping_.store(true);
    generation_.fetch_add(1);
    generation_.notify_all();
    for (auto& worker : workers_) worker.join();
}

void ThreadPool::run(std::size_t n_items, Task task) {
    task_ = task;
    n_done_.store(0, std::memory_order_relaxed);
    claims_.store(static_cast<std::uint64_t>(n_items) << 32, std::memory_order_release);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    take_items(0);
    for (int spins = 0; n_done_.load(std::memory_order_acquire) != n_items; ++spins) {
        if (spins < kSpins) {
            pause();
        } else {
            std::this_thread::yield();
        }
    }
}

void ThreadPool::take_items(std::size_t thread) {
    while (true) {
        const std::uint64_t claim = claims_.fetch_add(1, std::memory_order_acq_rel);
        const std::uint64_t item = claim & 0xffffffffu;
        if (item >= claim >> 32) return;
        task_.call(task_.body, item, thread);
        n_done_.fetch_add(1, std::memory_order_release);
    }
}

void ThreadPool::work(std::size_t thread) {
    std::uint32_t seen = 0;
    while (!stopping_.load()) {
        for (int spins = 0; spins < kSpins && generation_.load(std::memory_order_acquire) == seen; ++spins)
            pause();
        generation_.wait(seen, std::memory_order_acquire);
        seen = generation_.load(std::memory_order_acquire);
        take_items(thread);
    }
}

}  // namespace quarry
