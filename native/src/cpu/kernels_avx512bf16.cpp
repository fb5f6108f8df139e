#define QUARRY_AVX512 avx512bf16
#include "kernels.h"
#include "vector_avx512.h"

namespace quarry::avx512bf16 {
#include "peak_loops.inl"

#include "kernels.inl"
}  // namespace quarry::avx512bf16
