// The operations of every instruction set against plain arithmetic in double precision.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <numbers>
#include <random>

#include "backend.h"
#include "check.h"
#include "float16.h"
#include "gguf_draft.h"

namespace quarry::test {

namespace {

using Rows = std::vector<std::vector<float>>;

constexpr double kRounding = 1e-5;  // of sums of some hundred products of floats
constexpr std::size_t kMostThreads = 2;

Rows random_rows(std::size_t n, std::size_t width, float largest, std::uint32_t seed) {
    std::mt19937 random(seed);
    Rows rows(n, std::vector<float>(width));
    for (auto& row : rows) {
        for (auto& x : row) x = largest * (static_cast<float>(random() % 20001) / 10000.0f - 1.0f);
    }
    return rows;
}

// Puts values into buffers and back through the doors that models use.
class Desk {
  public:
    explicit Desk(std::string_view instruction_set) : backend(kMostThreads, instruction_set) {}

    // The tensors of a draft, until the next call.
    const GgufFile& open(const Draft& draft) {
        file_.write(draft.bytes());
        opened_ = std::make_unique<GgufFile>(file_.path());
        return *opened_;
    }

    Buffer fill(const Rows& rows) {
        Draft draft;
        std::string bytes;
        for (const auto& row : rows) {
            for (const float x : row) bytes += raw(x);
        }
        draft.tensors.push_back({"x", {rows[0].size(), rows.size()}, types::f32.id, bytes, {}});
        table_.write(draft.bytes());
        const GgufFile file(table_.path());
        Buffer buffer(rows[0].size());
        backend.reserve(buffer, rows.size());
        std::vector<std::int32_t> ids(rows.size());
        for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = static_cast<std::int32_t>(i);
        backend.gather(*file.find_tensor("x"), ids, buffer);
        return buffer;
    }

    Buffer empty(std::size_t n, std::size_t width) const {
        Buffer buffer(width);
        backend.reserve(buffer, n);
        return buffer;
    }

    Rows take(const Buffer& buffer, std::size_t n) const {
        Rows rows(n, std::vector<float>(buffer.width()));
        for (std::size_t i = 0; i < n; ++i) backend.read(buffer, i, rows[i].data());
        return rows;
    }

    Backend backend;

  private:
    TemporaryFile file_{"kernels-weights"}, table_{"kernels-rows"};
    std::unique_ptr<GgufFile> opened_;
};

std::string at(const Desk& desk, const std::string& what, std::size_t row, std::size_t i, double got,
               double expected) {
    return std::string(desk.backend.instruction_set()) + " " + what + " [" + std::to_string(row) + "][" +
           std::to_string(i) + "]: " + std::to_string(got) + ", not " + std::to_string(expected);
}

void check_rows(const Desk& desk, const std::string& what, const Rows& got,
                const std::vector<std::vector<double>>& expected, double absolute, double relative) {
    for (std::size_t r = 0; r < expected.size(); ++r) {
        for (std::size_t i = 0; i < expected[r].size(); ++i) {
            const double off = std::fabs(got[r][i] - expected[r][i]);
            CHECK(off <= absolute + relative * std::fabs(expected[r][i]),
                  at(desk, what, r, i, got[r][i], expected[r][i]));
        }
    }
}

// Size of the steps in which kernels for quantised weights round activations: 8 bits for each run.
std::vector<double> rounding_steps(const std::vector<float>& x, std::size_t run) {
    std::vector<double> steps(x.size());
    for (std::size_t first = 0; first < x.size(); first += run) {
        const std::size_t end = std::min(x.size(), first + run);
        float top = 0;
        for (std::size_t k = first; k < end; ++k) top = std::max(top, std::fabs(x[k]));
        for (std::size_t k = first; k < end; ++k) steps[k] = top / 127.0;
    }
    return steps;
}

// A random matrix of one type, and its product with rows of activations.
struct Product {
    Product(Desk& desk, const TensorType& type, std::size_t n_rows, std::size_t width, std::size_t n_tokens,
            Rounding rounding = Rounding::medium)
        : rounding(rounding), is_quantized(type.block_weights > 1), x(random_rows(n_tokens, width, 1, 11)) {
        // Groups of different size, and runs without anything in them.
        for (auto& row : x) {
            for (std::size_t k = 0; k < width; ++k)
                row[k] *= k / kGroup % 5 > 2 ? 0.0f : static_cast<float>(1 + k / kGroup);
        }
        name = std::string(type.name) + " " + std::to_string(n_rows) + "x" + std::to_string(width) +
               (rounding == Rounding::coarse ? " coarse" : "");
        Draft draft;
        draft.tensors.push_back(
            {"w", {width, n_rows}, type.id, random_weights(type, n_rows * width, 1, std::mt19937(5)), {}});
        draft.tensors.push_back(
            {"b", {n_rows}, types::f32.id, random_weights(types::f32, n_rows, 1, std::mt19937(6)), {}});
        const GgufFile& file = desk.open(draft);
        weights.assign(n_rows, std::vector<float>(width));
        for (std::size_t r = 0; r < n_rows; ++r)
            GgufFile::read_row(*file.find_tensor("w"), r, weights[r].data());
        packed = desk.backend.load(file, *file.find_tensor("w"));
        bias = desk.backend.load_bias(*file.find_tensor("b"));
    }

