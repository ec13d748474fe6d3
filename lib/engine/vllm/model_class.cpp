#include "lib/engine/vllm/model_class.h"

#include <algorithm>
#include <array>

namespace moelora::vllm {
namespace {

constexpr std::string_view kNumbered = "gate_proj up_proj down_proj";
constexpr std::string_view kShort = "w1 w3 w2";
constexpr std::string_view kMlp = "mlp.experts", kSparse = "block_sparse_moe.experts";
constexpr std::string_view kPlainGate = "self_attn.qkv_proj self_attn.o_proj mlp.gate mlp.experts";
constexpr std::string_view kDense =
    "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj mlp.gate mlp.experts";
constexpr std::string_view kShared =
    "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj mlp.gate "
    "mlp.shared_experts.gate_up_proj mlp.shared_experts.down_proj mlp.experts";
constexpr std::string_view kLatentAttention =
    "self_attn.fused_qkv_a_proj self_attn.kv_a_proj_with_mqa self_attn.q_proj self_attn.q_b_proj "
    "self_attn.kv_b_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj mlp.gate "
    "mlp.shared_experts.gate_up_proj mlp.shared_experts.down_proj mlp.experts";
constexpr std::string_view kSharedExpert =
    "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj mlp.gate "
    "mlp.shared_expert_gate mlp.shared_expert.gate_up_proj mlp.shared_expert.down_proj mlp.experts";
constexpr std::string_view kLinearAttention =
    "linear_attn.conv1d linear_attn.in_proj_qkvz linear_attn.in_proj_ba linear_attn.out_proj "
    "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj mlp.gate "
    "mlp.shared_expert_gate mlp.shared_expert.gate_up_proj mlp.shared_expert.down_proj mlp.experts";
constexpr std::string_view kSparseGate =
    "self_attn.qkv_proj self_attn.o_proj block_sparse_moe.gate block_sparse_moe.experts";

constexpr std::string_view kWrapped =
    "model.visual.>visual. lm_head.>language_model.lm_head. "
    "model.language_model.>language_model.model.";
constexpr std::string_view kVision = "qkv proj linear_fc1 linear_fc2";
constexpr std::string_view kNoMapping =
    "AttributeError: To support LoRA for MoE model, 'get_expert_mapping' must be implemented";

constexpr std::array<ModelClass, 24> kClasses = {{
    {.name = "GptOssForCausalLM",
     .model_types = "gpt_oss",
     .modules = "attn.qkv_proj attn.o_proj mlp.router mlp.experts",
     .experts = kMlp,
     .words = kShort,
     .stacked = true,
     .substrings = ".self_attn.>.attn.",
     .suffixes = ".embed_tokens.weight>.embedding.weight"},
    {.name = "Qwen3MoeForCausalLM",
     .model_types = "qwen3_moe",
     .modules = kDense,
     .experts = kMlp,
     .words = kNumbered,
     .embeddings = true},
    {.name = "MixtralForCausalLM",
     .model_types = "mixtral",
     .modules = kSparseGate,
     .experts = kSparse,
     .words = kShort,
     .embeddings = true},
    {.name = "DeepseekV3ForCausalLM",
     .model_types = "deepseek_v3 kimi_k2",
     .modules = kLatentAttention,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "DeepseekV2ForCausalLM",
     .model_types = "deepseek_v2",
     .modules = kLatentAttention,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Glm4MoeForCausalLM",  // its router is a plain nn.Linear
     .model_types = "glm4_moe",
     .modules = "self_attn.qkv_proj self_attn.o_proj mlp.gate_up_proj mlp.down_proj "
                "mlp.shared_experts.gate_up_proj mlp.shared_experts.down_proj mlp.experts",
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Qwen2MoeForCausalLM",
     .model_types = "qwen2_moe",
     .modules = kSharedExpert,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "NemotronHForCausalLM",  // its router is passed over: "mixer.gate"
     .model_types = "nemotron_h",
     .modules = "mixer.conv1d mixer.in_proj mixer.out_proj mixer.shared_experts.up_proj "
                "mixer.shared_experts.down_proj mixer.fc1_latent_proj mixer.fc2_latent_proj "
                "mixer.experts mixer.qkv_proj mixer.o_proj mixer.up_proj mixer.down_proj",
     .experts = "mixer.experts",
     .words = "up_proj down_proj",
     .embeddings = true,
     .unwrapped = "gate",
     .prefixes = "backbone>model",
     .substrings = "A_log>A embeddings>embed_tokens",
     .skipped = "mtp."},
    {.name = "Qwen3NextForCausalLM",
     .model_types = "qwen3_next",
     .modules = kLinearAttention,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Qwen3_5MoeForConditionalGeneration",
     .model_types = "qwen3_5_moe",
     .modules = kLinearAttention,
     .experts = kMlp,
     .words = kNumbered,
     .stacked = true,
     .unwrapped = kVision,
     .prefixes = kWrapped},
    {.name = "Qwen3_5MoeForCausalLM",
     .model_types = "qwen3_5_moe_text",
     .modules = kLinearAttention,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Qwen3VLMoeForConditionalGeneration",
     .model_types = "qwen3_vl_moe",
     .modules = kDense,
     .experts = kMlp,
     .words = kNumbered,
     .stacked = true,
     .unwrapped = kVision,
     .prefixes = kWrapped},
    {.name = "OlmoeForCausalLM",
     .model_types = "olmoe",
     .modules = kPlainGate,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "FlexOlmoForCausalLM",
     .model_types = "flex_olmo",
     .modules = kPlainGate,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Dots1ForCausalLM",
     .model_types = "dots1",
     .modules = kShared,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "Ernie4_5_MoeForCausalLM",
     .model_types = "ernie4_5_moe",
     .modules = kShared,
     .experts = kMlp,
     .words = kNumbered},
    {.name = "HunYuanMoEV1ForCausalLM",
     .model_types = "hunyuan_v1_moe",
     .modules = "self_attn.qkv_proj self_attn.o_proj mlp.gate=mlp.gate.wg "
                "mlp.shared_mlp.gate_up_proj mlp.shared_mlp.down_proj mlp.experts",
     .experts = kMlp,
     .words = kNumbered},
    {.name = "MiniMaxM2ForCausalLM",
     .model_types = "minimax_m2",
     .modules = "self_attn.qkv_proj self_attn.o_proj block_sparse_moe.experts "
                "block_sparse_moe.gate",
     .experts = kSparse,
     .words = kShort},
    {.name = "PhiMoEForCausalLM",
     .model_types = "phimoe",
     .modules = kSparseGate,
     .experts = kSparse,
     .words = kShort,
     .embeddings = true},
    {.name = "GraniteMoeForCausalLM",
     .model_types = "granitemoe",
     .modules = "self_attn.qkv_proj self_attn.o_proj "
                "block_sparse_moe.gate=block_sparse_moe.router.layer block_sparse_moe.experts",
     .experts = kSparse,
     .words = kNumbered,
     .embeddings = true,
     .starts_since = "0.27",
     .start_error = kNoMapping},
    {.name = "JambaForCausalLM",
     .model_types = "jamba",
     .modules = "mamba.conv1d mamba.in_proj mamba.x_proj mamba.dt_proj mamba.out_proj qkv_proj "
                "o_proj feed_forward.gate_up_proj feed_forward.down_proj feed_forward.router "
                "feed_forward.experts",
     .experts = "feed_forward.experts",
     .words = kNumbered,
     .embeddings = true,
     .substrings = ".self_attn.>. .A_log>.A"},
    {.name = "Lfm2MoeForCausalLM",
     .model_types = "lfm2_moe",
     .modules = "short_conv.conv short_conv.in_proj short_conv.out_proj self_attn.qkv_proj "
                "self_attn.out_proj feed_forward.w13 feed_forward.w2 feed_forward.gate "
                "feed_forward.experts",
     .experts = "feed_forward.experts",
     .words = kShort,
     .embeddings = true,
     .substrings = ".conv.>.short_conv."},
    {.name = "Llama4ForCausalLM",
     .model_types = "llama4_text",
     .modules =
         "self_attn.qkv_proj self_attn.o_proj feed_forward.gate_up_proj "
         "feed_forward.down_proj feed_forward.router feed_forward.shared_expert.gate_up_proj "
         "feed_forward.shared_expert.down_proj feed_forward.experts",
     .experts = "feed_forward.experts",
     .words = kNumbered,
     .embeddings = true,
     .starts_since = "0.27",
     .start_error = kNoMapping},
    {.name = "ExaoneMoEForCausalLM",
     .model_types = "exaone_moe",
     .modules = kShared,
     .experts = kMlp,
     .words = kNumbered,
     .starts_since = kNever,
     .start_error = "AttributeError: 'LoRAConfig' object has no attribute 'lora_extra_vocab_size'"},
}};

bool lists(std::string_view list, std::string_view word) {
  const auto all = words_of(list);
  return std::find(all.begin(), all.end(), word) != all.end();
}

std::vector<std::pair<std::string_view, std::string_view>> replacements(std::string_view list) {
  std::vector<std::pair<std::string_view, std::string_view>> out;
  for (std::string_view word : words_of(list)) {
    const size_t arrow = word.find('>');
    out.emplace_back(word.substr(0, arrow), word.substr(arrow + 1));
  }
  return out;
}

}  // namespace

std::span<const ModelClass> model_classes() { return kClasses; }

const ModelClass* find_model_class(const ModelSpec& spec) {
  for (const ModelClass& model : kClasses)
    if (model.name == spec.architecture) return &model;
  for (const ModelClass& model : kClasses)
    if (lists(model.model_types, spec.family)) return &model;
  return nullptr;
}

NameMapper::NameMapper(const ModelClass& model)
    : substrings_(replacements(model.substrings)),
      prefixes_(replacements(model.prefixes)),
      suffixes_(replacements(model.suffixes)) {}

std::string NameMapper::map(std::string name) const {
  for (const auto& [from, to] : substrings_)
    if (const size_t at = name.find(from); at != std::string::npos)
      name.replace(at, from.size(), to);
  for (const auto& [from, to] : prefixes_)
    if (name.starts_with(from)) name.replace(0, from.size(), to);
  for (const auto& [from, to] : suffixes_)
    if (name.ends_with(from)) name.replace(name.size() - from.size(), from.size(), to);
  return name;
}

std::vector<std::string_view> words_of(std::string_view list) {
  std::vector<std::string_view> out;
  while (!list.empty()) {
    const size_t blank = list.find(' ');
    if (blank != 0) out.push_back(list.substr(0, blank));
    if (blank == std::string_view::npos) break;
    list.remove_prefix(blank + 1);
  }
  return out;
}

}  // namespace moelora::vllm
