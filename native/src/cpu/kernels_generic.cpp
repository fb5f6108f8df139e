#include "kernels.h"
#include "vector_generic.h"

namespace quarry::generic {
#include "peak_loops.inl"

#include "kernels.inl"
}  // namespace quarry::generic