    Rows multiply(Desk& desk, std::size_t first, std::size_t n) {
        const Buffer in = desk.fill(Rows(x.begin() + static_cast<std::ptrdiff_t>(first),
                                         x.begin() + static_cast<std::ptrdiff_t>(first + n)));
        Buffer out = desk.empty(n, weights.size());
        desk.backend.matmul(in, n, {{&packed, &out}}, rounding);
        return desk.take(out, n);
    }

    void check_against_doubles(const Desk& desk, const Rows& got) const {
        double off_squares = 0;
        double expected_squares = 0;
        for (std::size_t t = 0; t < x.size(); ++t) {
            const std::size_t run = rounding == Rounding::coarse ? 64 : 32;
            const auto steps = is_quantized ? rounding_steps(x[t], run) : std::vector<double>(x[t].size());
            for (std::size_t r = 0; r < weights.size(); ++r) {
                double sum = 0;
                double size = 0;
                double most = 0;
                for (std::size_t k = 0; k < x[t].size(); ++k) {
                    const double w = weights[r][k];
                    sum += w * x[t][k];
                    size += std::fabs(w * x[t][k]);
                    most += std::fabs(w) * steps[k] / 2;
                    expected_squares += w * w * steps[k] * steps[k] / 12;
                }
                const double off = got[t][r] - sum;
                off_squares += off * off;
                CHECK(std::fabs(off) <= most + kRounding * size, at(desk, name, t, r, got[t][r], sum));
            }
        }
        // Errors of rounding add up like noise: a wrong scale or offset would not.
        if (is_quantized) {
            CHECK(off_squares <= 2 * expected_squares, std::string(desk.backend.instruction_set()) + " " +
                                                           name + ": noise " + std::to_string(off_squares) +
                                                           ", expected " + std::to_string(expected_squares));
        }
    }

