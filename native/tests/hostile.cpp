#include "hostile.h"

#include <array>
#include <ctime>
#include <new>
#include <stdexcept>
#include <system_error>

#include "causal_encoder.h"
#include "check.h"
#include "decoder.h"
#include "encoder.h"

namespace quarry::test {

namespace {

constexpr std::size_t kCacheTokens = 64;

std::array<std::int32_t, 3> three_tokens(std::size_t vocab_size) {
    const auto last = static_cast<std::int32_t>(vocab_size - 1);
    return {0, last, last / 2};
}

// Runs `body`; notes the reason where it refuses in a way that the headers promise.
template <class Body>
bool accepted(std::string& refusals, const Body& body) {
    std::string refusal;
    try {
        body();
        return true;
    } catch (const GgufError& error) {
        refusal = error.what();
    } catch (const std::invalid_argument& error) {
        refusal = error.what();
    } catch (const CacheFull& error) {
        refusal = error.what();
    } catch (const std::bad_alloc&) {
        refusal = "out of memory";
    } catch (const std::system_error& error) {
        refusal = error.what();
    }
    CHECK(!refusal.empty());
    refusals += refusal + '\n';
    return false;
}

void decode(const std::shared_ptr<const GgufFile>& file, const std::shared_ptr<Backend>& backend) {
    Decoder decoder(file, backend, kCacheTokens);
    const auto tokens = three_tokens(decoder.vocab_size());
    const std::size_t n = std::min(tokens.size(), decoder.context_length());
    SamplingParams params;
    params.n_logprobs = 2;
    const auto sequence = decoder.new_sequence(params, "tenant");
    const BatchEntry entry{sequence.get(), std::span(tokens).first(n), 1};
    const auto sampled = decoder.step({&entry, 1});
    CHECK(sampled.size() == 1 && sampled[0].size() == 1);
    CHECK(sampled[0][0].id >= 0 && static_cast<std::size_t>(sampled[0][0].id) < decoder.vocab_size());
}

void encode(const std::shared_ptr<const GgufFile>& file, const std::shared_ptr<Backend>& backend) {
    Encoder encoder(file, backend);
    const auto tokens = three_tokens(encoder.vocab_size());
    const auto sequence =
        std::span<const std::int32_t>(tokens).first(std::min(tokens.size(), encoder.context_length()));
    if (encoder.n_scores() > 0) {
        const EncoderInput pair{sequence, 1};
        CHECK(encoder.score({&pair, 1}).size() == encoder.n_scores());
    }
    if (encoder.pooling() != Pooling::rank)
        CHECK(encoder.encode({&sequence, 1}, true).size() == encoder.embedding_length());
}

void embed(const std::shared_ptr<const GgufFile>& file, const std::shared_ptr<Backend>& backend) {
    CausalEncoder encoder(file, backend);
    const auto tokens = three_tokens(encoder.vocab_size());
    const auto sequence =
        std::span<const std::int32_t>(tokens).first(std::min(tokens.size(), encoder.context_length()));
    CHECK(encoder.encode({&sequence, 1}, true).size() == encoder.embedding_length());
}

}  // namespace

Outcome read_hostile(const std::string& path, const std::shared_ptr<Backend>& backend) {
    const std::clock_t started = std::clock();
    Outcome outcome;
    std::shared_ptr<const GgufFile> file;
    if (accepted(outcome.refusal, [&] { file = std::make_shared<const GgufFile>(path); })) {
        for (const auto& tensor : file->tensors()) {
            std::string ignored;
            std::vector<float> row(tensor.width());
            accepted(ignored, [&] { GgufFile::read_row(tensor, tensor.rows() - 1, row.data()); });
        }
        outcome.decodes = accepted(outcome.refusal, [&] { decode(file, backend); });
        outcome.embeds = accepted(outcome.refusal, [&] { embed(file, backend); });
        outcome.encodes = accepted(outcome.refusal, [&] { encode(file, backend); });
    }
    // Processor time, which other programs on the machine do not lengthen.
    CHECK(std::clock() - started < CLOCKS_PER_SEC, "took a second: " + path);
    return outcome;
}

}  // namespace quarry::test
