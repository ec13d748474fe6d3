#include "lib/engine/vllm/server/start.h"

#include <fmt/format.h>

#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/python.h"

namespace moelora::vllm {
namespace {

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
                      kOnly, repr(settings_.all2all)),
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

std::vector<PlanEvent> start_events(const Server& server) { return Start(server).events(); }

}  // namespace moelora::vllm
