#include "lib/engine/sglang/kernels/expert_kernel.h"

#include <fmt/format.h>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copied_values.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

using GateUp = ExpertKernel::GateUp;

GateUp gate_up_of(const ModelClass& model, const ServerOptions& options) {
  if (!model.gated) return GateUp::apart;
  const bool experimental = options.text("moe-runner-backend").starts_with("experimental_sgl_");
  if (options.on("lora-use-virtual-experts"))
    return experimental ? GateUp::apart : GateUp::gate_a_only;
  return model.interleaved ? GateUp::halves : GateUp::apart;
}

bool has_expert_lora(const Features& features, const ServerOptions& options) {
  const std::string backend = options.text("lora-backend");
  return features.csgmv_experts || backend.empty() || backend == "triton";
}

constexpr int64_t kMostVirtualExperts = 8191;  // of the alignment kernel
constexpr std::string_view kForward = "forward";

std::string text_at(const Json* json, std::string_view key) {
  const Json* value = json != nullptr ? json->find(key) : nullptr;
  return value != nullptr && value->is(Json::Kind::string) ? value->as_string() : "";
}

const Json* quantization_config(const Json& base) {
  if (const Json* config = base.find("quantization_config")) return config;
  const Json* text = base.find("text_config");
  return text != nullptr ? text->find("quantization_config") : nullptr;
}

// How the base's experts are stored, as SGLang's quant methods are called.
std::string quantization_of(const ServerOptions& options, const Json& base) {
  if (const std::string given = options.text("quantization"); !given.empty()) return given;
  return text_at(quantization_config(base), "quant_method");
}

bool uses_marlin(std::string_view quantization, std::string_view backend) {
  if (backend == "triton") return false;
  return quantization == "compressed-tensors" || quantization == "modelopt_fp4" ||
         quantization == "modelopt" || backend == "marlin";
}

class KernelChecker {
 public:
  KernelChecker(Server& server, size_t index, const ServerOptions& options, const Json& base)
      : server_(server),
        model_(server.model()),
        features_(server.features()),
        adapter_(server.mutable_adapter(index)),
        copied_(server.copied(index)),
        options_(options),
        base_(base),
        kernel_(expert_kernel(model_, features_, options, adapter_.r, server.max_lora_rank())) {}

  void check() {
    check_class();
    find_experts();
    if (experts_.empty()) return;
    check_quantization();
    check_backend();
    check_versions();
    check_virtual();
    check_weights();
    check_split_a();
  }

 private:
  // Sources that reach an experts' buffer.
  void find_experts() {
    if (copied_ == nullptr) return;
    for (size_t i = 0; i < adapter_.sources.size(); ++i)
      if (copied_->is_expert(static_cast<int32_t>(i))) experts_.push_back(static_cast<int32_t>(i));
  }

  std::vector<int32_t> down() const {
    std::vector<int32_t> out;
    for (int32_t id : experts_)
      if (contains(copied_->buffer(id), "down_proj_moe")) out.push_back(id);
    return out;
  }

  void refuse(const Cause* cause, std::string_view stage, std::string_view type, std::string text,
              std::string detail, bool first_use = false) {
    adapter_.raise({cause, stage, type, std::move(text), std::move(detail), first_use}, experts_);
  }

  void wrong(const Cause* cause, Effect effect, const std::vector<int32_t>& about,
             std::string detail) {
    adapter_.add_event(cause, effect, std::move(detail), about);
  }

  void check_quantization() {
    const std::string quantization = quantization_of(options_, base_);
    const std::string backend = options_.text("moe-runner-backend");
    if (quantization == "mxfp4" && backend != "triton_kernel")
      refuse(&cause::quantised_experts, stage::kWrap, "NotImplementedError",
             "Mxfp4MoEMethod must implement get_triton_quant_info()",
             "the base's experts are MXFP4, for which SGLang has no expert LoRA");
    if (uses_marlin(quantization, backend)) check_marlin();
  }

  // MarlinLoraRunnerCore.run() asserts these with the first batch.
  void check_marlin() {
    if (model_.interleaved || !model_.gated)
      refuse(&cause::marlin_limits, kForward, "AssertionError",
             "Only SiLU activation is supported.",
             "the base's experts have another activation than SiLU", true);
    if (options_.compute_capability && *options_.compute_capability < 9)
      refuse(&cause::marlin_limits, kForward, "AssertionError",
             "MarlinLoraRunnerCore requires CUDA compute capability >= 9",
             fmt::format("compute capability {}", *options_.compute_capability), true);
  }

  void check_backend() {
    if (!kernel_.has_lora)
      wrong(&cause::backend_without_moe_lora, Effect::unused, experts_,
            fmt::format("--lora-backend {}: this version has expert LoRA with triton only",
                        options_.text("lora-backend")));
    const std::string runner = options_.text("moe-runner-backend");
    if (!has_lora(runner)) refuse_runner(runner);
  }

  // Runners that FusedMoEWithLoRA takes; marlin falls back to triton where nothing is quantised.
  bool has_lora(std::string_view runner) const {
    if (runner.empty() || runner == "auto" || runner == "triton") return true;
    if (runner.starts_with("experimental_sgl_")) return features_.moe_runner_config;
    return runner == "marlin" && features_.replicated_layers;
  }

