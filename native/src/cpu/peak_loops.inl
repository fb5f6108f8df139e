// Loops that do nothing but multiply and add, in as many independent sums as hide the latency: what one core
// can do at most. Included after the vector header, inside the namespace of its instruction set.

namespace {

constexpr std::size_t kSums = kLanes == 16 ? 16 : 8;
constexpr std::size_t kSteps = 8;

// What the compiler can neither know beforehand nor drop.
inline float opaque(float x) {
    volatile float kept = x;
    return kept;
}

void spin_f32(std::size_t rounds) {
    const Floats factor = Floats::all(opaque(0.5f));
    Floats sums[kSums];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) sums[i] = Floats::all(opaque(1.0f));
    for (std::size_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
        for (std::size_t i = 0; i < kSums; ++i) sums[i] = multiply_add(sums[i], factor, factor);
    }
    Floats total = Floats::zero();
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) total = total + sums[i];
    opaque(total.sum());
}

void spin_int8(std::size_t rounds) {
    std::byte lines[kSums][kLanes * 4];
    __builtin_memset(lines, static_cast<int>(opaque(1.0f)), sizeof lines);
    const auto word = static_cast<std::int32_t>(opaque(0.0f));
    Ints sums[kSums];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) sums[i] = start<8>(static_cast<std::int32_t>(opaque(1.0f)));
    for (std::size_t r = 0; r < rounds; ++r) {
        // Several products a round: compilers move the sums about between rounds.
#pragma GCC unroll 8
        for (std::size_t step = 0; step < kSteps; ++step) {
            asm volatile(
                "" ::
                    : "memory");  // the lines might have changed: no product is computed once for all
#pragma GCC unroll 16
            for (std::size_t i = 0; i < kSums; ++i) {
                sums[i] = dot<8>(sums[i], to_weights(Line::load(lines[i])), word);
            }
        }
    }
    Floats total = Floats::zero();
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) total = total + sums[i].to_floats();
    opaque(total.sum());
}

#ifdef __AVX512BF16__
void spin_bf16(std::size_t rounds) {
    const Pairs factor = Pairs::all(static_cast<std::int32_t>(opaque(0.0f)));
    Floats sums[kSums];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) sums[i] = Floats::all(opaque(1.0f));
    for (std::size_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
        for (std::size_t i = 0; i < kSums; ++i) sums[i] = dot(sums[i], factor, factor);
    }
    Floats total = Floats::zero();
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kSums; ++i) total = total + sums[i];
    opaque(total.sum());
}
constexpr PeakLoop kPeakBf16{spin_bf16, 2.0 * 2 * kLanes * kSums};
#else
constexpr PeakLoop kPeakBf16{nullptr, 0};
#endif

// Reads n bytes, a multiple of kReadUnit.
void read_bytes(const std::byte* from, std::size_t n) {
    constexpr std::size_t kLine = kLanes * 4;
    Line seen[kReadUnit / kLine];
#pragma GCC unroll 16
    for (std::size_t i = 0; i < kReadUnit / kLine; ++i) seen[i] = Line::load(from + i * kLine);
    for (std::size_t at = kReadUnit; at < n; at += kReadUnit) {
#pragma GCC unroll 16
        for (std::size_t i = 0; i < kReadUnit / kLine; ++i)
            seen[i] = seen[i] | Line::load(from + at + i * kLine);
    }
    for (std::size_t i = 1; i < kReadUnit / kLine; ++i) seen[0] = seen[0] | seen[i];
    std::uint32_t word;
    __builtin_memcpy(&word, &seen[0], sizeof word);
    opaque(static_cast<float>(word));
}

constexpr PeakLoop kPeakF32{spin_f32, 2.0 * kLanes * kSums};
constexpr PeakLoop kPeakInt8{spin_int8, 2.0 * 4 * kLanes * kSums * kSteps};

}  // namespace
