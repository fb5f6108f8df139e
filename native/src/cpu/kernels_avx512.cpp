#define QUARRY_AVX512 avx512
#include "kernels.h"
#include "vector_avx512.h"

namespace quarry::avx512 {
#include "peak_loops.inl"

#include "kernels.inl"
}  // namespace quarry::avx512