  void refuse_runner(const std::string& runner) {
    const std::string detail =
        fmt::format("--moe-runner-backend {} keeps the experts in a form without LoRA", runner);
    if (features_.replicated_layers)
      refuse(&cause::backend_without_moe_lora, stage::kWrap, "NotImplementedError",
             "LoRA MoE not supported for backend MoeRunnerBackend." + enumerator_of(runner),
             detail);
    else
      refuse(&cause::backend_without_moe_lora, stage::kWrap, "AttributeError",
             "'FusedMoE' object has no attribute 'w13_weight'", detail);
  }

  static std::string enumerator_of(std::string_view runner) {
    std::string out(runner == "triton_kernel" ? "triton_kernels" : runner);
    for (char& c : out)
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    return in_text(out);
  }

  void check_versions() {
    if (!features_.moe_runner_config && model_.facts.asks_for_moe_runner_config)
      refuse(&cause::moe_runner_config, "capture CUDA graph", "AttributeError",
             "'FusedMoEWithLoRA' object has no attribute 'moe_runner_config'",
             "this version's model class asks the wrapped experts for what they do not have");
    if (kernel_.up_at_max_rank)
      wrong(&cause::rank_over_limit, Effect::wrong_values, experts_,
            fmt::format("r = {} below the server's rank {}: this version's experts take up's rows "
                        "from the wrong place",
                        adapter_.r, server_.max_lora_rank()));
    if (!features_.slices_always && model_.interleaved && server_.launch().tp == 1)
      wrong(&cause::interleaved_b, Effect::wrong_values, experts_,
            "this version interleaves gate and up at tp 2 or more only");
  }

  void check_virtual() {
    if (!options_.on("lora-use-virtual-experts")) return;
    const int64_t slots = server_.launch().slots;
    const int64_t count = model_.experts * slots;
    if (count > kMostVirtualExperts)
      refuse(&cause::virtual_experts_limit, stage::kLoad, "AssertionError", "",
             fmt::format("{} experts x {} slots are {} virtual experts, the kernel takes {}",
                         model_.experts, slots, count, kMostVirtualExperts));
    if (!features_.csgmv_experts && options_.text("lora-backend") != "triton")
      refuse(&cause::backend_without_moe_lora, "constructor", "AssertionError",
             fmt::format(
                 "--lora-use-virtual-experts requires --lora-backend triton. Got: {}",
                 options_.text("lora-backend").empty() ? "csgmv" : options_.text("lora-backend")),
             "virtual experts need --lora-backend triton in this version");
  }

  // What the class does to the deltas, were it ever to start with them.
  void check_class() {
    if (kernel_.weights_outputs) return;
    std::vector<int32_t> about;
    for (size_t i = 0; i < adapter_.sources.size(); ++i)
      if (contains(adapter_.sources[i].name, "experts.")) about.push_back(static_cast<int32_t>(i));
    if (about.empty()) return;
    wrong(&cause::weight_on_input, Effect::wrong_values, about,
          "this class weights the experts' input; SGLang weights the delta of down instead of that "
          "of gate and up");
  }

  void check_weights() {
    if (!kernel_.sums_down)
      wrong(&cause::server_options, Effect::unused, down(),
            "--enable-fused-moe-sum-all-reduce: the delta of down_proj is written where nothing "
            "sums it");
  }

  // Pairs of gate and up with an A each: right only where the two are equal.
  void check_split_a() {
    if (kernel_.gate_up == ExpertKernel::GateUp::apart) return;
    const bool virtual_experts = kernel_.gate_up == ExpertKernel::GateUp::gate_a_only;
    std::vector<int32_t> about;
    for (LayerWeights& weights : adapter_.layers)
      for (size_t i = 0; i < weights.count(); ++i) {
        const Staged* entry = weights.at(i);
        if (entry == nullptr || !entry->is_a() || !contains(entry->name, "experts.")) continue;
        const auto sources = entry->sources();
        if (sources.size() == 2 && sources[0] != sources[1] && copied_->is_expert(sources[0]))
          about.insert(about.end(), sources.begin(), sources.end());
      }
    if (about.empty()) return;
    wrong(
        virtual_experts ? &cause::virtual_experts_up : &cause::gpt_oss_split_a,
        Effect::wrong_values, about,
        virtual_experts
            ? "gate_proj and up_proj have an A each, and virtual experts use gate's for both"
            : "gate_proj and up_proj have an A each, and SGLang gives gate's to the first half of "
              "the interleaved rows and up's to the second");
  }

  Server& server_;
  const ModelClass& model_;
  const Features& features_;
  CpuAdapter& adapter_;
  const CopiedValues* copied_;
  const ServerOptions& options_;
  const Json& base_;
  const ExpertKernel kernel_;
  std::vector<int32_t> experts_;
};

}  // namespace

ExpertKernel expert_kernel(const ModelClass& model, const Features& features,
                           const ServerOptions& options, int64_t r, int64_t max_rank) {
  ExpertKernel out;
  out.gate_up = gate_up_of(model, options);
  out.has_lora = has_expert_lora(features, options);
  out.sums_down = !(options.on("enable-fused-moe-sum-all-reduce") && model.top_k > 2);
  out.weights_outputs = !model.facts.weights_input;
  out.up_at_max_rank = model.gated && !features.any_rank_below_max && r < max_rank;
  return out;
}

void check_kernels(Server& server, size_t index, const ServerOptions& options,
                   const Json& base_config) {
  KernelChecker(server, index, options, base_config).check();
}

}  // namespace moelora::sglang
