#include "kernels.h"
#include "vector_generic.h"

namespace quarry::generic {
#include "kernels.inl"
}  // namespace quarry::generic
