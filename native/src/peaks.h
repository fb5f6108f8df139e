// What this machine can do at most, measured: the limits that the benchmarks compare with.
#pragma once

#include "cpu/kernels.h"
#include "thread_pool.h"

namespace quarry {

// Operations a second of all threads together, a product and a sum being two; bytes a second of reading.
// `bf16` is 0 where the instruction set has no such products.
struct Peaks {
    double int8, bf16, f32, read;
};

// The best of several short runs; about a second. Throws: std::bad_alloc.
Peaks measure_peaks(ThreadPool& pool, const Kernels& kernels);

}  // namespace quarry
