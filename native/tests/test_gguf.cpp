// The reader against files made by hand: right ones compute, hostile ones are refused with a reason or
// served.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>

#include "check.h"
#include "decoder.h"
#include "encoder.h"
#include "gguf_draft.h"
#include "hostile.h"

namespace quarry::test {

namespace {

std::vector<Draft> tiny_models() {
    std::vector<Draft> models = tiny_encoders(types::q8_0);
    models.push_back(tiny_llama(types::q8_0));
    models.push_back(tiny_bert(types::q4_1));
    return models;
}

// A place to put cases, and what became of them.
struct Bench {
    TemporaryFile file{"test-gguf"};
    std::shared_ptr<Backend> backend = std::make_shared<Backend>(2, "auto");
    int n_cases = 0;

    Outcome read(std::string_view bytes) {
        ++n_cases;
        file.write(bytes);
        return read_hostile(file.path(), backend);
    }
    void refused(const Draft& draft, const std::string& part) {
        const Outcome outcome = read(draft.bytes());
        CHECK(!outcome.decodes && !outcome.encodes, "loaded, but should say " + part);
        CHECK(outcome.refusal.find(part) != std::string::npos,
              "expected '" + part + "', got '" + outcome.refusal + "'");
    }
};

void right_files_compute(Bench& bench) {
    for (const TensorType* type : matrix_types()) {
        const Outcome llama = bench.read(tiny_llama(*type).bytes());
        CHECK(llama.decodes && !llama.encodes, std::string(type->name) + ": " + llama.refusal);
        const Outcome bert = bench.read(tiny_bert(*type).bytes());
        CHECK(bert.encodes && !bert.decodes, std::string(type->name) + ": " + bert.refusal);
        for (const Draft& draft : tiny_encoders(*type)) {
            const Outcome encoder = bench.read(draft.bytes());
            CHECK(encoder.encodes && !encoder.decodes, std::string(type->name) + ": " + encoder.refusal);
        }
    }
    for (const TensorType* type : {&types::f32, &types::q8_0}) {
        for (const Draft& decoder : tiny_decoders(*type)) {
            const Outcome outcome = bench.read(decoder.bytes());
            CHECK(outcome.decodes && !outcome.encodes, outcome.refusal);
        }
    }
    Draft draft = tiny_llama(types::q8_0);
    draft.version = 2;
    CHECK(bench.read(draft.bytes()).decodes);
}

void values_read_back(Bench& bench) {
    Draft draft;
    draft.keys.push_back({"u8", scalar(ValueType::u8, std::uint8_t{200})});
    draft.keys.push_back({"i8", scalar(ValueType::i8, std::int8_t{-5})});
    draft.keys.push_back({"u16", scalar(ValueType::u16, std::uint16_t{60000})});
    draft.keys.push_back({"i16", scalar(ValueType::i16, std::int16_t{300})});
    draft.keys.push_back({"i32", scalar(ValueType::i32, std::int32_t{70000})});
    draft.keys.push_back({"u64", scalar(ValueType::u64, std::uint64_t{1} << 40)});
    draft.keys.push_back({"i64", scalar(ValueType::i64, std::int64_t{1} << 41)});
    draft.keys.push_back({"f32", f32(0.5f)});
    draft.keys.push_back({"f64", scalar(ValueType::f64, 0.25)});
    draft.keys.push_back({"yes", {ValueType::boolean, std::string(1, '\1')}});
    draft.keys.push_back({"text", text("words")});
    draft.keys.push_back({"empty", text("")});
    bench.file.write(draft.bytes());
    const GgufFile file(bench.file.path());
    CHECK(file.integer("u8", 0, 255) == 200);
    CHECK(file.integer("u16", 0, 65535) == 60000);
    CHECK(file.integer("i16", 0, 1000) == 300);
    CHECK(file.integer("i32", 0, 100000) == 70000);
    CHECK(file.integer("u64", 0, std::uint64_t{1} << 62) == std::uint64_t{1} << 40);
    CHECK(file.integer("i64", 0, std::uint64_t{1} << 62) == std::uint64_t{1} << 41);
    CHECK(file.real("f32", 0, 1) == 0.5 && file.real("f64", 0, 1) == 0.25);
    CHECK(file.boolean("yes", false) && file.string("text") == "words" && file.string("empty").empty());
    CHECK(file.integer("absent", 1, 9, 7) == 7 && file.real("absent", 0, 9, 3) == 3);
    CHECK(file.string("absent", "else") == "else" && file.boolean("absent", true));
    CHECK_THROWS(file.integer("i8", 0, 100), GgufError, "key 'i8' is -5; allowed are 0 to 100");
    CHECK_THROWS(file.integer("u8", 0, 100), GgufError, "key 'u8' is 200; allowed are 0 to 100");
    CHECK_THROWS(file.integer("text", 0, 100), GgufError, "key 'text' is not an integer");
    CHECK_THROWS(file.integer("absent", 0, 100), GgufError, "key 'absent' is missing");
    CHECK_THROWS(file.real("u8", 0, 1), GgufError, "key 'u8' is not a floating-point number");
    CHECK_THROWS(file.boolean("u8", true), GgufError, "key 'u8' is not a bool");
    CHECK_THROWS(file.string("u8"), GgufError, "key 'u8' is not a string");
}

// What a key may hold instead of what it should.
std::vector<DraftValue> wrong_values(const DraftValue& right) {
    std::vector<DraftValue> all;
    for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{3}, std::uint64_t{65},
                                  std::uint64_t{1} << 24, std::uint64_t{1} << 31, ~std::uint64_t{0}}) {
        all.push_back(u32(static_cast<std::uint32_t>(n)));
        all.push_back(scalar(ValueType::u64, n));
    }
    for (const std::int64_t n : {std::int64_t{-1}, std::numeric_limits<std::int64_t>::min(),
                                 std::numeric_limits<std::int64_t>::max()}) {
        all.push_back(scalar(ValueType::i64, n));
        all.push_back(scalar(ValueType::i32, static_cast<std::int32_t>(n)));
        all.push_back(scalar(ValueType::i8, static_cast<std::int8_t>(n)));
    }
    using Real = std::numeric_limits<double>;
    for (const double x : {0.0, -0.0, -1.0, 1e300, Real::max(), Real::denorm_min(), Real::infinity(),
                           -Real::infinity(), Real::quiet_NaN()}) {
        all.push_back(f32(static_cast<float>(x)));
        all.push_back(scalar(ValueType::f64, x));
    }
    for (const int flag : {0, 1, 2, 255})
        all.push_back({ValueType::boolean, std::string(1, static_cast<char>(flag))});
    all.push_back(text(""));
    all.push_back(text(std::string(3, '\xff')));
    all.push_back(text(std::string(100000, 'x')));
    all.push_back({ValueType::string, raw(~std::uint64_t{0})});
    all.push_back({ValueType::string, raw(std::uint64_t{1} << 32)});
    for (const auto type :
         {ValueType::u8, ValueType::u32, ValueType::f32, ValueType::string, ValueType::u64}) {
        all.push_back(array(type, 0, ""));
        all.push_back(array(type, 2, std::string(16, '\0')));
        all.push_back(array(type, ~std::uint64_t{0}, ""));
        all.push_back(array(type, std::uint64_t{1} << 61, std::string(16, '\0')));
    }
    all.push_back(array(ValueType::array, 1, array(ValueType::u8, 1, "x").bytes));
    all.push_back(array(static_cast<ValueType>(99), 1, "x"));
    all.push_back({static_cast<ValueType>(13), right.bytes});
    all.push_back({static_cast<ValueType>(~0u), right.bytes});
    // The right bytes under every other type, and cut short.
    for (std::uint32_t type = 0; type <= 12; ++type)
        all.push_back({static_cast<ValueType>(type), right.bytes});
    all.push_back({right.type, right.bytes.substr(0, right.bytes.size() / 2)});
    all.push_back({right.type, ""});
    return all;
}

