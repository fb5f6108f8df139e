#include "kernels.h"
#include "vector_avx2.h"

namespace quarry::avx2 {
#include "kernels.inl"
}  // namespace quarry::avx2
