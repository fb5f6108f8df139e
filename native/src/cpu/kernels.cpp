#include "kernels.h"

#include <stdexcept>
#include <string>

namespace quarry {

namespace {

#if defined(__x86_64__)
bool has_avx2() {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
bool has_avx512() {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#endif

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> all{&generic::kernels};
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (has_avx2()) all.push_back(&avx2::kernels);
    if (has_avx512()) all.push_back(&avx512::kernels);
    if (has_avx512() && __builtin_cpu_supports("avx512bf16")) all.push_back(&avx512bf16::kernels);
#endif
    return all;
}

}  // namespace

std::vector<std::string_view> instruction_sets() {
    std::vector<std::string_view> names;
    for (const auto* kernels : available()) names.emplace_back(kernels->name);
    return names;
}

const Kernels& kernels_for(std::string_view instruction_set) {
    const auto all = available();
    if (instruction_set == "auto") return *all.back();
    std::string names;
    for (const auto* kernels : all) {
        if (instruction_set == kernels->name) return *kernels;
        names += std::string(kernels->name) + ", ";
    }
    throw std::invalid_argument("instruction set '" + std::string(instruction_set) +
                                "' is not available; this processor runs " + names + "auto");
}

}  // namespace quarry
