#include "lib/engine/vllm/server/server.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/python_text.h"
#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

// In the order of w1, w2, w3; of experts without a gate: up, down.
std::vector<std::string> expert_words(const ExpertNames& names) {
  if (names.gate.empty()) return {names.up, names.down};
  return {names.gate, names.down, names.up};
}

std::vector<std::string> expert_names(const Server& server) {
  if (server.spec.experts == 0) return {};
  if (server.settings.shared_outer) return {"experts.w1", "experts.w2", "experts.w3"};
  if (server.stacked()) return {};
  std::vector<std::string> out;
  const std::vector<std::string> words = expert_words(server.model.expert_names);
  for (int64_t e = 0; e < server.spec.experts; ++e)
    for (const std::string& word : words)
      out.push_back("experts." + std::to_string(e) + "." + word);
  return out;
}

// Where gate_up_proj of a dense layer is not packed, its own name is accepted (and no module is
// wrapped: no layer class fits).
bool has_unpacked_gate_up(const Server& server, const Json& base_config) {
  const auto& linears = server.spec.linears;
  return !packs_gate_up(server.model, base_config) &&
         std::any_of(linears.begin(), linears.end(),
                     [](const LinearSpec& linear) { return linear.role == Role::dense_mlp; });
}

void accept_names(Server& server) {
  for (const Module& module : server.modules) {
    if (!module.packed) server.accepted.emplace(leaf_of(module.name));
    for (const Child& child : module.children) server.accepted.emplace(leaf_of(child.name));
  }
  server.accepted.insert(server.model.unwrapped.begin(), server.model.unwrapped.end());
  if (server.spec.experts > 0) server.accepted.emplace("experts");
  server.accepted.insert(server.expert_names.begin(), server.expert_names.end());
}

// ---- what keeps it from starting with LoRA on this base, whatever the adapter -------------------

constexpr int64_t kMaxVocabulary = 258048;
constexpr int64_t kMaxExpertRank = 128;

class Start {
 public:
  explicit Start(const Server& server) : server_(server), settings_(server.settings) {}

  std::vector<PlanEvent> events() {
    check_class();
    if (server_.spec.experts > 0) {
      check_expert_parallel();
      check_kernel();
    }
    return std::move(events_);
  }

 private:
  void add(const Cause* cause, std::string_view type, std::string text, std::string detail) {
    PlanEvent& event = events_.emplace_back();
    event.cause = cause;
    event.effect = Effect::refused;
    event.detail = std::move(detail);
    event.refusal = Refusal{"start", std::string(type), std::move(text), false};
  }

  void check_class() {
    const ModelClass& model = server_.model;
    if (!settings_.starts) {
      const size_t colon = model.start_error.find(": ");
      add(&cause::class_without_lora, model.start_error.substr(0, colon),
          std::string(model.start_error.substr(colon + 2)),
          fmt::format("{} cannot start with --enable-lora in this version", model.name));
    }
    if (server_.stacked() && server_.spec.experts > 0 && server_.spec.architecture.empty())
      add(&cause::class_without_lora, "ValueError",
          "model_config.architectures must be defined for MoE LoRA.",
          "the base's config.json has no \"architectures\"");
    if (model.embeddings && server_.spec.vocab > kMaxVocabulary)
      add(&cause::class_without_lora, "ValueError", "When using LoRA, vocab size must be <= 258048",
          fmt::format("the base has a vocabulary of {}", server_.spec.vocab));
  }

  void check_expert_parallel() {
    if (!settings_.expert_parallel) return;
    constexpr std::string_view kOnly = "allgather_reducescatter";
    if (!settings_.supports_ep)
      add(&cause::ep_options, "AssertionError",
          "EP support for Fused MoE LoRA is not implemented yet.",
          "this version has no expert LoRA under --enable-expert-parallel");
    else if (!settings_.all2all.empty() && settings_.all2all != kOnly)
      add(&cause::ep_options, "AssertionError",
          fmt::format("Fused MoE LoRA with EP currently only supports all2all_backend='{}', got "
                      "{}.",
                      kOnly, py_repr(settings_.all2all)),
          fmt::format("--all2all-backend is {}, expert LoRA needs {}", settings_.all2all, kOnly));
    if (settings_.fully_sharded)
      add(&cause::ep_options, "AssertionError",
          "Fused MoE LoRA does not support enable_expert_parallel=True together with "
          "fully_sharded_loras=True. Disable one of them.",
          "--enable-expert-parallel and --fully-sharded-loras exclude each other");
  }

  void check_kernel() {
    if (!settings_.one_shot_kernel || settings_.max_rank <= kMaxExpertRank) return;
    add(&cause::moe_rank_128, "AssertionError",
        fmt::format("fused_moe_lora_one_shot supports max_lora_rank<=128; got rank={}",
                    settings_.max_rank),
        fmt::format("--max-lora-rank {} on a model with routed experts, whatever the adapter's "
                    "rank",
                    settings_.max_rank));
  }

  const Server& server_;
  const Settings& settings_;
  std::vector<PlanEvent> events_;
};

}  // namespace

int64_t Server::intermediate() const {
  const int64_t mine = spec.intermediate / settings.moe_tp();
  if (!settings.mxfp4) return mine;
  const int64_t step = settings.moe_backend == "marlin" ? 128 : 64;
  return (mine + step - 1) / step * step;
}

Server make_server(const ModelSpec& spec, const Json& base_config, Settings settings) {
  std::optional<ModelClass> model = find_model_class(spec);
  if (!model)
    throw Error(spec.architecture.empty() ? spec.model_type : spec.architecture,
                "not a model class of vLLM that this tool knows");
  Server out{spec, std::move(*model), std::move(settings), {}, {}, {}, {}};
  out.modules = make_modules(spec, base_config, out.model, out.settings);
  out.expert_names = expert_names(out);
  accept_names(out);
  if (has_unpacked_gate_up(out, base_config)) out.accepted.emplace("gate_up_proj");
  out.events = Start(out).events();
  return out;
}

}  // namespace moelora::vllm
