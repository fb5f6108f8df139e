// Attention among the tokens of one passage, all of which see one another: no cache, and so no rounding to
// what a cache holds. Numbers are multiplied two by two: lanes hold pairs of a key's dimensions, or of two
// keys' values in one dimension. Pairs of bf16 are one word and one instruction; elsewhere, and where the
// result must be exact, they are two floats. Part of kernels.inl.

struct PairOfFloats {
    float first, second;
};

// A pair for each lane, [first][second] in memory.
struct FloatPairs {
    using One = PairOfFloats;
    Floats first, second;
    static FloatPairs load(const One* line) {
        const auto* floats = reinterpret_cast<const float*>(line);
        return {Floats::load(floats), Floats::load(floats + kLanes)};
    }
    static void put(One* line, std::size_t lane, One one) {
        auto* floats = reinterpret_cast<float*>(line);
        floats[lane] = one.first;
        floats[kLanes + lane] = one.second;
    }
    // x[2i] and x[2i + 1] for each i.
    static void pair_up(const float* x, std::size_t n, One* out) {
        __builtin_memcpy(static_cast<void*>(out), x, n * sizeof(float));
    }
    static void zip(Floats a, Floats b, One* line) {
        auto* floats = reinterpret_cast<float*>(line);
        a.store(floats);
        b.store(floats + kLanes);
    }
    static Floats add_product(Floats sum, FloatPairs w, One x) {
        return multiply_add(w.second, Floats::all(x.second),
                            multiply_add(w.first, Floats::all(x.first), sum));
    }
};

#ifdef __AVX512BF16__
struct Bf16Pairs {
    using One = std::int32_t;
    Pairs pairs;
    static Bf16Pairs load(const One* line) { return {Pairs::load(reinterpret_cast<const std::byte*>(line))}; }
    static void put(One* line, std::size_t lane, One one) { line[lane] = one; }
    static void pair_up(const float* x, std::size_t n, One* out) {
        for (std::size_t i = 0; i < n; i += 2 * kLanes) Pairs::rounded(x + i).store(out + i / 2);
    }
    static void zip(Floats a, Floats b, One* line) { Pairs::zipped(a, b).store(line); }
    static Floats add_product(Floats sum, Bf16Pairs w, One x) { return dot(sum, w.pairs, Pairs::all(x)); }
};
#endif

// 2 to the power of x <= 0. Relative error below 3e-6; the coefficients are those of 2^f on [-0.5, 0.5].
inline Floats exp2_of_negative(Floats x) {
    const Floats n = round(x);
    const Floats f = x - n;
    Floats p = Floats::all(1.33335581e-3f);
    for (const float c : {9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f})
        p = multiply_add(p, f, Floats::all(c));
    return times_power_of_two(p, n);
}

template <class Kind>
struct AttendWithin {
    using One = typename Kind::One;
    static constexpr std::size_t kQueries = kLanes == 16 && kHasPanels ? 6 : 4;
    static constexpr std::size_t kTiles = kHasPanels ? 2 : 1;  // lines of keys, or of dimensions, at a time
    static constexpr std::size_t kPad = 2 * 16;  // keys and dimensions are filled up with zeros to multiples

    static constexpr std::size_t padded(std::size_t n) { return (n + kPad - 1) / kPad * kPad; }

    static std::size_t scratch_bytes(std::size_t n_tokens, std::size_t head_dim) {
        const std::size_t n = padded(n_tokens);
        const std::size_t dim = padded(head_dim);
        return (n * dim + kQueries * (dim + n) / 2) * sizeof(One) + (kQueries * n + 2 * dim) * sizeof(float);
    }