    Rounding rounding;
    bool is_quantized;
    Rows x;
    std::string name;
    Rows weights;
    Weight packed;
    std::vector<float> bias;
};

// The same to the last bit, whoever else is in the batch.
void check_same_alone(Desk& desk, Product& product, const Rows& together) {
    for (std::size_t n = 1; n < product.x.size(); ++n) {
        const std::size_t first = product.x.size() - n;
        const Rows some = product.multiply(desk, first, n);
        for (std::size_t t = 0; t < n; ++t) {
            CHECK(some[t] == together[first + t], std::string(desk.backend.instruction_set()) + " " +
                                                      product.name + ": token " + std::to_string(t) + " of " +
                                                      std::to_string(n));
        }
    }
}

void check_bias_and_sum(Desk& desk, Product& product, const Rows& together) {
    product.packed.bias = product.bias;
    const std::size_t n = product.x.size();
    const Buffer in = desk.fill(product.x);
    const Rows before = random_rows(n, product.weights.size(), 3, 12);
    Buffer out = desk.fill(before);
    desk.backend.matmul(in, n, {{&product.packed, &out, true}}, product.rounding);
    const Rows got = desk.take(out, n);
    for (std::size_t t = 0; t < n; ++t) {
        for (std::size_t r = 0; r < product.weights.size(); ++r) {
            const double expected = double{before[t][r]} + together[t][r] + product.bias[r];
            CHECK(std::fabs(got[t][r] - expected) <= kRounding * (1 + std::fabs(expected)),
                  at(desk, product.name + " bias", t, r, got[t][r], expected));
        }
    }
    product.packed.bias.clear();
}

void matmul(Desk& desk) {
    for (const TensorType* type : matrix_types()) {
        const std::size_t block = type->block_weights;
        const std::vector<std::size_t> widths =
            block == 1
                ? std::vector<std::size_t>{32, 47, 288}
                : std::vector<std::size_t>{block, std::max<std::size_t>(3 * block, 288) / block * block};
        for (const std::size_t width : widths) {
            for (const std::size_t n_rows : {1, 16, 39}) {
                for (const Rounding rounding : {Rounding::coarse, Rounding::medium}) {
                    Product product(desk, *type, n_rows, width, 2 * kMaxChunk + 1, rounding);
                    const Rows together = product.multiply(desk, 0, product.x.size());
                    product.check_against_doubles(desk, together);
                    check_same_alone(desk, product, together);
                    check_bias_and_sum(desk, product, together);
                }
            }
        }
    }
}

// Several projections share the preparation of their input, whatever their layouts.
void projections_share_input(Desk& desk) {
    std::vector<Product> products;
    for (const TensorType* type : {&types::q8_0, &types::f32, &types::q4_1, &types::f16})
        products.emplace_back(desk, *type, 20, 64, 5);
    std::vector<Rows> alone;
    for (auto& product : products) alone.push_back(product.multiply(desk, 0, 5));
    const Buffer in = desk.fill(products[0].x);
    std::vector<Buffer> out;
    for (int i = 0; i < 4; ++i) out.push_back(desk.empty(5, 20));
    desk.backend.matmul(in, 5,
                        {{&products[0].packed, &out[0]},
                         {&products[1].packed, &out[1]},
                         {&products[2].packed, &out[2]},
                         {&products[3].packed, &out[3]}});
    for (std::size_t i = 0; i < 4; ++i) CHECK(desk.take(out[i], 5) == alone[i], products[i].name);
}

// Broken activations stay in their own row.
void broken_rows_harm_no_other(Desk& desk) {
    for (const TensorType* type : {&types::q8_0, &types::q4_1, &types::f32, &types::bf16}) {
        Product product(desk, *type, 17, 64, 6);
        const Rows right = product.multiply(desk, 0, 6);
        std::fill(product.x[1].begin(), product.x[1].end(), std::numeric_limits<float>::quiet_NaN());
        product.x[3][5] = std::numeric_limits<float>::infinity();
        product.x[4][5] = std::numeric_limits<float>::max();
        product.x[4][6] = std::numeric_limits<float>::denorm_min();
        const Rows got = product.multiply(desk, 0, 6);
        for (const std::size_t t : {0, 2, 5}) CHECK(got[t] == right[t], product.name);
    }
}

struct AttentionCase {
    std::size_t head_dim, n_heads, n_kv_heads;
    bool causal;
    float largest;  // of queries and keys: how sharp the weights are
    Scoring scoring = {};
    CacheType type = CacheType::f16;
};

std::string name_of(const AttentionCase& c) {
    return "attention " + std::to_string(c.n_heads) + "/" + std::to_string(c.n_kv_heads) + " heads of " +
           std::to_string(c.head_dim) + (c.causal ? " causal" : "") + " window " +
           std::to_string(c.scoring.window) + " cap " + std::to_string(c.scoring.soft_cap) +
           (c.type == CacheType::q8_0 ? " q8_0" : "");
}

// Keys or values of a token as the cache gives them back.
std::vector<double> cached(const std::vector<float>& row, std::size_t head_dim, CacheType type) {
    std::vector<double> out(row.size());
    for (std::size_t i = 0; i < row.size(); ++i) out[i] = f16_to_f32(f32_to_f16(row[i]));
    if (type == CacheType::f16) return out;
    for (std::size_t head = 0; head < row.size(); head += head_dim) {
        for (std::size_t first = head; first < head + head_dim; first += kCacheGroup) {
            const std::size_t end = std::min(first + kCacheGroup, head + head_dim);
            double largest = 0;
            for (std::size_t i = first; i < end; ++i) largest = std::max(largest, std::fabs(out[i]));
            const double step = largest / 127;
            for (std::size_t i = first; i < end && step > 0; ++i)
                out[i] = f16_to_f32(f32_to_f16(static_cast<float>(std::nearbyint(out[i] / step) * step)));
        }
    }
    return out;
}

// Two sequences whose rows come in turns of the given sizes; out[sequence][position].
struct Attention {
    Attention(Desk& on, const AttentionCase& of)
        : desk(on), task(of), cache(1, of.n_kv_heads, of.head_dim, 16, of.type) {
        for (std::uint32_t s = 0; s < 2; ++s) {
            queries.push_back(random_rows(kLengths[s], of.n_heads * of.head_dim, of.largest, 20 + s));
            keys.push_back(random_rows(kLengths[s], of.n_kv_heads * of.head_dim, of.largest, 30 + s));
            values.push_back(random_rows(kLengths[s], of.n_kv_heads * of.head_dim, 2, 40 + s));
            rounded_keys.emplace_back();
            rounded_values.emplace_back();
            for (std::size_t i = 0; i < kLengths[s]; ++i) {
                rounded_keys[s].push_back(cached(keys[s][i], of.head_dim, of.type));
                rounded_values[s].push_back(cached(values[s][i], of.head_dim, of.type));
            }
            out.emplace_back();
            blocks.push_back({});
            for (BlockId b = 0; b < 8; ++b) blocks[s].push_back(8 * s + (b * 5) % 8);
        }
    }

