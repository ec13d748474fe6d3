#include "lib/engine/sglang/runners.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

constexpr std::string_view kV2 = "triton_v2", kArguments = "constructor";

PlanEvent refused(const Cause& cause, std::string_view stage, std::string_view type,
                  std::string text, std::string detail) {
  return {&cause,
          Effect::refused,
          {},
          std::move(detail),
          Refusal{std::string(stage), std::string(type), std::move(text), false}};
}

bool is_number(const Json& value, int64_t number) {
  return value.is(Json::Kind::integer) && value.as_int() == number;
}

const Json* quantization_config(const Json& base) {
  const Json *config = base.find("quantization_config"), *text = base.find("text_config");
  return config == nullptr && text != nullptr ? text->find("quantization_config") : config;
}

// Blocks of 128 by 128.
bool is_block_quantised(const Json& base) {
  const Json* config = quantization_config(base);
  const Json* block = config != nullptr ? config->find("weight_block_size") : nullptr;
  if (block == nullptr || !block->is(Json::Kind::array)) return false;
  return std::all_of(block->items().begin(), block->items().end(),
                     [](const Json& size) { return is_number(size, 128); });
}

// SGLang runs a model of any other type in F16.
bool is_bf16(const Json& base) {
  for (const char* key : {"dtype", "torch_dtype"})
    if (const Json* dtype = base.find(key))
      return !dtype->is(Json::Kind::string) || dtype->as_string() == "bfloat16";
  return true;
}

struct Checker {
  const PlanRequest& request;
  const Features& features;
  const ServerOptions& options = request.options;
  const Launch launch = launch_of(options);
  const std::string runner = options.text("moe-runner-backend"),
                    backend = options.text("lora-backend"),
                    quantization = quantization_of(options, request.base_config);
  const bool lora = is_lora_runner(runner);
  std::vector<PlanEvent> out = {};

  void refuse(const Cause& cause, std::string_view stage, std::string_view type, std::string text,
              std::string detail) {
    out.push_back(refused(cause, stage, type, std::move(text), std::move(detail)));
  }

  // ---- the command line --------------------------------------------------------------------

  void check_arguments() {
    if (!features.lora_runners) return refuse_unknown();
    if (lora) {
      if (backend != kV2)
        argument(fmt::format("requires --lora-backend {}", kV2), "it is started with another");
      check_modes("--moe-runner-backend " + runner);
      check_experts();
    } else if (backend == kV2) {
      check_modes("--lora-backend triton_v2");
    }
    check_groups();
    check_pinned();
  }

  // Versions that do not know the words.
  void refuse_unknown() {
    const auto unknown = [&](std::string_view option, const std::string& value) {
      refuse(cause::lora_runner, kArguments, "ArgumentError",
             fmt::format("argument --{}: invalid choice: '{}'", option, in_text(value)),
             fmt::format("--{} {} came with SGLang 0.5.23", option, value));
    };
    if (lora) unknown("moe-runner-backend", runner);
    if (backend == kV2) unknown("lora-backend", backend);
    check_groups();
    check_pinned();
  }

  void argument(std::string text, std::string detail) {
    refuse(cause::lora_runner, kArguments, "ValueError",
           fmt::format("--moe-runner-backend {} {}", runner, text), std::move(detail));
  }

  void check_modes(const std::string& option) {
    const std::pair<bool, std::string_view> kModes[] = {
        {launch.attention_groups > 1, "DP-attention with --attn-dp-size > 1"},
        {options.on("enable-pdmux"), "PD-multiplexing"},
        {options.on("enable-two-batch-overlap"), "two-batch overlap"}};
    for (const auto& [on, mode] : kModes)
      if (on)
        refuse(cause::lora_runner, kArguments, "ValueError",
               fmt::format("{} does not yet support {}", option, mode),
               fmt::format("it is started with {}", mode));
  }

  void check_experts() {
    if (!quantization.empty() && quantization != "fp8" && quantization != "modelopt_fp4")
      argument(fmt::format("supports unquantized BF16, 128-block FP8 and ModelOpt NVFP4 MoE, got "
                           "--quantization {}",
                           in_text(quantization)),
               "the base's experts are stored otherwise");
    if (quantization == "modelopt_fp4" && runner != "lora_marlin")
      argument("cannot run ModelOpt NVFP4 MoE; use --moe-runner-backend lora_marlin",
               "the base's experts are NVFP4");
    const std::string sends = options.text("moe-a2a-backend");
    if (!sends.empty() && sends != "none")
      argument(fmt::format("requires Standard dispatch, got --moe-a2a-backend {}", in_text(sends)),
               "tokens get to their experts otherwise");
    if (options.on("enable-eplb") || options.number("ep-num-redundant-experts"))
      argument("currently requires trivial expert placement without EPLB or redundant experts",
               "experts are placed otherwise");
  }

  void check_groups() {
    if (launch.attention_groups <= 1 || !features.one_rank_dp_groups) return;
    const int64_t ranks = launch.tp / launch.attention_groups;
    if (launch.tp % launch.attention_groups != 0)
      refuse(cause::dp_attention, kArguments, "AssertionError",
             "tp_size must be divisible by attn_dp_size * attn_cp_size",
             fmt::format("{} ranks, {} groups", launch.tp, launch.attention_groups));
    else if (ranks != 1)
      refuse(cause::dp_attention, kArguments, "ValueError",
             fmt::format("LoRA with DP attention requires --attn-dp-size equal to --tp-size (got "
                         "attention TP size {} and attention CP size 1)",
                         ranks),
             fmt::format("--attn-dp-size {} of {} ranks", launch.attention_groups, launch.tp));
  }

