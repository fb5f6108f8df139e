#include "kernels.h"
#include "vector_avx2.h"

namespace quarry::avx2 {
#include "peak_loops.inl"

#include "kernels.inl"
}  // namespace quarry::avx2