    static constexpr std::size_t kLengths[] = {75, 33};

    void feed(std::size_t n_first, std::size_t n_second) {
        const std::size_t n_of[] = {n_first, n_second};
        Rows q, k, v;
        std::vector<SequenceRows> sequences;
        for (std::size_t s = 0; s < 2; ++s) {
            if (n_of[s] == 0) continue;
            const std::size_t position = out[s].size();
            sequences.push_back({q.size(), n_of[s], position, blocks[s]});
            for (std::size_t i = position; i < position + n_of[s]; ++i) {
                q.push_back(queries[s][i]);
                k.push_back(keys[s][i]);
                v.push_back(values[s][i]);
            }
        }
        Buffer result = desk.empty(q.size(), task.n_heads * task.head_dim);
        desk.backend.attention(desk.fill(q), desk.fill(k), desk.fill(v), sequences, task.n_heads, task.causal,
                               cache, 0, result, task.scoring);
        const Rows rows = desk.take(result, q.size());
        std::size_t row = 0;
        for (std::size_t s = 0; s < 2; ++s) {
            for (std::size_t i = 0; i < n_of[s]; ++i) out[s].push_back(rows[row++]);
        }
    }

    // Softmax over keys and values as the cache rounds them.
    std::vector<double> expected(std::size_t s, std::size_t position) const {
        const std::size_t dim = task.head_dim;
        const std::size_t n_visible = task.causal ? position + 1 : kLengths[s];
        const Scoring& rule = task.scoring;
        const std::size_t first = rule.window > 0 && n_visible > rule.window ? n_visible - rule.window : 0;
        const double scale = rule.scale > 0 ? rule.scale : 1 / std::sqrt(static_cast<double>(dim));
        std::vector<double> row(task.n_heads * dim);
        for (std::size_t h = 0; h < task.n_heads; ++h) {
            const std::size_t from = h / (task.n_heads / task.n_kv_heads) * dim;
            std::vector<double> scores(n_visible);
            double top = -1e300;
            for (std::size_t j = first; j < n_visible; ++j) {
                for (std::size_t d = 0; d < dim; ++d)
                    scores[j] += queries[s][position][h * dim + d] * rounded_keys[s][j][from + d];
                scores[j] *= scale;
                if (rule.soft_cap > 0) scores[j] = rule.soft_cap * std::tanh(scores[j] / rule.soft_cap);
                top = std::max(top, scores[j]);
            }
            double total = 0;
            for (std::size_t j = first; j < n_visible; ++j) total += scores[j] = std::exp(scores[j] - top);
            for (std::size_t j = first; j < n_visible; ++j) {
                for (std::size_t d = 0; d < dim; ++d)
                    row[h * dim + d] += scores[j] / total * rounded_values[s][j][from + d];
            }
        }
        return row;
    }

