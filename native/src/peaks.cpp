#include "peaks.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "memory.h"

namespace quarry {

namespace {

constexpr int kRuns = 5;
constexpr double kSecondsPerRun = 0.03;
constexpr std::size_t kReadBytes = std::size_t{256} << 20;  // far more than any cache holds

template <class Work>
double seconds(ThreadPool& pool, const Work& work) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel(pool.size(), [&](std::size_t item, std::size_t) { work(item); });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double operations_per_second(ThreadPool& pool, const PeakLoop& loop) {
    if (loop.run == nullptr) return 0;
    std::size_t rounds = 1000;
    while (seconds(pool, [&](std::size_t) { loop.run(rounds); }) < kSecondsPerRun) rounds *= 2;
    double best = 0;
    for (int run = 0; run < kRuns; ++run) {
        const double taken = seconds(pool, [&](std::size_t) { loop.run(rounds); });
        best = std::max(best, static_cast<double>(rounds * pool.size()) * loop.operations / taken);
    }
    return best;
}

double bytes_per_second(ThreadPool& pool, const Kernels& kernels) {
    const LazyMemory memory(kReadBytes);
    std::memset(memory.data(), 1, memory.size());
    const std::size_t part = kReadBytes / pool.size() / kReadUnit * kReadUnit;
    double best = 0;
    for (int run = 0; run < kRuns; ++run) {
        const double taken =
            seconds(pool, [&](std::size_t i) { kernels.peak_read(memory.data() + i * part, part); });
        best = std::max(best, static_cast<double>(part * pool.size()) / taken);
    }
    return best;
}

}  // namespace

Peaks measure_peaks(ThreadPool& pool, const Kernels& kernels) {
    return {operations_per_second(pool, kernels.peak_int8), operations_per_second(pool, kernels.peak_bf16),
            operations_per_second(pool, kernels.peak_f32), bytes_per_second(pool, kernels)};
}

}  // namespace quarry
