#include "lib/engine/vllm/server/server.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/python_text.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/server/class_lists.h"

namespace moelora::vllm {
namespace {

std::vector<std::string> expert_names(const Server& server) {
  if (server.spec.experts == 0 || server.model.experts.empty() || !server.settings.has("0.11.1"))
    return {};
  if (server.settings.shared_outer) return {"experts.w1", "experts.w2", "experts.w3"};
  if (server.stacked()) return {};
  std::vector<std::string> out;
  const auto& [gate, up, down] = server.model.expert_names;
  std::vector<std::string> words = {gate, down, up};  // w1, w2, w3
  if (gate.empty()) words = {up, down};
  if (server.model.experts_named_twice) words.insert(words.end(), {"w1", "w2", "w3"});
  for (int64_t e = 0; e < server.spec.experts; ++e)
    for (const std::string& word : words)
      out.push_back(server.model.expert_prefix + "experts." + std::to_string(e) + "." + word);
  return out;
}

bool has_dense_mlp(const ModelSpec& spec) {
  return std::any_of(spec.linears.begin(), spec.linears.end(),
                     [](const LinearSpec& linear) { return linear.role == Role::dense_mlp; });
}

void accept_names(Server& server, const Json& base_config) {
  for (const Module& module : server.modules) {
    if (!module.packed) server.accepted.emplace(leaf_of(module.name));
    for (const Child& child : module.children) server.accepted.emplace(leaf_of(child.name));
  }
  server.accepted.insert(server.model.unwrapped.begin(), server.model.unwrapped.end());
  if (server.spec.experts > 0 && server.settings.has("0.11.1")) server.accepted.emplace("experts");
  server.accepted.insert(server.expert_names.begin(), server.expert_names.end());
  // Where it is not packed its own name is accepted (and no module is wrapped: no layer class
  // fits).
  if (!packs_gate_up(server.model, base_config) && has_dense_mlp(server.spec))
    server.accepted.emplace("gate_up_proj");
}

// ---- what keeps it from starting with LoRA on this base, whatever the adapter -------------------

constexpr int64_t kMaxVocabulary = 258048;
constexpr int64_t kMaxExpertRank = 128;

void refuse(Server& server, const Cause* cause, std::string_view type, std::string text,
            std::string detail) {
  server.events.push_back({cause,
                           Effect::refused,
                           {},
                           std::move(detail),
                           Refusal{"start", std::string(type), std::move(text)}});
}

void check_class(Server& server) {
  const ModelClass& model = server.model;
  if (!model.start_error.empty()) {
    const size_t colon = model.start_error.find(": ");
    refuse(server, &cause::class_without_lora, model.start_error.substr(0, colon),
           model.start_error.substr(colon + 2),
           fmt::format("{} cannot start with --enable-lora in this version", model.name));
  }
  if (server.stacked() && server.spec.experts > 0 && server.spec.architecture.empty())
    refuse(server, &cause::class_without_lora, "ValueError",
           "model_config.architectures must be defined for MoE LoRA.",
           "the base's config.json has no \"architectures\"");
  if (model.lm_head && server.spec.vocab > kMaxVocabulary)
    refuse(server, &cause::class_without_lora, "ValueError",
           "When using LoRA, vocab size must be <= 258048",
           fmt::format("the base has a vocabulary of {}", server.spec.vocab));
}

// Megakernels dispatch, multiply and combine in one, and logits that stay apart miss the delta that
// lm_head's LoRA adds to all of them. Whatever the adapter holds.
void check_options(Server& server) {
  constexpr std::array<std::string_view, 4> kMegaKernels = {
      "deep_gemm_mega_moe", "flashinfer_moe_ep_cutedsl", "flashinfer_moe_ep_mega_deep_gemm",
      "aiter_mega_moe"};
  const Settings& settings = server.settings;
  if (!settings.has("0.33")) return;
  const std::string& backend = settings.moe_backend;
  if (std::find(kMegaKernels.begin(), kMegaKernels.end(), backend) != kMegaKernels.end())
    refuse(server, &cause::option_without_lora, "ValueError",
           fmt::format("LoRA is not supported with moe_backend={}. Disable LoRA or select a MoE "
                       "backend that supports LoRA.",
                       py_repr(backend)),
           fmt::format("--moe-backend is {}", backend));
  const ModelClass& model = server.model;
  if (settings.sharded_sampling && settings.tp > 1 && model.lm_head && model.local_logits)
    refuse(
        server, &cause::option_without_lora, "NotImplementedError",
        "Skipping the logits TP gather is not supported with an lm_head LoRA.",
        fmt::format("--enable-batch-sharded-sampling, and {} takes LoRA on lm_head", model.name));
}

void refuse_split(Server& server, std::string_view type, std::string text, std::string_view what,
                  int64_t number) {
  refuse(server, &cause::tp_divisibility, type, std::move(text),
         fmt::format("{} {} do not split over {} ranks", number, what, server.settings.tp));
}

// Of k and v every rank has a head of its own, or several ranks share one.
void check_heads(Server& server, const Json& base_config) {
  const int64_t tp = server.settings.tp;
  const int64_t heads = config_int(base_config, "num_attention_heads", 0);
  if (heads % tp != 0)
    return refuse_split(server, "ValueError",
                        fmt::format("Total number of attention heads ({}) must be divisible by "
                                    "tensor parallel size ({}).",
                                    heads, tp),
                        "attention heads", heads);
  const int64_t kv = config_int(base_config, "num_key_value_heads", heads);
  if (kv > 0 && (kv >= tp ? kv % tp : tp % kv) != 0)
    refuse_split(server, "AssertionError", "", "key and value heads", kv);
}

// What is cut by columns: o_proj, down_proj of dense layers and of shared experts, the experts.
void check_widths(Server& server) {
  const int64_t tp = server.settings.tp;
  for (const Module& module : server.modules)
    if (module.kind == Kind::row)
      for (const Child& child : module.children)
        if (child.in > 0 && child.in % tp != 0)
          return refuse_split(server, "AssertionError",
                              fmt::format("{} is not divisible by {}", child.in, tp),
                              fmt::format("columns of {}", leaf_of(child.name)), child.in);
  if (server.spec.experts > 0 && server.spec.intermediate % server.settings.moe_tp() != 0)
    refuse_split(server, "AssertionError", "", "columns of an expert (intermediate size)",
                 server.spec.intermediate);
}

// With or without an adapter: the model is built for the ranks before LoRA is looked at.
void check_split(Server& server, const Json& base_config) {
  const size_t before = server.events.size();
  check_heads(server, base_config);
  if (server.events.size() == before) check_widths(server);
}

void check_expert_parallel(Server& server) {
  const Settings& settings = server.settings;
  constexpr std::string_view kOnly = "allgather_reducescatter";
  if (!settings.has("0.21"))
    refuse(server, &cause::ep_options, "AssertionError",
           "EP support for Fused MoE LoRA is not implemented yet.",
           "this version has no expert LoRA under --enable-expert-parallel");
  else if (!settings.all2all.empty() && settings.all2all != kOnly)
    refuse(server, &cause::ep_options, "AssertionError",
           fmt::format("Fused MoE LoRA with EP currently only supports all2all_backend='{}', got "
                       "{}.",
                       kOnly, py_repr(settings.all2all)),
           fmt::format("--all2all-backend is {}, expert LoRA needs {}", settings.all2all, kOnly));
  if (settings.fully_sharded)
    refuse(server, &cause::ep_options, "AssertionError",
           "Fused MoE LoRA does not support enable_expert_parallel=True together with "
           "fully_sharded_loras=True. Disable one of them.",
           "--enable-expert-parallel and --fully-sharded-loras exclude each other");
}

void check_start(Server& server, const Json& base_config) {
  const Settings& settings = server.settings;
  check_options(server);
  check_split(server, base_config);
  check_class(server);
  if (server.spec.experts == 0 || !server.model.takes_lora || !settings.has("0.11.1")) return;
  if (settings.expert_parallel) check_expert_parallel(server);
  if (settings.has("0.22") && !settings.has("0.32") && settings.max_rank > kMaxExpertRank)
    refuse(server, &cause::moe_rank_128, "AssertionError",
           fmt::format("fused_moe_lora_one_shot supports max_lora_rank<=128; got rank={}",
                       settings.max_rank),
           fmt::format("--max-lora-rank {} on a model with routed experts, whatever the adapter's "
                       "rank",
                       settings.max_rank));
}

}  // namespace

int64_t Server::intermediate() const {
  const int64_t mine = partition();
  if (!settings.mxfp4) return mine;
  const int64_t step = settings.moe_backend == "marlin" ? 128 : 64;
  return (mine + step - 1) / step * step;
}

std::string class_not_known(const PlanRequest& request) {
  const ModelSpec& spec = request.spec;
  if (find_model_class(spec, request.version)) return "";
  const std::string& name = spec.architecture.empty() ? spec.model_type : spec.architecture;
  if (const std::string why = why_not_judged(spec, request.version); !why.empty())
    return fmt::format("vLLM's class {} is not judged: {}", name, why);
  if (is_out_of_registry(spec))
    return fmt::format(
        "vLLM has no class {}: its Transformers backend serves the model, if anything does, and "
        "what of an adapter that takes is not known here",
        name);
  return fmt::format("{} is no class of vLLM that is known here", name);
}

Server make_server(const PlanRequest& request) {
  const ModelSpec& spec = request.spec;
  std::optional<ModelClass> model = find_model_class(spec, request.version);
  if (!model) throw Error(class_not_known(request), "what becomes of an adapter is not known");
  Server out{
      spec, std::move(*model), make_settings(request.options, spec, request.version), {}, {}, {},
      {}};
  out.modules = make_modules(spec, request.base_config, out.model, out.settings);
  out.expert_names = expert_names(out);
  accept_names(out, request.base_config);
  check_start(out, request.base_config);
  return out;
}

}  // namespace moelora::vllm