// Whether `name` is read as a llama's is, of which everything is tried.
template <class Entries>
bool is_as_in_llama(const Entries& of_llama, const std::string& name) {
    const std::string part = name.substr(name.find('.'));
    return std::any_of(of_llama.begin(), of_llama.end(),
                       [&](const auto& entry) { return entry.name.ends_with(part); });
}

void hostile_keys(Bench& bench) {
    std::vector<Draft> models = tiny_models();
    const std::size_t n_whole = models.size();
    for (auto& draft : tiny_decoders(types::q8_0)) models.push_back(std::move(draft));
    const Draft llama = tiny_llama(types::q8_0);
    for (std::size_t m = 0; m < models.size(); ++m) {
        const Draft& model = models[m];
        for (std::size_t k = 0; k < model.keys.size(); ++k) {
            if (m >= n_whole && is_as_in_llama(llama.keys, model.keys[k].name)) continue;
            for (const auto& value : wrong_values(model.keys[k].value)) {
                Draft draft = model;
                draft.keys[k].value = value;
                bench.read(draft.bytes());
            }
            Draft without = model;
            without.keys.erase(without.keys.begin() + static_cast<std::ptrdiff_t>(k));
            bench.read(without.bytes());
            Draft twice = model;
            twice.keys.push_back(model.keys[k]);
            bench.refused(twice, "occurs twice");
        }
    }
}

