// The operations that models are made of, on the CPU. Decoder and Encoder name buffers and weights, never
// addresses: what lies behind them may be another device's memory.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "cpu/kernels.h"
#include "gguf.h"
#include "kv_cache.h"
#include "memory.h"
#include "peaks.h"
#include "thread_pool.h"

namespace quarry {

// Activations [rows][width]; grows, never shrinks.
class Buffer {
  public:
    explicit Buffer(std::size_t width) : width_(width) {}
    std::size_t width() const { return width_; }

  private:
    friend class Backend;
    float* row(std::size_t i) const { return reinterpret_cast<float*>(memory_.data()) + i * width_; }
    std::size_t width_;
    std::size_t rows_ = 0;
    LazyMemory memory_;
};

// A matrix packed into tiles, [rows][width]; of experts, as many such matrices one after the other.
struct Weight {
    Layout layout = Layout::f32;
    std::size_t rows = 0;
    std::size_t width = 0;
    LazyMemory tiles;
    std::vector<float> bias;  // padded to whole tiles; empty where there is none
    std::string name{};       // of the tensor
};

// Hears of every product before it is computed.
class MatmulObserver {
  public:
    virtual ~MatmulObserver() = default;
    // x [n][width] is to be multiplied by matrix `part` of `weight`.
    virtual void see(const Weight& weight, std::size_t part, const float* x, std::size_t n,
                     std::size_t width) = 0;
};

// How rows of a projection are ordered in the file, within each head.
enum class RowOrder : std::uint8_t {
    halves,       // the two members of a rotary pair lie half the rotated width apart
    interleaved,  // they lie side by side; load() reorders them to halves
};

struct HeadShape {
    std::size_t head_dim;
    std::size_t n_rotated;          // leading dimensions that rotary embedding turns
    std::size_t file_dim = 0;       // rows that the file has for each head, where it has more; 0: head_dim
    std::size_t first_in_file = 0;  // of a head's rows in the file
};

// Quantised weights multiply activations rounded to 8 bits: coarse with a scale for each 64 of them, medium
// for each 32. Fine adds a second product, with what the rounding left over: about 15 bits, for the matrices
// whose input the result depends on most.
enum class Rounding : std::uint8_t { coarse, medium, fine };

struct Projection {
    const Weight* weight;
    Buffer* out;
    bool accumulate = false;
};

// How products of queries and keys become weights.
struct Scoring {
    float scale = 0;         // 0: 1 / sqrt(head_dim)
    float soft_cap = 0;      // scores become cap * tanh(score / cap); 0: they stay
    std::size_t window = 0;  // keys that a query sees, its own among them; 0: all before it
    std::size_t reach = 0;   // keys on either side that a query sees where attention is not causal; 0: all
    std::span<const float> slopes = {};  // of each query head: what a score loses for each place between
};

// Which rows of a batch go to which experts, and how much each result weighs.
class Routes {
  public:
    std::size_t n_routed() const { return rows_.size(); }

  private:
    friend class Backend;
    std::size_t n_used_ = 0;
    std::vector<std::size_t> first_;   // [experts + 1]: where the rows of each begin
    std::vector<std::size_t> rows_;    // [n * n_used], of the batch, grouped by expert
    std::vector<std::size_t> places_;  // [n][n_used]: where in rows_, in the order of the experts
    std::vector<float> weights_;       // [n][n_used]
};

// What a sequence's past has become in layers that keep no keys.
class RecurrentState {
  private:
    friend class Backend;
    std::vector<float> values_;
};

// Heads of the gated delta rule. Its input is [queries, keys, values] of all heads.
struct DeltaShape {
    std::size_t n_key_heads = 0;  // 0: there are none
    std::size_t n_value_heads = 0;
    std::size_t key_dim = 0;
    std::size_t value_dim = 0;
    std::size_t n_taps = 0;  // of the convolution before it

    std::size_t values() const { return n_value_heads * value_dim; }
    std::size_t mixed() const { return 2 * n_key_heads * key_dim + values(); }
    std::size_t history_size() const { return n_taps == 0 ? 0 : (n_taps - 1) * mixed(); }
    // Floats of a RecurrentState for each layer: the convolution's history, then a matrix for each head.
    std::size_t state_size() const { return history_size() + values() * key_dim; }
};

struct DeltaWeights {
    std::vector<float> rates;   // [n_value_heads], negative
    std::vector<float> biases;  // [n_value_heads]
};

// Tokens of one sequence in a batch.
struct SequenceRows {
    std::size_t first_row;
    std::size_t n_rows;
    std::size_t first_position;       // tokens of the sequence already in the cache
    std::span<const BlockId> blocks;  // enough for first_position + n_rows
    RecurrentState* state = nullptr;  // of models that have such
};

class Backend {
  public:
    // Throws: std::invalid_argument (unknown instruction set).
    Backend(std::size_t n_threads, std::string_view instruction_set);

