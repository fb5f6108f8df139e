// Every item of every loop runs once, on whatever threads there are.
#include <atomic>
#include <numeric>
#include <vector>

#include "check.h"
#include "thread_pool.h"

namespace {

void many_tiny_loops(std::size_t n_threads) {
    quarry::ThreadPool pool(n_threads);
    CHECK(pool.size() == n_threads);
    for (std::size_t loop = 0; loop < 3000; ++loop) {
        const std::size_t n = loop % 17;
        std::vector<int> runs(n);
        std::atomic<bool> in_range = true;
        pool.parallel(n, [&](std::size_t item, std::size_t thread) {
            ++runs[item];
            if (thread >= n_threads) in_range = false;
        });
        CHECK(in_range.load());
        for (std::size_t i = 0; i < n; ++i) CHECK(runs[i] == 1, "item " + std::to_string(i));
    }
}

void a_long_loop(std::size_t n_threads) {
    quarry::ThreadPool pool(n_threads);
    constexpr std::size_t kItems = 100000;
    std::vector<std::size_t> of_thread(n_threads);
    pool.parallel(kItems, [&](std::size_t item, std::size_t thread) { of_thread[thread] += item; });
    CHECK(std::accumulate(of_thread.begin(), of_thread.end(), std::size_t{0}) == kItems * (kItems - 1) / 2);
}

// Workers that never got a loop must end all the same.
void idle_pools_end() {
    for (int i = 0; i < 50; ++i) quarry::ThreadPool pool(4);
}

}  // namespace

int main() {
    for (std::size_t n_threads = 1; n_threads <= 4; ++n_threads) {
        many_tiny_loops(n_threads);
        a_long_loop(n_threads);
    }
    idle_pools_end();
    return quarry::test::report("thread_pool");
}
