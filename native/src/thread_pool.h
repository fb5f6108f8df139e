// Worker threads that run one parallel loop at a time. The calling thread works along.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>
#include <vector>

namespace quarry {

class ThreadPool {
  public:
    explicit ThreadPool(std::size_t n_threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    std::size_t size() const { return workers_.size() + 1; }

    // Calls body(item, thread) for each item in [0, n_items); items are handed out one by one, so that a
    // thread that lost its processor does not hold up the rest. `body` must not throw.
    template <class Body>
    void parallel(std::size_t n_items, const Body& body) {
        if (n_items <= 1 || workers_.empty()) {
            for (std::size_t i = 0; i < n_items; ++i) body(i, std::size_t{0});
            return;
        }
        run(n_items, {&body, [](const void* self, std::size_t item, std::size_t thread) {
                          (*static_cast<const Body*>(self))(item, thread);
                      }});
    }

  private:
    struct Task {
        const void* body;
        void (*call)(const void* body, std::size_t item, std::size_t thread);
    };

    void run(std::size_t n_items, Task task);
    void work(std::size_t thread);
    // Claims and runs items until none is left.
    void take_items(std::size_t thread);

    std::vector<std::thread> workers_;
    // Valid from the claim of an item until it is counted as done: the loop cannot end between the two.
    Task task_{};
    // Items of the current loop (high half) and the next unclaimed one (low half), in one word: who claims an
    // item learns in the same instant whether there is one. A worker that wakes late finds none and is not
    // waited for.
    std::atomic<std::uint64_t> claims_{0};
    std::atomic<std::size_t> n_done_{0};
    std::atomic<std::uint32_t> generation_{0};  // counts loops; idle workers wait for it to change
    std::atomic<bool> stopping_{false};
};

}  // namespace quarry