void refusals_name_the_key() {
    Bench bench;
    const auto changed = [](const char* key, const DraftValue& value) {
        Draft draft = tiny_llama(types::q8_0);
        draft.key(key).value = value;
        return draft;
    };
    bench.refused(changed("general.architecture", text("unknown-thing")), "'unknown-thing' is not supported");
    bench.refused(changed("llama.embedding_length", u32(0)), "'llama.embedding_length' is 0; allowed are 1");
    bench.refused(changed("llama.block_count", scalar(ValueType::i32, -1)), "'llama.block_count' is -1");
    bench.refused(changed("llama.block_count", u32(2)), "'blk.1.attn_norm.weight' is missing");
    bench.refused(changed("llama.embedding_length", u32(64)), "'token_embd.weight' has shape 32 x 64");
    bench.refused(changed("llama.attention.head_count", text("2")), "is not an integer");
    bench.refused(changed("llama.attention.head_count_kv", u32(3)), "'llama.attention.head_count_kv' is 3");
    bench.refused(changed("llama.rope.dimension_count", u32(15)), "odd");
    bench.refused(changed("llama.attention.layer_norm_rms_epsilon", f32(NAN)), "epsilon' is nan");
    bench.refused(changed("llama.rope.scaling.type", text("other")), "'other'; supported are none, linear");
    for (const std::uint32_t alignment : {0u, 3u, 1u << 20}) {
        bench.refused(changed("general.alignment", u32(alignment)), "general.alignment");
    }
    Draft unknown_pooling = tiny_bert(types::f32);
    unknown_pooling.key("bert.pooling_type").value = u32(9);
    bench.refused(unknown_pooling, "'bert.pooling_type' is 9; supported are 1 (mean), 2 (cls), 3 (last)");
    const auto encoder = [](std::size_t which, const char* key, const DraftValue& value) {
        Draft draft = tiny_encoders(types::q8_0)[which];
        draft.key(key).value = value;
        return draft;
    };
    bench.refused(encoder(1, "nomic-bert.rope.scaling.type", text("yarn")), "'yarn'; supported is none");
    bench.refused(encoder(1, "nomic-bert.attention.head_count", u32(32)), "rotary positions need an even");
    bench.refused(encoder(3, "modern-bert.hidden_activation", text("silu")), "'silu'; supported is gelu");
    bench.refused(encoder(3, "quarry.classifier.pooling", text("max")), "supported are cls and mean");
    bench.refused(encoder(3, "modern-bert.attention.sliding_window_pattern", u32(0)), "is 0; allowed are 1");
}

void hostile_tensors(Bench& bench) {
    constexpr std::uint64_t kHuge = ~std::uint64_t{0};
    const std::uint64_t numbers[] = {
        0,          1,          2,          31,         33,         std::uint64_t{1} << 20,
        1ull << 32, 1ull << 61, 1ull << 62, 1ull << 63, kHuge / 32, kHuge};
    std::vector<Draft> models = tiny_models();
    const std::size_t n_whole = models.size();
    for (auto& draft : tiny_decoders(types::q8_0)) models.push_back(std::move(draft));
    const Draft llama = tiny_llama(types::q8_0);
    for (std::size_t m = 0; m < models.size(); ++m) {
        const Draft& model = models[m];
        for (std::size_t t = 0; t < model.tensors.size(); ++t) {
            if (m >= n_whole && is_as_in_llama(llama.tensors, model.tensors[t].name)) continue;
            const auto with = [&](const std::function<void(DraftTensor&)>& change) {
                Draft draft = model;
                change(draft.tensors[t]);
                bench.read(draft.bytes());
            };
            for (const std::uint64_t n : numbers) {
                with([&](DraftTensor& tensor) { tensor.offset = n; });
                with([&](DraftTensor& tensor) { tensor.offset = n / 32 * 32; });
                for (std::size_t d = 0; d < model.tensors[t].shape.size(); ++d)
                    with([&](DraftTensor& tensor) { tensor.shape[d] = n; });
                with([&](DraftTensor& tensor) { tensor.shape.push_back(n); });
                with([&](DraftTensor& tensor) { tensor.shape.assign(4, n); });
            }
            for (std::uint32_t type = 0; type < 45; ++type)
                with([&](DraftTensor& tensor) { tensor.type = type; });
            with([&](DraftTensor& tensor) { tensor.type = ~0u; });
            with([&](DraftTensor& tensor) { tensor.shape.clear(); });
            with([&](DraftTensor& tensor) { tensor.shape.assign(5, 1); });
            with([&](DraftTensor& tensor) { tensor.name.clear(); });
            with([&](DraftTensor& tensor) { tensor.name = std::string(70000, 'n'); });
            with([&](DraftTensor& tensor) { tensor.bytes.resize(tensor.bytes.size() / 2); });
            for (const char byte : {'\0', '\x7f', '\x80', '\xff'})
                with([&](DraftTensor& tensor) { tensor.bytes.assign(tensor.bytes.size(), byte); });
            Draft without = model;
            without.tensors.erase(without.tensors.begin() + static_cast<std::ptrdiff_t>(t));
            bench.read(without.bytes());
            Draft twice = model;
            twice.tensors.push_back(model.tensors[t]);
            bench.refused(twice, "occurs twice");
        }
    }
}

