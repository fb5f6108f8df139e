// Worker threads that run one parallel loop at a time. The calling thread works along.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
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
    void take_items(std::size_t thread);

    std::vector<std::thread> workers_;
    Task task_{};
    std::size_t n_items_ = 0;
    std::atomic<std::size_t> next_item_{0};
    std::atomic<std::size_t> running_{0};       // workers still inside the current loop
    std::atomic<std::uint32_t> generation_{0};  // counts loops; workers wait for it to change
    std::atomic<bool> stopping_{false};
};

}  // namespace quarry