    Desk& desk;
    AttentionCase task;
    KvCache cache;
    std::vector<Rows> queries, keys, values, out;
    std::vector<std::vector<std::vector<double>>> rounded_keys, rounded_values;
    std::vector<std::vector<BlockId>> blocks;
};

// Numbers that bf16 holds exactly.
Rows short_rows(std::size_t n, std::size_t width, float largest, std::uint32_t seed) {
    Rows rows = random_rows(n, width, largest, seed);
    for (auto& row : rows) {
        for (float& x : row) x = bf16_to_f32(f32_to_bf16(x));
    }
    return rows;
}

// A head's result for row t of the sequence of `n` rows from `first` on.
std::vector<double> expected_within(const Rows& q, const Rows& k, const Rows& v, std::size_t first,
                                    std::size_t n, std::size_t t, std::size_t at, std::size_t dim,
                                    double slope, std::size_t reach) {
    std::vector<double> out(dim);
    double total = 0;
    for (std::size_t j = 0; j < n; ++j) {
        const std::size_t distance = t > j ? t - j : j - t;
        if (reach > 0 && distance > reach) continue;
        double score = 0;
        for (std::size_t d = 0; d < dim; ++d) score += double{q[first + t][at + d]} * k[first + j][at + d];
        score = score / std::sqrt(static_cast<double>(dim)) - slope * static_cast<double>(distance);
        const double weight = std::exp(score);
        total += weight;
        for (std::size_t d = 0; d < dim; ++d) out[d] += weight * v[first + j][at + d];
    }
    for (double& x : out) x /= total;
    return out;
}

void attention_within(Desk& desk) {
    constexpr std::size_t kHeads = 3;
    const float slopes[kHeads] = {0.5f, 0.125f, 0.03f};
    const std::size_t lengths[] = {1, 32, 75, 7};
    const std::size_t n = 115;
    for (const std::size_t dim : {8, 20, 32, 64, 80}) {
        const std::size_t width = kHeads * dim;
        const Rows q = short_rows(n, width, 2, 81), k = short_rows(n, width, 2, 82),
                   v = short_rows(n, width, 2, 83);
        for (const auto& [is_sloped, reach] :
             {std::pair<bool, std::size_t>{false, 0}, {false, 9}, {true, 0}}) {
            Scoring scoring;
            if (is_sloped) scoring.slopes = slopes;
            scoring.reach = reach;
            std::vector<SequenceRows> sequences;
            std::vector<std::vector<double>> expected;
            std::size_t first = 0;
            for (const std::size_t length : lengths) {
                sequences.push_back({first, length, 0, {}});
                for (std::size_t t = 0; t < length; ++t) {
                    auto& row = expected.emplace_back();
                    for (std::size_t h = 0; h < kHeads; ++h) {
                        const auto head = expected_within(q, k, v, first, length, t, h * dim, dim,
                                                          is_sloped ? slopes[h] : 0, reach);
                        row.insert(row.end(), head.begin(), head.end());
                    }
                }
                first += length;
            }
            for (const Rounding rounding : {Rounding::fine, Rounding::coarse}) {
                Buffer out = desk.empty(n, width);
                desk.backend.attention_within(desk.fill(q), desk.fill(k), desk.fill(v), sequences, kHeads,
                                              out, scoring, rounding);
                // Weights in bf16 are off by one part in 512 at most; values reach 2.
                check_rows(desk, "attention within, heads of " + std::to_string(dim), desk.take(out, n),
                           expected, rounding == Rounding::fine ? 2e-5 : 4e-3, 0);
            }
        }
    }
}

void attention(Desk& desk) {
    std::vector<AttentionCase> cases;
    for (const bool causal : {false, true}) {
        for (const std::size_t dim : {16, 24, 40, 64, 80, 128}) cases.push_back({dim, 4, 2, causal, 1});
        cases.push_back({64, 9, 3, causal, 1});
        cases.push_back({32, 2, 2, causal, 1});
        cases.push_back({32, 16, 1, causal, 1});
        cases.push_back({64, 4, 4, causal, 8});
    }
    for (const std::size_t window : {1, 2, 7, 32, 33, 70})
        cases.push_back({32, 6, 2, true, 1, {0, 0, window}});
    cases.push_back({64, 4, 4, true, 4, {0.2f, 5, 0}});
    cases.push_back({64, 4, 2, true, 4, {0.2f, 5, 20}});
    for (const std::size_t dim : {16, 24, 64, 80, 128})
        cases.push_back({dim, 4, 2, true, 1, {}, CacheType::q8_0});
    for (const auto& c : cases) {
        Attention whole(desk, c);
        whole.feed(75, 33);
        for (std::size_t s = 0; s < 2; ++s) {
            std::vector<std::vector<double>> expected;
            for (std::size_t i = 0; i < Attention::kLengths[s]; ++i) expected.push_back(whole.expected(s, i));
            // Scores as large as the sharp case's carry the rounding of their own size into the exponent; a
            // value in the middle between two bytes may have gone the other way.
            const double tolerance = c.largest > 1 ? 1e-3 : c.type == CacheType::q8_0 ? 2e-3 : 2e-5;
            check_rows(desk, name_of(c), whole.out[s], expected, tolerance, 0);
        }
        if (!c.causal) continue;
        Attention sliced(desk, c);
        for (const auto& [n_first, n_second] : {std::pair(1, 5), {0, 1}, {30, 1}, {1, 0}, {7, 20}, {36, 6}})
            sliced.feed(static_cast<std::size_t>(n_first), static_cast<std::size_t>(n_second));
        CHECK(sliced.out == whole.out,
              std::string(desk.backend.instruction_set()) + " " + name_of(c) + " in slices");
    }
}

std::vector<double> normed(const std::vector<float>& x, const std::vector<float>& weight,
                           const std::vector<float>& bias, double epsilon) {
    double mean = 0;
    if (!bias.empty()) {
        for (const float v : x) mean += v / static_cast<double>(x.size());
    }
    double squares = 0;
    for (const float v : x) squares += (v - mean) * (v - mean) / static_cast<double>(x.size());
    std::vector<double> out;
    for (std::size_t i = 0; i < x.size(); ++i) {
        out.push_back((x[i] - mean) / std::sqrt(squares + epsilon) * weight[i] +
                      (bias.empty() ? 0 : bias[i]));
    }
    return out;
}

void norms(Desk& desk) {
    for (const std::size_t width : {1, 16, 33, 384, 1000}) {
        for (const float largest : {1e-3f, 1.0f, 1e4f}) {
            const Rows x = random_rows(3, width, largest, 50);
            const Rows factors = random_rows(2, width, 2, 51);
            std::vector<std::vector<double>> rms, layer;
            for (const auto& row : x) {
                rms.push_back(normed(row, factors[0], {}, 1e-6));
                layer.push_back(normed(row, factors[0], factors[1], 1e-6));
            }
            const Buffer in = desk.fill(x);
            Buffer out = desk.empty(3, width);
            desk.backend.rms_norm(in, 3, factors[0], 1e-6f, out);
            check_rows(desk, "rms_norm " + std::to_string(width), desk.take(out, 3), rms, 1e-5, 1e-5);
            desk.backend.layer_norm(in, 3, factors[0], factors[1], 1e-6f, out);
            check_rows(desk, "layer_norm " + std::to_string(width), desk.take(out, 3), layer, 1e-5, 1e-5);
        }
    }
    // One norm for each head of a row.
    const Rows heads = random_rows(2, 48, 1, 52);
    const Rows weight = random_rows(1, 16, 1, 53);
    Buffer in = desk.fill(heads);
    desk.backend.rms_norm(in, 2, weight[0], 1e-6f, in);
    std::vector<std::vector<double>> expected;
    for (const auto& row : heads) {
        auto& out = expected.emplace_back();
        for (std::size_t at = 0; at < 48; at += 16) {
            const auto head = normed({row.begin() + static_cast<std::ptrdiff_t>(at),
                                      row.begin() + static_cast<std::ptrdiff_t>(at + 16)},
                                     weight[0], {}, 1e-6);
            out.insert(out.end(), head.begin(), head.end());
        }
    }
    check_rows(desk, "rms_norm of heads", desk.take(in, 2), expected, 1e-5, 1e-5);
}

void activations(Desk& desk) {
    Rows x = random_rows(1, 3001, 12, 60);
    for (const float v : {0.0f, -0.0f, 1e-30f, -1e-30f, 100.0f, -100.0f, 1e4f, -1e4f, 88.5f, -88.5f})
        x[0].push_back(v);
    const Rows up = random_rows(1, x[0].size(), 2, 61);
    std::vector<double> gelu, silu, gated, capped, sum;
    for (std::size_t i = 0; i < x[0].size(); ++i) {
        const double v = x[0][i];
        gelu.push_back(v / 2 * (1 + std::erf(v / std::sqrt(2.0))));
        silu.push_back(v / (1 + std::exp(-v)) * up[0][i]);
        gated.push_back(
            v / 2 * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v))) * up[0][i]);
        capped.push_back(30 * std::tanh(v / 30));
        sum.push_back(v + up[0][i]);
    }
    Buffer values = desk.fill(x);
    desk.backend.gelu(values, 1);
    check_rows(desk, "gelu", desk.take(values, 1), {gelu}, 2e-6, 1e-6);
    Buffer out = desk.empty(1, x[0].size());
    desk.backend.silu_multiply(desk.fill(x), desk.fill(up), 1, out);
    check_rows(desk, "silu", desk.take(out, 1), {silu}, 1e-6, 1e-6);
    desk.backend.gelu_multiply(desk.fill(x), desk.fill(up), 1, out);
    check_rows(desk, "gelu times", desk.take(out, 1), {gated}, 2e-6, 2e-6);
    Buffer below_cap = desk.fill(x);
    desk.backend.soft_cap(below_cap, 1, 30);
    check_rows(desk, "soft cap", desk.take(below_cap, 1), {capped}, 1e-5, 1e-6);
    Buffer total = desk.fill(up);
    desk.backend.add(desk.fill(x), 1, total);
    check_rows(desk, "add", desk.take(total, 1), {sum}, 1e-6, 1e-6);
}

