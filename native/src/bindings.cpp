// Names, signatures and released GILs; documented in engine/_native.pyi.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/string_view.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/unique_ptr.h>
#include <nanobind/stl/unordered_map.h>
#include <nanobind/stl/vector.h>

#include "causal_encoder.h"
#include "decoder.h"
#include "encoder.h"
#include "importance.h"
#include "quantizer.h"

namespace nb = nanobind;
using namespace quarry;
using nb::literals::operator""_a;

namespace {

using TokenIds = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<const std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Importance = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<nb::numpy, float>;

std::span<const std::int32_t> span(const TokenIds& ids) {
    return {ids.data(), ids.size()};
}

// Hands the values over to a NumPy array without copying them.
Floats to_numpy(std::vector<float>&& values, std::initializer_list<std::size_t> shape) {
    auto* owner = new std::vector<float>(std::move(values));
    nb::capsule free(owner, [](void* p) noexcept { delete static_cast<std::vector<float>*>(p); });
    return Floats(owner->data(), shape, free);
}

nb::dict peaks(Backend& backend) {
    Peaks measured;
    {
        nb::gil_scoped_release released;
        measured = backend.peaks();
    }
    nb::dict out;
    out["int8"] = measured.int8;
    out["bf16"] = measured.bf16;
    out["fp32"] = measured.f32;
    out["read"] = measured.read;
    return out;
}

nb::object text(std::string_view value) {
    // Token texts may be any bytes; surrogateescape keeps them whole.
    PyObject* decoded =
        PyUnicode_DecodeUTF8(value.data(), static_cast<Py_ssize_t>(value.size()), "surrogateescape");
    if (decoded == nullptr) throw nb::python_error();
    return nb::steal(decoded);
}

template <class T, class Out = T>
nb::list numbers(const GgufArray& array) {
    nb::list out;
    for (std::size_t i = 0; i < array.count; ++i) {
        T value;
        std::memcpy(&value, array.raw.data() + i * sizeof(T), sizeof value);
        out.append(static_cast<Out>(value));
    }
    return out;
}

nb::list to_list(const GgufArray& array) {
    switch (array.type) {
        case ValueType::u8:
            return numbers<std::uint8_t, unsigned>(array);
        case ValueType::i8:
            return numbers<std::int8_t, int>(array);
        case ValueType::u16:
            return numbers<std::uint16_t>(array);
        case ValueType::i16:
            return numbers<std::int16_t>(array);
        case ValueType::u32:
            return numbers<std::uint32_t>(array);
        case ValueType::i32:
            return numbers<std::int32_t>(array);
        case ValueType::u64:
            return numbers<std::uint64_t>(array);
        case ValueType::i64:
            return numbers<std::int64_t>(array);
        case ValueType::f32:
            return numbers<float>(array);
        case ValueType::f64:
            return numbers<double>(array);
        case ValueType::boolean:
            return numbers<std::uint8_t, bool>(array);
        default:
            break;
    }
    nb::list out;
    for (const auto item : array.strings) out.append(text(item));
    return out;
}

nb::object get(const GgufFile& file, std::string_view key) {
    const auto found = file.values().find(key);
    if (found == file.values().end()) throw nb::key_error(std::string(key).c_str());
    const GgufValue& value = found->second;
    if (const auto* array = std::get_if<GgufArray>(&value)) return to_list(*array);
    if (const auto* string = std::get_if<std::string_view>(&value)) return text(*string);
    if (const auto* flag = std::get_if<bool>(&value)) return nb::bool_(*flag);
    if (const auto* real = std::get_if<double>(&value)) return nb::float_(*real);
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return nb::int_(*integer);
    return nb::int_(std::get<std::uint64_t>(value));
}

nb::list keys(const GgufFile& file) {
    nb::list out;
    for (const auto& [key, value] : file.values()) out.append(text(key));
    return out;
}

nb::list raw_values(const GgufFile& file) {
    nb::list out;
    for (const auto& [key, raw] : file.raw_values()) {
        out.append(nb::make_tuple(text(key), nb::bytes(raw.data(), raw.size())));
    }
    return out;
}

Floats row(const GgufFile& file, std::string_view name, std::uint64_t index) {
    const GgufTensor* tensor = file.find_tensor(name);
    if (tensor == nullptr) throw nb::key_error(std::string(name).c_str());
    if (index >= tensor->rows())
        throw nb::index_error(
            ("row " + std::to_string(index) + " of " + std::to_string(tensor->rows())).c_str());
    std::vector<float> values(tensor->width());
    GgufFile::read_row(*tensor, index, values.data());
    const std::size_t width = values.size();
    return to_numpy(std::move(values), {width});
}

std::size_t checked_threads(std::size_t n_threads) {
    constexpr std::size_t kMost = 256;
    if (n_threads < 1 || n_threads > kMost) {
        throw std::invalid_argument("n_threads is " + std::to_string(n_threads) + "; allowed are 1 to " +
                                    std::to_string(kMost));
    }
    return n_threads;
}

std::shared_ptr<Backend> make_backend(std::size_t n_threads, std::string_view instruction_set) {
    return std::make_shared<Backend>(checked_threads(n_threads), instruction_set);
}

std::unique_ptr<Quantizer> make_quantizer(std::shared_ptr<const GgufFile> file, std::size_t n_threads) {
    return std::make_unique<Quantizer>(std::move(file), checked_threads(n_threads));
}

std::vector<std::vector<SampledToken>> step(
    Decoder& decoder, const std::vector<std::tuple<Sequence*, TokenIds, std::size_t>>& batch) {
    std::vector<BatchEntry> entries;
    for (const auto& [sequence, tokens, n_outputs] : batch)
        entries.push_back({sequence, span(tokens), n_outputs});
    const nb::gil_scoped_release release;
    return decoder.step(entries);
}

std::unique_ptr<Decoder> make_decoder(std::shared_ptr<const GgufFile> file, std::shared_ptr<Backend> backend,
                                      std::size_t cache_tokens, std::string_view type) {
    return std::make_unique<Decoder>(std::move(file), std::move(backend), cache_tokens, cache_type(type));
}

bool restore(Sequence& sequence, const TokenIds& tokens, const Bytes& data) {
    return sequence.restore(span(tokens), std::as_bytes(std::span(data.data(), data.size())));
}

nb::bytes copy_block(const Sequence& sequence, std::size_t index) {
    const std::vector<std::byte> data = sequence.copy_block(index);
    return nb::bytes(data.data(), data.size());
}

void set_mask(Sequence& sequence, std::optional<Mask> allowed) {
    sequence.set_mask(allowed ? std::vector<std::uint32_t>(allowed->data(), allowed->data() + allowed->size())
                              : std::vector<std::uint32_t>{});
}

Floats next_logprobs(Decoder& decoder, const TokenIds& tokens, std::size_t first) {
    std::vector<float> values;
    {
        const nb::gil_scoped_release release;
        values = decoder.next_logprobs(span(tokens), first);
    }
    const std::size_t n = values.size();
    return to_numpy(std::move(values), {n});
}

// Name, width, sums of squares [parts * width], rows seen [parts].
nb::list importance_sums(const ImportanceCollector& collector) {
    nb::list out;
    for (const auto& [name, sums] : collector.sums()) {
        out.append(nb::make_tuple(text(name), sums.width, nb::cast(sums.squares), nb::cast(sums.counts)));
    }
    return out;
}

Floats logits(Decoder& decoder, const TokenIds& tokens) {
    std::vector<float> values;
    {
        const nb::gil_scoped_release release;
        values = decoder.logits(span(tokens));
    }
    return to_numpy(std::move(values), {tokens.size(), decoder.vocab_size()});
}

template <class Model>
Floats encode(Model& encoder, const std::vector<TokenIds>& batch, bool normalize) {
    std::vector<std::span<const std::int32_t>> sequences;
    for (const auto& ids : batch) sequences.push_back(span(ids));
    std::vector<float> values;
    {
        const nb::gil_scoped_release release;
        values = encoder.encode(sequences, normalize);
    }
    return to_numpy(std::move(values), {sequences.size(), encoder.embedding_length()});
}

Floats score(Encoder& encoder, const std::vector<std::pair<TokenIds, std::size_t>>& batch) {
    std::vector<EncoderInput> inputs;
    for (const auto& [ids, second_text] : batch) inputs.push_back({span(ids), second_text});
    std::vector<float> values;
    {
        const nb::gil_scoped_release release;
        values = encoder.score(inputs);
    }
    return to_numpy(std::move(values), {inputs.size(), encoder.n_scores()});
}

nb::bytes copied_rows(const Quantizer& quantizer, std::string_view tensor, std::size_t first, std::size_t n) {
    const auto bytes = quantizer.copy(tensor, first, n);
    return nb::bytes(bytes.data(), bytes.size());
}

nb::ndarray<nb::numpy, std::uint8_t> quantized_rows(Quantizer& quantizer, std::string_view tensor,
                                                    std::size_t first, std::size_t n, std::string_view type,
                                                    const std::optional<Importance>& importance) {
    std::vector<std::byte> bytes;
    {
        const nb::gil_scoped_release release;
        bytes = quantizer.rows(
            tensor, first, n, type,
            importance ? std::span(importance->data(), importance->size()) : std::span<const float>());
    }
    const std::size_t n_bytes = bytes.size();
    auto* owner = new std::vector<std::byte>(std::move(bytes));
    nb::capsule free(owner, [](void* p) noexcept { delete static_cast<std::vector<std::byte>*>(p); });
    return {owner->data(), {n_bytes}, free};
}

void bind_gguf(nb::module_& m) {
    nb::class_<GgufTensor>(m, "TensorInfo")
        .def_ro("name", &GgufTensor::name)
        .def_prop_ro("type", [](const GgufTensor& t) { return t.type->name; })
        .def_prop_ro("shape", [](const GgufTensor& t) { return nb::tuple(nb::cast(t.shape)); })
        .def_ro("offset", &GgufTensor::offset)
        .def_prop_ro("n_bytes", [](const GgufTensor& t) { return t.bytes.size(); });
    nb::class_<GgufFile>(m, "GgufFile")
        .def(nb::init<const std::string&>(), "path"_a)
        .def_prop_ro("version", &GgufFile::version)
        .def_prop_ro("n_bytes", &GgufFile::n_bytes)
        .def("keys", &keys)
        .def("get", &get, "key"_a)
        .def("tensors", &GgufFile::tensors)
        .def("raw_values", &raw_values)
        .def("row", &row, "tensor"_a, "index"_a);
    nb::class_<Quantizer>(m, "Quantizer")
        .def(nb::new_(&make_quantizer), "file"_a, "n_threads"_a)
        .def("copy", &copied_rows, "tensor"_a, "first"_a, "n"_a)
        .def("rows", &quantized_rows, "tensor"_a, "first"_a, "n"_a, "type"_a, "importance"_a.none());
}

void bind_sampling(nb::module_& m) {
    nb::class_<SamplingParams>(m, "SamplingParams")
        .def(
            "__init__",
            [](SamplingParams* self, float temperature, std::uint32_t top_k, float top_p, float min_p,
               float repetition_penalty, float frequency_penalty, float presence_penalty,
               std::int32_t penalty_window, std::uint64_t seed,
               std::unordered_map<std::int32_t, float> logit_bias, std::int32_t n_logprobs) {
                SamplingParams params{temperature,
                                      top_k,
                                      top_p,
                                      min_p,
                                      repetition_penalty,
                                      frequency_penalty,
                                      presence_penalty,
                                      penalty_window,
                                      seed,
                                      std::move(logit_bias),
                                      n_logprobs};
                params.check();
                new (self) SamplingParams(std::move(params));
            },
            nb::kw_only(), "temperature"_a = 1.0f, "top_k"_a = 0, "top_p"_a = 1.0f, "min_p"_a = 0.0f,
            "repetition_penalty"_a = 1.0f, "frequency_penalty"_a = 0.0f, "presence_penalty"_a = 0.0f,
            "penalty_window"_a = 64, "seed"_a = 0, "logit_bias"_a = std::unordered_map<std::int32_t, float>{},
            "n_logprobs"_a = -1);
    nb::class_<SampledToken>(m, "SampledToken")
        .def_ro("id", &SampledToken::id)
        .def_ro("logprob", &SampledToken::logprob)
        .def_ro("top_logprobs", &SampledToken::top_logprobs);
}

void bind_models(nb::module_& m) {
    nb::class_<MatmulObserver>(m, "MatmulObserver");
    nb::class_<ImportanceCollector, MatmulObserver>(m, "ImportanceCollector")
        .def(nb::init<>())
        .def("sums", &importance_sums);
    nb::class_<Backend>(m, "ThreadPool")
        .def(nb::new_(&make_backend), "n_threads"_a, "instruction_set"_a = "auto")
        .def("peaks", &peaks)
        .def_prop_ro("n_threads", &Backend::n_threads)
        .def_prop_ro("instruction_set", &Backend::instruction_set)
        .def("observe", &Backend::observe, "collector"_a.none(), nb::call_guard<nb::gil_scoped_release>());
    nb::class_<Sequence>(m, "Sequence")
        .def_prop_ro("n_cached", &Sequence::n_cached)
        .def_prop_ro("n_blocks", [](const Sequence& s) { return s.blocks().size(); })
        .def(
            "reuse", [](Sequence& s, const TokenIds& next) { return s.reuse(span(next)); }, "next_ids"_a)
        .def("restore", &restore, "token_ids"_a, "data"_a)
        .def("copy_block", &copy_block, "index"_a)
        .def("release", &Sequence::release)
        .def("set_mask", &set_mask, "allowed"_a.none());
    nb::class_<Decoder>(m, "Decoder")
        .def(nb::new_(&make_decoder), "file"_a, "pool"_a, nb::kw_only(), "cache_tokens"_a,
             "cache_type"_a = "f16", nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("architecture", &Decoder::architecture)
        .def_prop_ro("vocab_size", &Decoder::vocab_size)
        .def_prop_ro("context_length", &Decoder::context_length)
        .def_prop_ro("embedding_length", &Decoder::embedding_length)
        .def_prop_ro("is_recurrent", &Decoder::is_recurrent)
        .def_prop_ro("block_tokens", [](const Decoder&) { return kKeysPerBlock; })
        .def_prop_ro("n_blocks", [](const Decoder& d) { return d.cache().n_blocks(); })
        .def_prop_ro("n_free_blocks", [](const Decoder& d) { return d.prefixes().n_available(); })
        .def_prop_ro("n_kept_blocks", [](const Decoder& d) { return d.cache().n_kept(); })
        .def_prop_ro("block_bytes", [](const Decoder& d) { return d.cache().block_bytes(); })
        .def("forget_prefixes", [](Decoder& d) { d.prefixes().clear(); })
        .def_prop_ro("weight_bytes", &Decoder::weight_bytes)
        .def_prop_ro("cache_bytes", [](const Decoder& d) { return d.cache().n_bytes(); })
        .def("new_sequence", &Decoder::new_sequence, "sampling"_a, "tenant"_a = nb::none())
        .def("step", &step, "batch"_a)
        .def("logits", &logits, "token_ids"_a)
        .def("next_logprobs", &next_logprobs, "token_ids"_a, "first"_a);
    nb::class_<CausalEncoder>(m, "CausalEncoder")
        .def(nb::init<std::shared_ptr<const GgufFile>, std::shared_ptr<Backend>>(), "file"_a, "pool"_a,
             nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("architecture", &CausalEncoder::architecture)
        .def_prop_ro("vocab_size", &CausalEncoder::vocab_size)
        .def_prop_ro("context_length", &CausalEncoder::context_length)
        .def_prop_ro("embedding_length", &CausalEncoder::embedding_length)
        .def_prop_ro("pooling", [](const CausalEncoder& e) { return name_of(e.pooling()); })
        .def_prop_ro("weight_bytes", &CausalEncoder::weight_bytes)
        .def("encode", &encode<CausalEncoder>, "batch"_a, "normalize"_a = true);
    nb::class_<Encoder>(m, "Encoder")
        .def(nb::init<std::shared_ptr<const GgufFile>, std::shared_ptr<Backend>>(), "file"_a, "pool"_a,
             nb::call_guard<nb::gil_scoped_release>())
        .def_prop_ro("architecture", &Encoder::architecture)
        .def_prop_ro("vocab_size", &Encoder::vocab_size)
        .def_prop_ro("context_length", &Encoder::context_length)
        .def_prop_ro("embedding_length", &Encoder::embedding_length)
        .def_prop_ro("pooling", [](const Encoder& e) { return name_of(e.pooling()); })
        .def_prop_ro("n_scores", &Encoder::n_scores)
        .def_prop_ro("weight_bytes", &Encoder::weight_bytes)
        .def("encode", &encode<Encoder>, "batch"_a, "normalize"_a = true)
        .def("score", &score, "batch"_a);
}

}  // namespace

NB_MODULE(_native, m) {
    nb::exception<GgufError>(m, "GgufError", PyExc_ValueError);
    nb::exception<CacheFull>(m, "CacheFull", PyExc_RuntimeError);
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const std::system_error& error) {
            PyErr_SetObject(PyExc_OSError, nb::make_tuple(error.code().value(), error.what()).ptr());
        }
    });
    m.attr("encoder_architectures") = nb::cast(encoder_architectures());
    m.attr("type_names") = nb::cast(readable_type_names());
    m.def("instruction_sets", &instruction_sets);
    bind_gguf(m);
    bind_sampling(m);
    bind_models(m);
}