    std::size_t n_threads() const { return pool_.size(); }
    const char* instruction_set() const { return kernels_.name; }
    // Held by a model while it computes: the threads serve one at a time.
    std::mutex& mutex() { return mutex_; }
    // nullptr ends it. Takes the mutex.
    void observe(std::shared_ptr<MatmulObserver> observer) {
        const std::lock_guard lock(mutex_);
        observer_ = std::move(observer);
    }
    // What the threads could do at most. Takes about a second.
    Peaks peaks() {
        const std::lock_guard lock(mutex_);
        return measure_peaks(pool_, kernels_);
    }

    bool is_observed() const { return observer_ != nullptr; }  // under the mutex

    // Calls body(item, thread) for each item, one thread an item: for whole runs of a model, each on a
    // backend of its own. What a call throws is thrown at the end.
    template <class Body>
    void each_apart(std::size_t n_items, const Body& body) {
        std::vector<std::exception_ptr> thrown(n_threads());
        pool_.parallel(n_items, [&](std::size_t item, std::size_t thread) {
            try {
                body(item, thread);
            } catch (...) {
                thrown[thread] = std::current_exception();
            }
        });
        for (const auto& what : thrown) {
            if (what != nullptr) std::rethrow_exception(what);
        }
    }

    Weight load(const GgufFile& file, const GgufTensor& tensor, RowOrder order = RowOrder::halves,
                HeadShape heads = {1, 0});
    // As load(), with weights of F16 or BF16 rounded for speed: `fine` to bf16, else to 8 bits; where the
    // width or the instruction set allows it.
    Weight load_rounded(const GgufFile& file, const GgufTensor& tensor, Rounding rounding);
    std::vector<float> load_vector(const GgufTensor& tensor) const;
    std::vector<float> load_bias(const GgufTensor& tensor, RowOrder order = RowOrder::halves,
                                 HeadShape heads = {1, 0}) const {
        return load_bias(tensor, 0, tensor.width(), order, heads);
    }
    // Of `n` rows from `first` on.
    std::vector<float> load_bias(const GgufTensor& tensor, std::size_t first, std::size_t n, RowOrder order,
                                 HeadShape heads) const;
    // A tensor of [experts][rows][width]. Throws: GgufError.
    Weight load_experts(const GgufFile& file, const GgufTensor& tensor);
    // Throws: GgufError where gather() could not read the rows of `table`.
    void check_readable(const GgufTensor& table) const;

    void reserve(Buffer& buffer, std::size_t rows) const;
    // Rows `ids` of `table` to those of `out` from `first_row` on; added to what is there where `accumulate`.
    void gather(const GgufTensor& table, std::span<const std::int32_t> ids, Buffer& out,
                bool accumulate = false, std::size_t first_row = 0);
    void select(const Buffer& x, std::span<const std::size_t> rows, Buffer& out) const;
    // Row i becomes the mean of the rows of sequence i.
    void average(const Buffer& x, std::span<const SequenceRows> sequences, Buffer& out) const;
    void read(const Buffer& x, std::size_t row, float* out) const;

    // Each out[i] = x[i] * weight^T (+ bias), for n rows; the projections share the preparation of x.
    void matmul(const Buffer& x, std::size_t n, std::initializer_list<Projection> projections,
                Rounding rounding = Rounding::medium);
    // Over consecutive segments of weight.size() values of each row.
    void rms_norm(const Buffer& x, std::size_t n, const std::vector<float>& weight, float epsilon,
                  Buffer& out);
    void layer_norm(const Buffer& x, std::size_t n, const std::vector<float>& weight,
                    const std::vector<float>& bias, float epsilon, Buffer& out);
    void silu_multiply(const Buffer& gate, const Buffer& up, std::size_t n, Buffer& out);
    // x[i] becomes x[i] * sigmoid(gate[i][0]).
    void sigmoid_scale(const Buffer& gate, std::size_t n, Buffer& x);
    void gelu_multiply(const Buffer& gate, const Buffer& up, std::size_t n, Buffer& out);
    void gelu(Buffer& x, std::size_t n);
    void tanh(Buffer& x, std::size_t n);
    void multiply(const Buffer& x, std::size_t n, Buffer& out);
    void add(const Buffer& x, std::size_t n, Buffer& out);
    void scale(Buffer& x, std::size_t n, float factor);
    void clear(Buffer& x, std::size_t n) const;
    // x becomes cap * tanh(x / cap).
    void soft_cap(Buffer& x, std::size_t n, float cap);
    // Turns the first angles.width() values of every head; angles [n][cosines then sines].
    void rotate(Buffer& x, std::size_t n, std::size_t head_dim, const Buffer& angles);
    void set_angles(Buffer& angles, std::size_t row, std::size_t position,
                    std::span<const double> frequencies, double magnitude) const;

    // Puts keys and values of the rows into the cache, then attends: out [n][n_query_heads * head_dim].
    void attention(const Buffer& queries, const Buffer& keys, const Buffer& values,
                   std::span<const SequenceRows> sequences, std::size_t n_query_heads, bool causal,
                   KvCache& cache, std::size_t layer, Buffer& out, const Scoring& scoring = {});