// Each row by the matrices of the experts that score highest, against sums over all of them.
void experts(Desk& desk) {
    constexpr std::size_t kExperts = 5, kUsed = 2, kTokens = 40, kRows = 20, kWidth = 32;
    for (const TensorType* type : {&types::f32, &types::q8_0}) {
        const Rows x = random_rows(kTokens, kWidth, 1, 80);
        const Rows scores = random_rows(kTokens, kExperts, 2, 81);
        Draft draft;
        draft.tensors.push_back({"w",
                                 {kWidth, kRows, kExperts},
                                 type->id,
                                 random_weights(*type, kExperts * kRows * kWidth, 1, std::mt19937(82)),
                                 {}});
        const GgufFile& file = desk.open(draft);
        const GgufTensor& tensor = *file.find_tensor("w");
        const Weight weight = desk.backend.load_experts(file, tensor);
        std::vector<float> w(kWidth);
        std::vector<std::vector<double>> expected(kTokens, std::vector<double>(kRows));
        for (std::size_t t = 0; t < kTokens; ++t) {
            double used = 0;
            for (int pass = 0; pass < 2; ++pass) {
                for (std::size_t e = 0; e < kExperts; ++e) {
                    const auto better = std::count_if(scores[t].begin(), scores[t].end(),
                                                      [&](float s) { return s > scores[t][e]; });
                    if (static_cast<std::size_t>(better) >= kUsed) continue;
                    const double share = std::exp(double{scores[t][e]});
                    if (pass == 0) used += share;
                    for (std::size_t r = 0; pass == 1 && r < kRows; ++r) {
                        GgufFile::read_row(tensor, e * kRows + r, w.data());
                        for (std::size_t k = 0; k < kWidth; ++k)
                            expected[t][r] += share / used * 0.5 * w[k] * x[t][k];
                    }
                }
            }
        }
        Routes routes;
        desk.backend.route(desk.fill(scores), kTokens, kUsed, true, 0.5f, routes);
        CHECK(routes.n_routed() == kTokens * kUsed);
        Buffer grouped = desk.empty(kTokens * kUsed, kWidth);
        Buffer given = desk.empty(kTokens * kUsed, kRows);
        Buffer out = desk.empty(kTokens, kRows);
        desk.backend.clear(out, kTokens);
        desk.backend.gather_routed(desk.fill(x), routes, grouped);
        desk.backend.matmul_routed(grouped, routes, {{&weight, &given}}, Rounding::fine);
        desk.backend.add_routed(given, routes, kTokens, out);
        check_rows(desk, std::string("experts ") + type->name, desk.take(out, kTokens), expected, 1e-3, 1e-3);
    }
}