    static void run(const WithinTask& task) {
        const std::size_t n = padded(task.n_tokens);
        const std::size_t dim = padded(task.head_dim);
        auto* keys = reinterpret_cast<One*>(task.scratch);                    // [n / kLanes][dim / 2][kLanes]
        One* values = keys + n * dim / 2;                                     // [n / 2][dim / kLanes][kLanes]
        One* queries = values + n * dim / 2;                                  // [kQueries][dim / 2]
        One* weights = queries + kQueries * dim / 2;                          // [kQueries][n / 2]
        auto* scores = reinterpret_cast<float*>(weights + kQueries * n / 2);  // [kQueries][n]
        float* row = scores + kQueries * n;                                   // [2][dim]
        pack_keys(task, n, dim, row, queries, keys);
        pack_values(task, n, dim, row, values);
        for (std::size_t first = 0; first < task.n_tokens; first += kQueries) {
            const std::size_t left = task.n_tokens - first;
            with_constant<Some, kQueries>(left < kQueries ? left : kQueries, task, first, n, dim, keys,
                                          values, queries, weights, scores, row);
        }
    }

  private:
    // Row t, with zeros up to `dim`; zeros only where there is no such token.
    static void stage(const float* x, const WithinTask& task, std::size_t t, std::size_t dim, float* row) {
        const std::size_t n = t < task.n_tokens ? task.head_dim : 0;
        if (n > 0) __builtin_memcpy(row, x + t * task.stride, n * sizeof(float));
        if (n < dim) __builtin_memset(row + n, 0, (dim - n) * sizeof(float));
    }

    static void pack_keys(const WithinTask& task, std::size_t n, std::size_t dim, float* row, One* staged,
                          One* keys) {
        for (std::size_t t = 0; t < n; ++t) {
            stage(task.keys, task, t, dim, row);
            Kind::pair_up(row, dim, staged);
            One* tile = keys + t / kLanes * (dim / 2) * kLanes;
            for (std::size_t p = 0; p < dim / 2; ++p) Kind::put(tile + p * kLanes, t % kLanes, staged[p]);
        }
    }

    static void pack_values(const WithinTask& task, std::size_t n, std::size_t dim, float* row, One* values) {
        for (std::size_t t = 0; t < n; t += 2) {
            stage(task.values, task, t, dim, row);
            stage(task.values, task, t + 1, dim, row + dim);
            One* line = values + t / 2 * dim;
            for (std::size_t d = 0; d < dim; d += kLanes)
                Kind::zip(Floats::load(row + d), Floats::load(row + dim + d), line + d);
        }
    }

    template <std::size_t N>
    struct Some {
        static void run(const WithinTask& task, std::size_t first, std::size_t n, std::size_t dim,
                        const One* keys, const One* values, One* queries, One* weights, float* scores,
                        float* row) {
            constexpr std::size_t kBlock = kTiles * kLanes;
            // Keys [begin, end) are those that some of the queries see, in whole blocks.
            const std::size_t reach = task.reach > 0 ? task.reach : task.n_tokens;
            const std::size_t begin = first > reach ? (first - reach) / kPad * kPad : 0;
            const std::size_t last = first + N - 1 + reach + 1;
            const std::size_t end = last < task.n_tokens ? padded(last) : n;
            for (std::size_t r = 0; r < N; ++r) {
                stage(task.queries, task, first + r, dim, row);
                Kind::pair_up(row, dim, queries + r * (dim / 2));
            }
            for (std::size_t key = begin; key < end; key += kBlock)
                score(keys + key / kLanes * (dim / 2) * kLanes, queries, dim / 2, n, scores + key);
            Floats inverse[N];
            for (std::size_t r = 0; r < N; ++r) {
                soften(task, first + r, begin, end, scores + r * n, inverse[r]);
                Kind::pair_up(scores + r * n + begin, end - begin, weights + r * (n / 2) + begin / 2);
            }
            for (std::size_t d = 0; d < dim; d += kBlock) {
                Floats sum[kTiles][N];
                add_values(values + d, weights, dim, begin / 2, end / 2, n / 2, sum);
                for (std::size_t tile = 0; tile < kTiles; ++tile) {
                    for (std::size_t r = 0; r < N; ++r) {
                        put_out(task, first + r, d + tile * kLanes, sum[tile][r] * inverse[r]);
                    }
                }
            }
        }

