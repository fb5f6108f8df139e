// Mutates GGUF files and reads each as the engine would: fuzz_gguf [files] [seed].
//
// The file at work stays on disk when the program dies under it; its path is printed first.
#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "check.h"
#include "gguf_draft.h"
#include "hostile.h"

namespace quarry::test {

namespace {

class Mutator {
  public:
    explicit Mutator(std::uint64_t seed) : random_(seed) {
        for (const TensorType* type : matrix_types()) {
            std::vector<Draft> drafts = tiny_encoders(*type);
            drafts.push_back(tiny_llama(*type));
            drafts.push_back(tiny_bert(*type));
            for (const Draft& draft : drafts) {
                originals_.push_back({draft.bytes(), draft.header().size()});
            }
        }
        for (const TensorType* type : {&types::f32, &types::q8_0}) {
            for (const Draft& draft : tiny_decoders(*type))
                originals_.push_back({draft.bytes(), draft.header().size()});
        }
    }

    std::string next() {
        const Original& original = originals_[below(originals_.size())];
        std::string bytes = original.bytes;
        const std::size_t n = 1 + below(4);
        for (std::size_t i = 0; i < n; ++i) mutate(bytes, original.n_header);
        return bytes;
    }

  private:
    struct Original {
        std::string bytes;
        std::size_t n_header;
    };

    std::size_t below(std::size_t n) { return n == 0 ? 0 : random_() % n; }

    // Mostly in the header, where the lengths are.
    std::size_t place(const std::string& bytes, std::size_t n_header) {
        return below(below(4) == 0 ? bytes.size() : std::min(n_header, bytes.size()));
    }

    void mutate(std::string& bytes, std::size_t n_header) {
        const std::size_t at = place(bytes, n_header);
        switch (below(7)) {
            case 0:
                if (!bytes.empty()) bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
                break;
            case 1:
                if (!bytes.empty()) bytes[at] = static_cast<char>(random_());
                break;
            case 2:
                overwrite(bytes, at, below(2) == 0 ? 4 : 8);
                break;
            case 3:  // a piece of another file, in place
            {
                const std::string& other = originals_[below(originals_.size())].bytes;
                const std::size_t from = below(other.size());
                const std::size_t n = std::min({below(200), other.size() - from, bytes.size() - at});
                bytes.replace(at, n, other, from, n);
                break;
            }
            case 4:  // a piece of this file, inserted
            {
                const std::string piece = bytes.substr(place(bytes, n_header), below(64));
                bytes.insert(at, piece);
                break;
            }
            case 5:
                bytes.erase(at, 1 + below(32));
                break;
            default:
                if (below(4) == 0) bytes.resize(at);
                break;
        }
    }

    void overwrite(std::string& bytes, std::size_t at, std::size_t width) {
        const std::uint64_t interesting[] = {
            0,          1,          2,          3,          31,         33,          64,         255,
            65535,      1ull << 20, 1ull << 24, 0x7fffffff, 1ull << 31, 0xffffffff,  1ull << 32, 1ull << 40,
            1ull << 61, 1ull << 62, 1ull << 63, ~0ull,      0x7f800000, 0x7fc000000, random_()};
        const std::string number = raw(interesting[below(std::size(interesting))]);
        if (at + width <= bytes.size()) bytes.replace(at, width, number, 0, width);
    }

    std::mt19937_64 random_;
    std::vector<Original> originals_;
};

}  // namespace

}  // namespace quarry::test

int main(int argc, char** argv) {
    using namespace quarry::test;
    const long n_files = argc > 1 ? std::stol(argv[1]) : 500;
    const auto seed = static_cast<std::uint64_t>(argc > 2 ? std::stol(argv[2]) : 1);
    const TemporaryFile file("fuzz-gguf");
    std::printf("%ld files from seed %llu through %s\n", n_files, static_cast<unsigned long long>(seed),
                file.path().c_str());
    std::fflush(stdout);
    Mutator mutator(seed);
    std::vector<std::shared_ptr<quarry::Backend>> backends;
    for (const auto name : quarry::instruction_sets())
        backends.push_back(std::make_shared<quarry::Backend>(2, name));
    long n_served = 0;
    for (long i = 0; i < n_files; ++i) {
        file.write(mutator.next());
        const auto outcome =
            read_hostile(file.path(), backends[static_cast<std::size_t>(i) % backends.size()]);
        n_served += outcome.decodes || outcome.encodes;
    }
    std::printf("%ld served, %ld refused\n", n_served, n_files - n_served);
    // A mutator that hits nothing, or everything, tests nothing.
    CHECK(n_files < 100 || (n_served > n_files / 20 && n_served < n_files * 19 / 20));
    return report("fuzz_gguf");
}