    // Every row of a sequence sees all others of it, or those within scoring.reach; nothing is cached. Where
    // rounding is coarse, inputs may be rounded to bf16.
    void attention_within(const Buffer& queries, const Buffer& keys, const Buffer& values,
                          std::span<const SequenceRows> sequences, std::size_t n_heads, Buffer& out,
                          const Scoring& scoring, Rounding rounding);

    // Experts. Chooses the n_used of highest score for each row; softmax of the scores weighs them.
    void route(const Buffer& scores, std::size_t n, std::size_t n_used, bool normalize, float scale,
               Routes& out) const;
    // The rows grouped by expert, [n_routed][width].
    void gather_routed(const Buffer& x, const Routes& routes, Buffer& out);
    // Each out[i] = x[i] * weight^T of the row's expert; x and outputs grouped by expert.
    void matmul_routed(const Buffer& x, const Routes& routes, std::initializer_list<Projection> projections,
                       Rounding rounding = Rounding::medium);
    // Adds to each row of `out` what its experts gave, weighed.
    void add_routed(const Buffer& x, const Routes& routes, std::size_t n, Buffer& out);

    // Recurrent layers. Forgets a sequence's past; `size` floats from now on.
    void reset(RecurrentState& state, std::size_t size) const;
    // silu of each column's sum over the last rows of its sequence; taps [n_taps][x.width()], oldest first.
    void convolve(const Buffer& x, std::span<const SequenceRows> sequences, const std::vector<float>& taps,
                  std::size_t state_offset, Buffer& out);
    // decays and rates [n][n_value_heads] before their activations; out [n][shape.values()].
    void gated_delta(const Buffer& mixed, const Buffer& decays, const Buffer& rates,
                     std::span<const SequenceRows> sequences, const DeltaShape& shape,
                     const DeltaWeights& weights, float epsilon, std::size_t state_offset, Buffer& out);
    // x becomes x * sigmoid(gate).
    void sigmoid_multiply(const Buffer& gate, std::size_t n, Buffer& x);

  private:
    // What a matmul's kernels read, made from its input.
    struct Prepared {
        std::vector<Chunk> chunks;
        LazyMemory memory;
    };
    // Rows [first, first + n) of x and of the outputs, by matrix `part` of the weights.
    void matmul_rows(const Buffer& x, std::size_t first, std::size_t n,
                     std::initializer_list<Projection> projections, Rounding rounding, std::size_t part);
    void prepare_floats(const Buffer& x, std::size_t first, std::size_t n);
    void prepare_pairs(const Buffer& x, std::size_t first, std::size_t n);
    // One matrix and its prepared input.
    struct Product {
        const Projection& to;
        std::size_t part;       // of a weight that holds several matrices
        std::size_t first_row;  // of the output
        const Prepared* x;
        const Prepared* residual;  // nullptr where rounding is coarse, or x holds both
        bool joined;               // x is one chunk: the rows, then what rounding left over of them
    };
    void multiply_tiles(const Product& product);
    void multiply_joined(const Product& product, MatmulTile kernel, const std::byte* tile,
                         const TileOutput& out) const;
    void multiply_panels(const Product& product);
    // To bytes_ and, where `fine`, what rounding left over of each chunk to residual_bytes_.
    void prepare_bytes(const float* x, std::size_t width, std::size_t n, Rounding rounding);
    // Both to one chunk of 2 n rows in bytes_.
    void prepare_joined(const float* x, std::size_t width, std::size_t n);
    void carve_bytes(std::size_t width, std::size_t n, std::size_t run_groups, Prepared& out);
    std::size_t n_chunks(std::size_t n) const { return (n + kernels_.max_chunk - 1) / kernels_.max_chunk; }
    // Calls body(row) or body(row, thread).
    template <class Body>
    void each_row(std::size_t n, std::size_t width, const Body& body) {
        const auto call = [&](std::size_t i, [[maybe_unused]] std::size_t thread) {
            if constexpr (std::is_invocable_v<Body, std::size_t, std::size_t>) {
                body(i, thread);
            } else {
                body(i);
            }
        };
        // Below this many values an operation is quicker on one thread than the others are woken.
        constexpr std::size_t kWorthThreads = 16384;
        if (n * width < kWorthThreads) {
            for (std::size_t i = 0; i < n; ++i) call(i, 0);
            return;
        }
        // Few enough pieces that taking one costs nothing, enough to keep the threads evenly busy.
        const std::size_t piece = std::max<std::size_t>(1, n / (8 * pool_.size()));
        pool_.parallel((n + piece - 1) / piece, [&](std::size_t p, std::size_t thread) {
            for (std::size_t i = p * piece; i < std::min(n, (p + 1) * piece); ++i) call(i, thread);
        });
    }

    const Kernels& kernels_;
    ThreadPool pool_;
    std::mutex mutex_;
    std::shared_ptr<MatmulObserver> observer_;
    Prepared floats_, bytes_, residual_bytes_, pairs_;
    // One a thread.
    std::vector<LazyMemory> leftovers_;  // [max_chunk][width], of prepare_joined() the rows before them
    std::vector<LazyMemory> scratch_;    // of attention
    std::vector<LazyMemory> panels_;
};

}  // namespace quarry