void refusals_name_the_tensor() {
    Bench bench;
    const auto changed = [](const std::function<void(DraftTensor&)>& change) {
        Draft draft = tiny_llama(types::q8_0);
        change(draft.tensor("blk.0.attn_q.weight"));
        return draft;
    };
    const std::string tensor = "tensor 'blk.0.attn_q.weight' ";
    bench.refused(changed([](DraftTensor& t) { t.type = 4; }), tensor + "has the unknown tensor type 4");
    bench.refused(changed([](DraftTensor& t) { t.type = 24; }), "has type I8, which this engine cannot");
    bench.refused(changed([](DraftTensor& t) { t.offset = 1 << 30; }), tensor + "needs 1088 bytes at offset");
    bench.refused(changed([](DraftTensor& t) { t.offset = 1; }), "no multiple of the alignment 32");
    bench.refused(changed([](DraftTensor& t) { t.shape = {33, 32}; }), "impossible shape 33 x 32");
    bench.refused(changed([](DraftTensor& t) { t.shape = {32, 1ull << 62}; }), "impossible shape");
    bench.refused(changed([](DraftTensor& t) { t.shape.assign(5, 1); }), tensor + "has 5 dimensions");
    bench.refused(changed([](DraftTensor& t) { t.shape = {32, 16}; }), "has shape 32 x 16; expected 32 x 32");
    bench.refused(changed([](DraftTensor& t) { t.name = "other"; }), tensor + "is missing");
    Draft foreign = tiny_llama(types::q8_0);
    foreign.tensors.push_back(foreign.tensor("blk.0.attn_norm.weight"));
    foreign.tensors.back().name = "blk.0.attn_sinks.weight";
    bench.refused(foreign, "tensor 'blk.0.attn_sinks.weight' is not one that a llama has");
}

void hostile_headers(Bench& bench) {
    for (const Draft& model : tiny_models()) {
        for (const std::uint32_t version : {0u, 1u, 4u, 3u << 24, ~0u}) {
            Draft draft = model;
            draft.version = version;
            bench.refused(draft, "version " + std::to_string(version));
        }
        for (const std::uint64_t n : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1000},
                                      std::uint64_t{1} << 40, ~std::uint64_t{0}}) {
            Draft draft = model;
            draft.n_tensors = n;
            bench.read(draft.bytes());
            draft.n_keys = n;
            bench.read(draft.bytes());
            draft.n_tensors.reset();
            bench.read(draft.bytes());
        }
        Draft foreign = model;
        foreign.magic = "GGML";
        bench.refused(foreign, "does not start with 'GGUF'");
        const std::string whole = model.bytes();
        const std::size_t n_header = model.header().size();
        for (std::size_t n = 0; n < n_header; ++n) {
            const Outcome outcome = bench.read(std::string_view(whole).substr(0, n));
            CHECK(!outcome.decodes && !outcome.encodes, "cut after " + std::to_string(n) + " bytes");
        }
        for (std::size_t n = n_header; n < whole.size(); n += 61) {
            const Outcome outcome = bench.read(std::string_view(whole).substr(0, n));
            CHECK(!outcome.decodes && !outcome.encodes, "cut after " + std::to_string(n) + " bytes");
        }
    }
    CHECK(bench.read("").refusal.find("is empty") != std::string::npos);
    const std::string folder = std::filesystem::temp_directory_path().string();
    CHECK(!read_hostile(folder, bench.backend).refusal.empty());
    CHECK(!read_hostile("/dev/null", bench.backend).refusal.empty());
    CHECK(!read_hostile(bench.file.path() + ".absent", bench.backend).refusal.empty());
    CHECK_THROWS(GgufFile(folder), GgufError, "is not a regular file");
    CHECK_THROWS(GgufFile(bench.file.path() + ".absent"), std::system_error, "No such file");
}

}  // namespace

}  // namespace quarry::test

int main() {
    using namespace quarry::test;
    Bench bench;
    right_files_compute(bench);
    values_read_back(bench);
    refusals_name_the_key();
    refusals_name_the_tensor();
    hostile_keys(bench);
    hostile_tensors(bench);
    hostile_headers(bench);
    std::printf("%d files\n", bench.n_cases);
    return report("gguf");
}
