#include "gguf_draft.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

namespace quarry::test {

namespace {

constexpr std::uint64_t kVocabulary = 64, kContext = 64;

// Sizes of a tiny model: the smallest that the blocks of its matrices allow.
struct Sizes {
    explicit Sizes(const TensorType& matrix) : width(std::max<std::uint64_t>(32, matrix.block_weights)) {}
    std::uint64_t width;
    std::uint64_t feed_forward = 2 * width;
    std::uint64_t head_dim = width / 2;  // two heads
};

// A generator of its own for each tensor, so that models do not change with the order of their tensors.
std::mt19937 generator(std::string_view name) {
    std::uint32_t seed = 2166136261u;
    for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 16777619u;
    return std::mt19937(seed);
}

void add_matrix(Draft& draft, const std::string& name, const TensorType& type, std::uint64_t rows,
                std::uint64_t width) {
    draft.tensors.push_back(
        {name, {width, rows}, type.id, random_weights(type, rows * width, 0.1f, generator(name)), {}});
}

void add_vector(Draft& draft, const std::string& name, std::uint64_t n) {
    draft.tensors.push_back(
        {name, {n}, types::f32.id, random_weights(types::f32, n, 0.1f, generator(name)), {}});
}

void add_sizes(Draft& draft, const std::string& prefix, const Sizes& sizes) {
    draft.keys.push_back({prefix + "context_length", u32(kContext)});
    draft.keys.push_back({prefix + "embedding_length", u32(static_cast<std::uint32_t>(sizes.width))});
    draft.keys.push_back({prefix + "block_count", u32(1)});
    draft.keys.push_back(
        {prefix + "feed_forward_length", u32(static_cast<std::uint32_t>(sizes.feed_forward))});
    draft.keys.push_back({prefix + "attention.head_count", u32(2)});
}

void add_vocabulary(Draft& draft) {
    std::string items;
    for (std::uint64_t i = 0; i < kVocabulary; ++i)
        items += text(std::string(1, 't').append(std::to_string(i))).bytes;
    draft.keys.push_back({"tokenizer.ggml.tokens", array(ValueType::string, kVocabulary, items)});
    std::string kinds;
    for (std::uint64_t i = 0; i < kVocabulary; ++i) kinds += raw(std::int32_t{1});
    draft.keys.push_back({"tokenizer.ggml.token_type", array(ValueType::i32, kVocabulary, kinds)});
}

}  // namespace

std::string random_weights(const TensorType& type, std::uint64_t n, float largest, std::mt19937 random) {
    constexpr std::size_t kBlocks = 200;
    std::vector<std::string> blocks;
    std::vector<float> values(type.block_weights);
    while (blocks.size() < std::min<std::uint64_t>(kBlocks, n / type.block_weights)) {
        std::string block(type.block_bytes, '\0');
        for (auto& byte : block) byte = static_cast<char>(random());
        type.dequantize(reinterpret_cast<const std::byte*>(block.data()), values.size(), values.data());
        float top = 0;
        for (const float x : values) top = std::isfinite(x) ? std::max(top, std::fabs(x)) : INFINITY;
        if (top > largest / 20 && top < largest) blocks.push_back(block);
    }
    std::string bytes;
    for (std::uint64_t b = 0; b < n / type.block_weights; ++b) bytes += blocks[random() % blocks.size()];
    return bytes;
}

std::vector<const TensorType*> matrix_types() {
    std::vector<const TensorType*> all;
    for (std::uint32_t id = 0; id < 256; ++id) {
        const TensorType* type = find_tensor_type(id);
        if (type != nullptr && type->pack != nullptr) all.push_back(type);
    }
    return all;
}

DraftValue u32(std::uint32_t value) {
    return scalar(ValueType::u32, value);
}

DraftValue f32(float value) {
    return scalar(ValueType::f32, value);
}

DraftValue text(std::string_view value) {
    return {ValueType::string, raw(std::uint64_t{value.size()}) + std::string(value)};
}

DraftValue array(ValueType type, std::uint64_t count, std::string_view bytes) {
    return {ValueType::array, raw(static_cast<std::uint32_t>(type)) + raw(count) + std::string(bytes)};
}

DraftKey& Draft::key(std::string_view name) {
    for (auto& key : keys) {
        if (key.name == name) return key;
    }
    throw std::out_of_range(std::string(name));
}

DraftTensor& Draft::tensor(std::string_view name) {
    for (auto& tensor : tensors) {
        if (tensor.name == name) return tensor;
    }
    throw std::out_of_range(std::string(name));
}

std::string Draft::header() const {
    std::string out =
        magic + raw(version) + raw(n_tensors.value_or(tensors.size())) + raw(n_keys.value_or(keys.size()));
    for (const auto& key : keys) {
        out += text(key.name).bytes + raw(static_cast<std::uint32_t>(key.value.type)) + key.value.bytes;
    }
    std::uint64_t next = 0;
    for (const auto& tensor : tensors) {
        out += text(tensor.name).bytes + raw(static_cast<std::uint32_t>(tensor.shape.size()));
        for (const auto dimension : tensor.shape) out += raw(dimension);
        out += raw(tensor.type) + raw(tensor.offset.value_or(next));
        next += (tensor.bytes.size() + alignment - 1) / alignment * alignment;
    }
    return out;
}

std::string Draft::bytes() const {
    std::string out = header();
    const auto pad = [&] { out.resize((out.size() + alignment - 1) / alignment * alignment); };
    for (const auto& tensor : tensors) {
        pad();
        out += tensor.bytes;
    }
    return out;
}

Draft tiny_llama(const TensorType& matrix) {
    const Sizes sizes(matrix);
    const DraftValue head_dim = u32(static_cast<std::uint32_t>(sizes.head_dim));
    Draft draft;
    draft.keys.push_back({"general.architecture", text("llama")});
    draft.keys.push_back({"general.alignment", u32(32)});
    add_sizes(draft, "llama.", sizes);
    draft.keys.push_back({"llama.attention.head_count_kv", u32(1)});
    draft.keys.push_back({"llama.attention.key_length", head_dim});
    draft.keys.push_back({"llama.attention.value_length", head_dim});
    draft.keys.push_back({"llama.attention.layer_norm_rms_epsilon", f32(1e-5f)});
    draft.keys.push_back({"llama.rope.dimension_count", head_dim});
    draft.keys.push_back({"llama.rope.freq_base", f32(10000)});
    draft.keys.push_back({"llama.rope.scale_linear", f32(1)});
    draft.keys.push_back({"llama.rope.scaling.type", text("yarn")});
    draft.keys.push_back({"llama.rope.scaling.factor", f32(2)});
    draft.keys.push_back({"llama.rope.scaling.original_context_length", u32(32)});
    draft.keys.push_back({"llama.rope.scaling.attn_factor", f32(1)});
    draft.keys.push_back({"llama.rope.scaling.yarn_beta_fast", f32(32)});
    draft.keys.push_back({"llama.rope.scaling.yarn_beta_slow", f32(1)});
    add_vocabulary(draft);
    add_matrix(draft, "token_embd.weight", matrix, kVocabulary, sizes.width);
    add_vector(draft, "rope_freqs.weight", sizes.head_dim / 2);
    draft.tensors.back().bytes.clear();
    for (std::uint64_t i = 0; i < sizes.head_dim / 2; ++i)
        draft.tensors.back().bytes += raw(1.0f + static_cast<float>(i));
    add_vector(draft, "blk.0.attn_norm.weight", sizes.width);
    add_matrix(draft, "blk.0.attn_q.weight", matrix, sizes.width, sizes.width);
    add_vector(draft, "blk.0.attn_q.bias", sizes.width);
    add_matrix(draft, "blk.0.attn_k.weight", matrix, sizes.head_dim, sizes.width);
    add_matrix(draft, "blk.0.attn_v.weight", matrix, sizes.head_dim, sizes.width);
    add_matrix(draft, "blk.0.attn_output.weight", matrix, sizes.width, sizes.width);
    add_vector(draft, "blk.0.ffn_norm.weight", sizes.width);
    add_matrix(draft, "blk.0.ffn_gate.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    add_vector(draft, "output_norm.weight", sizes.width);
    add_matrix(draft, "output.weight", matrix, kVocabulary, sizes.width);
    return draft;
}

namespace {

// Renames the keys of a draft to another architecture.
void rename(Draft& draft, const std::string& to) {
    const std::string from = "llama.";
    draft.key("general.architecture").value = text(to);
    for (auto& key : draft.keys) {
        if (key.name.starts_with(from)) key.name = to + "." + key.name.substr(from.size());
    }
}

void remove_tensor(Draft& draft, std::string_view name) {
    std::erase_if(draft.tensors, [&](const DraftTensor& tensor) { return tensor.name == name; });
}

void remove_keys(Draft& draft, std::string_view part) {
    std::erase_if(draft.keys, [&](const DraftKey& key) { return key.name.find(part) != std::string::npos; });
}

void join_gate_and_up(Draft& draft, const TensorType& matrix, const Sizes& sizes) {
    remove_tensor(draft, "blk.0.ffn_gate.weight");
    remove_tensor(draft, "blk.0.ffn_up.weight");
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, 2 * sizes.feed_forward, sizes.width);
}

void join_attention(Draft& draft, const TensorType& matrix, const Sizes& sizes) {
    for (const char* name : {"attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_v.weight"})
        remove_tensor(draft, std::string("blk.0.") + name);
    add_matrix(draft, "blk.0.attn_qkv.weight", matrix, sizes.width + 2 * sizes.head_dim, sizes.width);
    add_vector(draft, "blk.0.attn_qkv.bias", sizes.width + 2 * sizes.head_dim);
}

void add_head_norms(Draft& draft, const Sizes& sizes) {
    add_vector(draft, "blk.0.attn_q_norm.weight", sizes.head_dim);
    add_vector(draft, "blk.0.attn_k_norm.weight", sizes.head_dim);
}

void add_post_norms(Draft& draft, const Sizes& sizes) {
    add_vector(draft, "blk.0.post_attention_norm.weight", sizes.width);
    add_vector(draft, "blk.0.post_ffw_norm.weight", sizes.width);
}

void add_experts(Draft& draft, const std::string& architecture, const TensorType& matrix,
                 const Sizes& sizes) {
    constexpr std::uint64_t kExperts = 3;
    for (const char* name : {"ffn_gate", "ffn_up", "ffn_down"})
        remove_tensor(draft, std::string("blk.0.") + name + ".weight");
    draft.keys.push_back({architecture + ".expert_count", u32(kExperts)});
    draft.keys.push_back({architecture + ".expert_used_count", u32(2)});
    draft.keys.push_back(
        {architecture + ".expert_feed_forward_length", u32(static_cast<std::uint32_t>(sizes.width))});
    draft.keys.push_back({architecture + ".expert_weights_norm", {ValueType::boolean, std::string(1, '\1')}});
    draft.keys.push_back({architecture + ".expert_weights_scale", f32(1)});
    add_matrix(draft, "blk.0.ffn_gate_inp.weight", types::f32, kExperts, sizes.width);
    for (const char* name : {"ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"}) {
        add_matrix(draft, std::string("blk.0.") + name + ".weight", matrix, kExperts * sizes.width,
                   sizes.width);
        draft.tensors.back().shape = {sizes.width, sizes.width, kExperts};
    }
}

void add_shared_expert(Draft& draft, const TensorType& matrix, const Sizes& sizes) {
    draft.keys.push_back(
        {"qwen2moe.expert_shared_feed_forward_length", u32(static_cast<std::uint32_t>(sizes.feed_forward))});
    add_vector(draft, "blk.0.ffn_gate_inp_shexp.weight", sizes.width);
    add_matrix(draft, "blk.0.ffn_gate_shexp.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_up_shexp.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_down_shexp.weight", matrix, sizes.width, sizes.feed_forward);
}

void add_long_factors(Draft& draft, const std::string& architecture, const Sizes& sizes) {
    remove_tensor(draft, "rope_freqs.weight");
    draft.key(architecture + ".rope.scaling.type").value = text("longrope");
    for (const char* name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
        add_vector(draft, name, sizes.head_dim / 2);
        draft.tensors.back().bytes.clear();
        for (std::uint64_t i = 0; i < sizes.head_dim / 2; ++i) draft.tensors.back().bytes += raw(1.5f);
    }
}

Draft tiny_gemma(const std::string& architecture, const TensorType& matrix, const Sizes& sizes) {
    Draft draft = tiny_llama(matrix);
    rename(draft, architecture);
    add_post_norms(draft, sizes);
    draft.keys.push_back({architecture + ".attention.sliding_window", u32(2)});
    draft.keys.push_back({architecture + ".attention.scale", f32(0.25f)});
    draft.keys.push_back({architecture + ".attn_logit_softcapping", f32(50)});
    draft.keys.push_back({architecture + ".final_logit_softcapping", f32(30)});
    return draft;
}

// Two layers: the first follows the delta rule, the second has attention.
Draft tiny_qwen35(const TensorType& matrix, const Sizes& sizes) {
    Draft draft = tiny_llama(matrix);
    rename(draft, "qwen35");
    draft.key("qwen35.block_count").value = u32(2);
    const auto head_dim = static_cast<std::uint32_t>(sizes.head_dim);
    draft.keys.push_back({"qwen35.full_attention_interval", u32(2)});
    draft.keys.push_back({"qwen35.nextn_predict_layers", u32(0)});
    draft.keys.push_back({"qwen35.ssm.conv_kernel", u32(4)});
    draft.keys.push_back({"qwen35.ssm.state_size", u32(head_dim)});
    draft.keys.push_back({"qwen35.ssm.group_count", u32(1)});
    draft.keys.push_back({"qwen35.ssm.time_step_rank", u32(2)});
    draft.keys.push_back({"qwen35.ssm.inner_size", u32(2 * head_dim)});
    for (auto& tensor : draft.tensors) {
        if (tensor.name == "blk.0.ffn_norm.weight") tensor.name = "blk.0.post_attention_norm.weight";
    }
    const std::string layer = "blk.0.";
    std::vector<DraftTensor> second;
    for (const auto& tensor : draft.tensors) {
        if (tensor.name.starts_with(layer)) second.push_back(tensor);
    }
    for (auto& tensor : second) tensor.name = "blk.1." + tensor.name.substr(layer.size());
    draft.tensors.insert(draft.tensors.end(), second.begin(), second.end());
    remove_tensor(draft, "blk.1.attn_q.weight");
    remove_tensor(draft, "blk.1.attn_q.bias");
    add_matrix(draft, "blk.1.attn_q.weight", matrix, 2 * sizes.width, sizes.width);
    add_vector(draft, "blk.1.attn_q_norm.weight", sizes.head_dim);
    add_vector(draft, "blk.1.attn_k_norm.weight", sizes.head_dim);
    for (const char* name :
         {"attn_q.weight", "attn_q.bias", "attn_k.weight", "attn_v.weight", "attn_output.weight"})
        remove_tensor(draft, layer + name);
    const std::uint64_t mixed = 4 * sizes.head_dim;
    add_matrix(draft, layer + "attn_qkv.weight", matrix, mixed, sizes.width);
    add_matrix(draft, layer + "attn_gate.weight", matrix, sizes.width, sizes.width);
    add_matrix(draft, layer + "ssm_conv1d.weight", types::f32, mixed, 4);
    add_matrix(draft, layer + "ssm_alpha.weight", matrix, 2, sizes.width);
    add_matrix(draft, layer + "ssm_beta.weight", matrix, 2, sizes.width);
    add_vector(draft, layer + "ssm_a", 2);
    add_vector(draft, layer + "ssm_dt.bias", 2);
    add_vector(draft, layer + "ssm_norm.weight", sizes.head_dim);
    add_matrix(draft, layer + "ssm_out.weight", matrix, sizes.width, sizes.width);
    return draft;
}

}  // namespace

std::vector<Draft> tiny_decoders(const TensorType& matrix) {
    const Sizes sizes(matrix);
    std::vector<Draft> all;
    const auto add = [&](const std::string& architecture) -> Draft& {
        all.push_back(tiny_llama(matrix));
        rename(all.back(), architecture);
        remove_keys(all.back(), "yarn");
        return all.back();
    };
    join_attention(add("qwen"), matrix, sizes);
    // Its files count gate and up together.
    all.back().key("qwen.feed_forward_length").value =
        u32(static_cast<std::uint32_t>(2 * sizes.feed_forward));
    add("qwen2");
    add_experts(add("qwen2moe"), "qwen2moe", matrix, sizes);
    add_shared_expert(all.back(), matrix, sizes);
    add_head_norms(add("qwen3"), sizes);
    add_head_norms(add("qwen3moe"), sizes);
    add_experts(all.back(), "qwen3moe", matrix, sizes);
    all.push_back(tiny_gemma("gemma2", matrix, sizes));
    all.back().keys.push_back({"gemma2.attention.sliding_window_pattern", u32(1)});
    all.push_back(tiny_gemma("gemma3", matrix, sizes));
    add_head_norms(all.back(), sizes);
    all.back().keys.push_back(
        {"gemma3.attention.sliding_window_pattern", array(ValueType::boolean, 1, std::string(1, '\1'))});
    all.back().keys.push_back({"gemma3.rope.freq_base_swa", f32(10000)});
    all.push_back(tiny_qwen35(matrix, sizes));
    join_gate_and_up(add("phi3"), matrix, sizes);
    join_attention(all.back(), matrix, sizes);
    add_long_factors(all.back(), "phi3", sizes);
    all.back().keys.push_back({"phi3.attention.sliding_window", u32(2)});
    add("internlm2");
    add("minicpm").keys.push_back({"minicpm.embedding_scale", f32(12)});
    all.back().keys.push_back({"minicpm.residual_scale", f32(0.25f)});
    all.back().keys.push_back({"minicpm.logit_scale", f32(9)});
    add_long_factors(all.back(), "minicpm", sizes);
    join_gate_and_up(add("chatglm"), matrix, sizes);
    join_attention(all.back(), matrix, sizes);
    join_gate_and_up(add("glm4"), matrix, sizes);
    add_post_norms(all.back(), sizes);
    return all;
}

Draft tiny_bert(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft;
    draft.keys.push_back({"general.architecture", text("bert")});
    draft.keys.push_back({"general.alignment", u32(32)});
    add_sizes(draft, "bert.", sizes);
    draft.keys.push_back({"bert.attention.layer_norm_epsilon", f32(1e-12f)});
    draft.keys.push_back({"bert.pooling_type", u32(1)});
    add_vocabulary(draft);
    add_matrix(draft, "token_embd.weight", matrix, kVocabulary, sizes.width);
    add_matrix(draft, "position_embd.weight", types::f32, kContext, sizes.width);
    add_matrix(draft, "token_types.weight", types::f32, 2, sizes.width);
    for (const char* name :
         {"token_embd_norm.weight", "token_embd_norm.bias", "blk.0.attn_output_norm.weight",
          "blk.0.attn_output_norm.bias", "blk.0.layer_output_norm.weight", "blk.0.layer_output_norm.bias"}) {
        add_vector(draft, name, sizes.width);
    }
    for (const std::string name : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
        add_matrix(draft, "blk.0." + name + ".weight", matrix, sizes.width, sizes.width);
        add_vector(draft, "blk.0." + name + ".bias", sizes.width);
    }
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, sizes.feed_forward, sizes.width);
    add_vector(draft, "blk.0.ffn_up.bias", sizes.feed_forward);
    add_matrix(draft, "blk.0.ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    add_vector(draft, "blk.0.ffn_down.bias", sizes.width);
    return draft;
}

namespace {

Draft encoder_draft(const std::string& architecture, const Sizes& sizes, const TensorType& matrix) {
    Draft draft;
    const std::string prefix = architecture + ".";
    draft.keys.push_back({"general.architecture", text(architecture)});
    draft.keys.push_back({"general.alignment", u32(32)});
    add_sizes(draft, prefix, sizes);
    draft.keys.push_back({prefix + "attention.layer_norm_epsilon", f32(1e-5f)});
    draft.keys.push_back({prefix + "pooling_type", u32(2)});
    add_vocabulary(draft);
    add_matrix(draft, "token_embd.weight", matrix, kVocabulary, sizes.width);
    return draft;
}

void add_norm(Draft& draft, const std::string& name, std::uint64_t width) {
    add_vector(draft, name + ".weight", width);
    add_vector(draft, name + ".bias", width);
}

Draft tiny_reranker(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft = tiny_bert(matrix);
    draft.key("bert.pooling_type").value = u32(4);
    add_matrix(draft, "cls.weight", matrix, sizes.width, sizes.width);
    add_vector(draft, "cls.bias", sizes.width);
    add_matrix(draft, "cls.output.weight", matrix, 2, sizes.width);
    add_vector(draft, "cls.output.bias", 2);
    return draft;
}

Draft tiny_nomic(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft = encoder_draft("nomic-bert", sizes, matrix);
    draft.keys.push_back({"nomic-bert.rope.freq_base", f32(1000)});
    draft.keys.push_back({"nomic-bert.rope.scaling.type", text("none")});
    for (const char* name : {"token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm"})
        add_norm(draft, name, sizes.width);
    add_matrix(draft, "blk.0.attn_qkv.weight", matrix, 3 * sizes.width, sizes.width);
    add_vector(draft, "blk.0.attn_qkv.bias", 3 * sizes.width);
    add_matrix(draft, "blk.0.attn_output.weight", matrix, sizes.width, sizes.width);
    add_matrix(draft, "blk.0.ffn_gate.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    return draft;
}

Draft tiny_jina(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft = encoder_draft("jina-bert-v2", sizes, matrix);
    for (const char* name : {"token_embd_norm", "blk.0.attn_output_norm", "blk.0.layer_output_norm",
                             "blk.0.attn_norm_2", "blk.0.attn_q_norm", "blk.0.attn_k_norm"}) {
        add_norm(draft, name, sizes.width);
    }
    for (const std::string name : {"attn_q", "attn_k", "attn_v", "attn_output"})
        add_matrix(draft, "blk.0." + name + ".weight", matrix, sizes.width, sizes.width);
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, 2 * sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    return draft;
}

Draft tiny_modern(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft = encoder_draft("modern-bert", sizes, matrix);
    draft.key("modern-bert.block_count").value = u32(2);
    draft.keys.push_back({"modern-bert.attention.sliding_window", u32(2)});
    draft.keys.push_back({"modern-bert.attention.sliding_window_pattern", u32(2)});
    draft.keys.push_back({"modern-bert.rope.freq_base", f32(160000)});
    draft.keys.push_back({"modern-bert.rope.freq_base_swa", f32(10000)});
    draft.keys.push_back({"modern-bert.hidden_activation", text("gelu")});
    draft.keys.push_back({"quarry.classifier.pooling", text("mean")});
    for (const char* name : {"token_embd_norm.weight", "output_norm.weight", "blk.1.attn_norm.weight",
                             "blk.0.ffn_norm.weight", "blk.1.ffn_norm.weight", "cls.norm.weight"}) {
        add_vector(draft, name, sizes.width);
    }
    for (const std::string layer : {"blk.0.", "blk.1."}) {
        add_matrix(draft, layer + "attn_qkv.weight", matrix, 3 * sizes.width, sizes.width);
        add_matrix(draft, layer + "attn_output.weight", matrix, sizes.width, sizes.width);
        add_matrix(draft, layer + "ffn_up.weight", matrix, 2 * sizes.feed_forward, sizes.width);
        add_matrix(draft, layer + "ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    }
    add_matrix(draft, "cls.weight", matrix, sizes.width, sizes.width);
    add_matrix(draft, "cls.output.weight", matrix, 1, sizes.width);
    return draft;
}

Draft tiny_nomic_experts(const TensorType& matrix) {
    const Sizes sizes(matrix);
    Draft draft = encoder_draft("nomic-bert-moe", sizes, matrix);
    draft.key("nomic-bert-moe.block_count").value = u32(2);
    draft.keys.push_back({"nomic-bert-moe.expert_count", u32(3)});
    draft.keys.push_back({"nomic-bert-moe.expert_used_count", u32(2)});
    draft.keys.push_back({"nomic-bert-moe.moe_every_n_layers", u32(2)});
    add_norm(draft, "token_embd_norm", sizes.width);
    for (const std::string layer : {"blk.0.", "blk.1."}) {
        add_norm(draft, layer + "attn_output_norm", sizes.width);
        add_norm(draft, layer + "layer_output_norm", sizes.width);
        add_matrix(draft, layer + "attn_qkv.weight", matrix, 3 * sizes.width, sizes.width);
        add_matrix(draft, layer + "attn_output.weight", matrix, sizes.width, sizes.width);
    }
    add_matrix(draft, "blk.0.ffn_up.weight", matrix, sizes.feed_forward, sizes.width);
    add_matrix(draft, "blk.0.ffn_down.weight", matrix, sizes.width, sizes.feed_forward);
    add_matrix(draft, "blk.1.ffn_gate_inp.weight", types::f32, 3, sizes.width);
    add_matrix(draft, "blk.1.ffn_up_exps.weight", matrix, 3 * sizes.feed_forward, sizes.width);
    draft.tensors.back().shape = {sizes.width, sizes.feed_forward, 3};
    add_matrix(draft, "blk.1.ffn_down_exps.weight", matrix, 3 * sizes.width, sizes.feed_forward);
    draft.tensors.back().shape = {sizes.feed_forward, sizes.width, 3};
    return draft;
}

}  // namespace

std::vector<Draft> tiny_encoders(const TensorType& matrix) {
    return {tiny_reranker(matrix), tiny_nomic(matrix), tiny_jina(matrix), tiny_modern(matrix),
            tiny_nomic_experts(matrix)};
}

TemporaryFile::TemporaryFile(std::string_view name)
    : path_((std::filesystem::temp_directory_path() /
             ("quarry-" + std::string(name) + "-" + std::to_string(::getpid()) + ".gguf"))
                .string()) {}

TemporaryFile::~TemporaryFile() {
    std::error_code ignored;
    std::filesystem::remove(path_, ignored);
}

void TemporaryFile::write(std::string_view bytes) const {
    std::ofstream file(path_, std::ios::binary | std::ios::trunc);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + path_);
}

}  // namespace quarry::test
