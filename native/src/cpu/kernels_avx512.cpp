#include "kernels.h"
#include "vector_avx512.h"

namespace quarry::avx512 {
#include "kernels.inl"
}  // namespace quarry::avx512