  // LoRAManager.validate_new_adapter().
  void check_pinned() {
    if (features.pins_under_dp && launch.attention_groups > 1 && !launch.pinned)
      refuse(cause::dp_attention, stage::kValidate, "AssertionError",
             "DP-attention LoRA requires pinned adapters", "the adapter is not pinned");
  }

  // ---- wrapping ----------------------------------------------------------------------------

  void check_wrapping(const Server& server) {
    if (!features.lora_runners || server.wrapping().layers.empty()) return;
    const bool wrapped = wraps_experts(server.wrapping());
    if (wrapped && (backend == kV2) != lora)
      refuse(cause::lora_runner, stage::kWrap, "ValueError",
             "Routed MoE LoRA must pair --lora-backend triton_v2 with --moe-runner-backend "
             "lora_cutedsl, lora_triton, or lora_marlin; mixing new and legacy LoRA backends is "
             "unsupported",
             fmt::format("--lora-backend {} and --moe-runner-backend {}",
                         backend.empty() ? "csgmv" : backend, runner.empty() ? "auto" : runner));
    else if (wrapped && lora)
      admit(server);
    else if (lora && server.model().has_moe)
      refuse(cause::lora_runner, stage::kWrap, "ValueError",
             fmt::format("--moe-runner-backend {} requires the LoRA target modules to include "
                         "gate_up_proj and down_proj; this adapter leaves the MoE experts without "
                         "a runner",
                         runner),
             "no expert is adapted");
  }

  static bool wraps_experts(const Wrapping& wrapping) {
    for (const auto& layer : wrapping.layers)
      for (const WrappedModule& wrapped : layer)
        if (wrapped.module->kind == LayerKind::fused_moe) return true;
    return false;
  }

  void raise(std::string text, std::string detail) {
    refuse(cause::lora_runner, stage::kWrap, "NotImplementedError", std::move(text),
           std::move(detail));
  }

  // MoeLoraRunner._admit(), in its order.
  void admit(const Server& server) {
    const ModelClass& model = server.model();
    if (quantization.empty() && !is_bf16(request.base_config))
      raise("MoE LoRA on an unquantized layer requires resident BF16 weights",
            "SGLang runs this base in F16");
    if (quantization == "fp8" && !is_block_quantised(request.base_config))
      raise(
          "MoE LoRA on FP8 requires 128-block weight quantization; per-tensor and MXFP8 layers "
          "are unsupported",
          "the base has no weight_block_size of 128");
    check_device();
    if (model.facts.expert_biases)
      raise("MoE LoRA providers carry no expert biases; this layer has them",
            "the base's experts have biases");
    const bool known = model.activation == "silu" || model.activation == "relu2";
    if (!known || model.facts.weights_input)
      raise(
          "MoE LoRA supports SiLU or ReLU2 (gated or not) without fused shared experts, with "
          "route weighting owned by finalize",
          known ? "the router's weight multiplies the experts' input"
                : fmt::format("the experts' activation is {}", model.activation));
    constexpr int64_t kMostShared = 256;
    if (server.shared_outer() && server.max_lora_rank() > kMostShared)
      refuse(cause::lora_runner, stage::kWrap, "ValueError",
             fmt::format("the shared finalizes are capped at rank {}, got {}", kMostShared,
                         server.max_lora_rank()),
             "one outer factor for all experts, of a larger rank");
  }

  void check_device() {
    if (!options.compute_capability) return;
    const int tenths = static_cast<int>(*options.compute_capability * 10 + 0.5);
    if (tenths / 10 == 9 || tenths / 10 == 10) return;
    raise(fmt::format("MoE LoRA supports SM90 and SM100 only; this device is sm{}{}. Its base "
                      "GEMMs are WGMMA (SM90) and tcgen05 (SM100) kernels, and no other "
                      "architecture implements either -- SM120 included, despite reporting a "
                      "higher major.",
                      tenths / 10, tenths % 10),
          fmt::format("compute capability {}", *options.compute_capability));
  }
};

}  // namespace

std::string quantization_of(const ServerOptions& options, const Json& base_config) {
  if (const std::string given = options.text("quantization"); !given.empty()) return given;
  const Json* config = quantization_config(base_config);
  const Json* method = config != nullptr ? config->find("quant_method") : nullptr;
  return method != nullptr && method->is(Json::Kind::string) ? method->as_string() : "";
}

bool is_lora_runner(std::string_view runner) {
  constexpr std::array<std::string_view, 3> kNames = {"lora_cutedsl", "lora_triton", "lora_marlin"};
  return std::find(kNames.begin(), kNames.end(), runner) != kNames.end();
}

std::vector<PlanEvent> check_arguments(const PlanRequest& request, const Features& features) {
  Checker checker{request, features};
  checker.check_arguments();
  return std::move(checker.out);
}

std::vector<PlanEvent> check_runner(const PlanRequest& request, const Server& server) {
  Checker checker{request, server.features()};
  checker.check_wrapping(server);
  return std::move(checker.out);
}

}  // namespace moelora::sglang