void rotation(Desk& desk) {
    for (const auto& [head_dim, n_rotated] :
         {std::pair<std::size_t, std::size_t>{64, 64}, {24, 24}, {40, 10}, {80, 32}}) {
        const std::size_t half = n_rotated / 2;
        std::vector<double> frequencies;
        for (std::size_t i = 0; i < half; ++i)
            frequencies.push_back(std::pow(0.3, static_cast<double>(i) / 4));
        const std::size_t positions[] = {0, 1, 77, 100000};
        const Rows x = random_rows(4, 3 * head_dim, 1, 70);
        Buffer angles = desk.empty(4, n_rotated);
        std::vector<std::vector<double>> expected;
        for (std::size_t r = 0; r < 4; ++r) {
            desk.backend.set_angles(angles, r, positions[r], frequencies, 1.5);
            auto& row = expected.emplace_back(x[r].begin(), x[r].end());
            for (std::size_t at = 0; at < row.size(); at += head_dim) {
                for (std::size_t i = 0; i < half; ++i) {
                    const double angle = static_cast<double>(positions[r]) * frequencies[i];
                    const double a = x[r][at + i];
                    const double b = x[r][at + half + i];
                    row[at + i] = 1.5 * (a * std::cos(angle) - b * std::sin(angle));
                    row[at + half + i] = 1.5 * (a * std::sin(angle) + b * std::cos(angle));
                }
            }
        }
        Buffer turned = desk.fill(x);
        desk.backend.rotate(turned, 4, head_dim, angles);
        check_rows(desk, "rotate " + std::to_string(head_dim), desk.take(turned, 4), expected, 1e-6, 1e-6);
    }
}