        static void score(const One* tiles, const One* queries, std::size_t n_pairs, std::size_t stride,
                          float* scores) {
            Floats sum[kTiles][N];
#pragma GCC unroll 2
            for (std::size_t tile = 0; tile < kTiles; ++tile) {
#pragma GCC unroll 6
                for (std::size_t r = 0; r < N; ++r) sum[tile][r] = Floats::zero();
            }
            for (std::size_t p = 0; p < n_pairs; ++p) {
                Kind key[kTiles];
#pragma GCC unroll 2
                for (std::size_t tile = 0; tile < kTiles; ++tile)
                    key[tile] = Kind::load(tiles + (tile * n_pairs + p) * kLanes);
#pragma GCC unroll 6
                for (std::size_t r = 0; r < N; ++r) {
                    const One x = queries[r * n_pairs + p];
#pragma GCC unroll 2
                    for (std::size_t tile = 0; tile < kTiles; ++tile)
                        sum[tile][r] = Kind::add_product(sum[tile][r], key[tile], x);
                }
            }
#pragma GCC unroll 2
            for (std::size_t tile = 0; tile < kTiles; ++tile) {
#pragma GCC unroll 6
                for (std::size_t r = 0; r < N; ++r) sum[tile][r].store(scores + r * stride + tile * kLanes);
            }
        }

        static void add_values(const One* values, const One* weights, std::size_t dim, std::size_t begin,
                               std::size_t end, std::size_t stride, Floats (*sum)[N]) {
#pragma GCC unroll 2
            for (std::size_t tile = 0; tile < kTiles; ++tile) {
#pragma GCC unroll 6
                for (std::size_t r = 0; r < N; ++r) sum[tile][r] = Floats::zero();
            }
            for (std::size_t pair = begin; pair < end; ++pair) {
                Kind value[kTiles];
#pragma GCC unroll 2
                for (std::size_t tile = 0; tile < kTiles; ++tile)
                    value[tile] = Kind::load(values + pair * dim + tile * kLanes);
#pragma GCC unroll 6
                for (std::size_t r = 0; r < N; ++r) {
                    const One x = weights[r * stride + pair];
#pragma GCC unroll 2
                    for (std::size_t tile = 0; tile < kTiles; ++tile)
                        sum[tile][r] = Kind::add_product(sum[tile][r], value[tile], x);
                }
            }
        }
    };

    // Scores [begin, end) of a token to weights, not yet divided by their sum.
    static void soften(const WithinTask& task, std::size_t token, std::size_t begin, std::size_t end,
                       float* scores, Floats& inverse) {
        constexpr float kMasked = -1e30f;
        constexpr float kLog2E = 1.44269504f;
        const std::size_t reach = task.reach > 0 ? task.reach : task.n_tokens;
        const std::size_t from = token > reach ? token - reach : 0;
        const std::size_t past = token + reach + 1 < task.n_tokens ? token + reach + 1 : task.n_tokens;
        const float slope = task.slope / task.scale;
        for (std::size_t j = begin; slope > 0 && j < end; ++j)
            scores[j] -= slope * static_cast<float>(j < token ? token - j : j - token);
        for (std::size_t j = begin; j < from; ++j) scores[j] = kMasked;
        for (std::size_t j = past; j < end; ++j) scores[j] = kMasked;
        Floats top = Floats::all(kMasked);
        for (std::size_t j = begin; j < end; j += kLanes) top = max(top, Floats::load(scores + j));
        const Floats factor = Floats::all(task.scale * kLog2E);
        const Floats largest = Floats::all(top.max() * task.scale * kLog2E);
        Floats sum = Floats::zero();
        for (std::size_t j = begin; j < end; j += kLanes) {
            // Rounding can leave the largest a little above 0, which is as good.
            const Floats weight = exp2_of_negative(Floats::load(scores + j) * factor - largest);
            weight.store(scores + j);
            sum = sum + weight;
        }
        inverse = Floats::all(1.0f / sum.sum());
    }

    static void put_out(const WithinTask& task, std::size_t token, std::size_t d, Floats value) {
        if (d >= task.head_dim) return;
        float* out = task.out + token * task.stride + d;
        if (task.head_dim - d >= kLanes) {
            value.store(out);
            return;
        }
        float lanes[kLanes];
        value.store(lanes);
        __builtin_memcpy(out, lanes, (task.head_dim - d) * sizeof(float));
    }
};