double f16_by_definition(std::uint32_t h) {
    const int exponent = static_cast<int>(h >> 10 & 31);
    const double mantissa = h & 1023;
    const double sign = h & 0x8000 ? -1 : 1;
    if (exponent == 31) return mantissa == 0 ? sign * INFINITY : NAN;
    return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024 + mantissa, exponent - 25));
}

bool is_nan(std::uint32_t h) {
    return (h & 0x7fff) > 0x7c00;
}

void half_precision() {
    std::vector<float> all;
    for (std::uint32_t h = 0; h < 65536; ++h) {
        const float x = f16_to_f32(static_cast<std::uint16_t>(h));
        const double expected = f16_by_definition(h);
        CHECK(is_nan(h) ? std::isnan(x) : x == expected && std::signbit(x) == std::signbit(expected),
              std::to_string(h));
        const std::uint16_t back = f32_to_f16(x);
        CHECK(is_nan(h) ? is_nan(back) : back == h, std::to_string(h));
        all.push_back(x);
        const float b = bf16_to_f32(static_cast<std::uint16_t>(h));
        CHECK(std::bit_cast<std::uint32_t>(b) == h << 16);
    }
    // Half way between neighbours, and just to either side of it.
    std::vector<float> between;
    for (std::uint32_t h = 0; h < 0x7c00; ++h) {
        const float upper = h == 0x7bff ? 65536.0f : f16_to_f32(static_cast<std::uint16_t>(h + 1));
        const float middle = (f16_to_f32(static_cast<std::uint16_t>(h)) + upper) / 2;
        const std::uint32_t even = h % 2 == 0 ? h : h + 1;
        CHECK(f32_to_f16(middle) == even, "half way above " + std::to_string(h));
        CHECK(f32_to_f16(std::nextafter(middle, 0.0f)) == h);
        CHECK(f32_to_f16(std::nextafter(middle, 1e9f)) == h + 1);
        CHECK(f32_to_f16(-middle) == (even | 0x8000));
        for (const float x : {middle, std::nextafter(middle, 0.0f), -std::nextafter(middle, 1e9f)})
            between.push_back(x);
    }
    all.insert(all.end(), between.begin(), between.end());
    for (const float x : {1e30f, -1e30f, 1e-30f, -1e-30f, 65519.9f, 65520.0f}) all.push_back(x);
    for (const auto name : instruction_sets()) {
        std::vector<std::uint16_t> halves(all.size());
        kernels_for(name).to_f16(all.data(), all.size(), halves.data());
        for (std::size_t i = 0; i < all.size(); ++i) {
            const std::uint16_t expected = f32_to_f16(all[i]);
            CHECK(is_nan(expected) ? is_nan(halves[i]) : halves[i] == expected,
                  std::string(name) + " to_f16 of " + std::to_string(all[i]));
        }
    }
}

void instruction_sets_are_named() {
    const auto names = instruction_sets();
    CHECK(names.front() == "generic");
    CHECK(kernels_for("auto").name == names.back());
    CHECK_THROWS(kernels_for("sse9"), std::invalid_argument,
                 "'sse9' is not available; this processor runs generic");
}

}  // namespace

}  // namespace quarry::test

int main() {
    using namespace quarry::test;
    half_precision();
    instruction_sets_are_named();
    for (const auto name : quarry::instruction_sets()) {
        Desk desk(name);
        matmul(desk);
        projections_share_input(desk);
        broken_rows_harm_no_other(desk);
        attention(desk);
        attention_within(desk);
        experts(desk);
        norms(desk);
        activations(desk);
        rotation(desk);
    }
    return report("kernels");
}
