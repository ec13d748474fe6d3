#include "lib/engine/sglang/start_checks.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

bool is_router(std::string_view leaf) {
  return leaf == "router" || leaf == "gate" || leaf == "shared_expert_gate" || leaf == "wg";
}

bool is_gdn(std::string_view leaf) {
  return leaf.starts_with("in_proj_") && leaf != "in_proj_qkvz";
}

class Divisibility {
 public:
  std::vector<PlanEvent> events;

  void check(std::string_view what, int64_t number, std::string_view over, int64_t ranks) {
    if (ranks < 1 || number % ranks == 0 || !events.empty()) return;
    events.push_back({&cause::tp_divisibility,
                      Effect::refused,
                      {},
                      fmt::format("{} {} do not split over {} {}", what, number, over, ranks),
                      Refusal{"build the model", "AssertionError",
                              fmt::format("{} is not divisible by {}", number, ranks), false}});
  }
};

// The width of an MLP that every token passes: dense layers and shared experts.
int64_t width_of(const ClassModule& module) {
  return module.kind == LayerKind::merged && !module.out.empty() ? module.out.front() : 0;
}

}  // namespace

bool ends_the_start(const CpuAdapter& adapter) {
  const auto& entries = adapter.journal.entries();
  return std::any_of(entries.begin(), entries.end(), [](const Journal::Entry& entry) {
    if (!entry.refusal) return false;
    const std::string& at = entry.refusal->stage;
    return at == stage::kShapes || at == stage::kDetect || at == stage::kWrap ||
           at == stage::kPool || at == stage::kHandOver;
  });
}

std::vector<PlanEvent> check_divisibility(const ModelClass& model, int64_t tp, int64_t ep) {
  Divisibility out;
  out.check("tp ranks", tp, "ep groups, which are", ep);
  if (!out.events.empty()) return out.events;
  const HfConfig& config = model.config;
  out.check("attention heads", config.heads, "tp ranks, which are", tp);
  if (config.kv_heads >= tp) out.check("kv heads", config.kv_heads, "tp ranks, which are", tp);
  if (config.kv_heads < tp && out.events.empty() && tp % config.kv_heads != 0)
    out.check("tp ranks", tp, "kv heads, which are", config.kv_heads);
  if (model.has_moe) {
    out.check("columns of an expert (intermediate size)", model.intermediate,
              "expert-parallel tp ranks, which are", tp / ep);
    out.check("experts", model.experts, "ep groups, which are", ep);
  }
  for (const ClassModule& module : model.modules)
    out.check("columns of an MLP (intermediate size)", width_of(module), "tp ranks, which are", tp);
  return out.events;
}

bool check_target_list(CpuAdapter& adapter) {
  const Json* targets = adapter.config.find("target_modules");
  if (targets->is(Json::Kind::array)) return true;
  adapter.raise(
      {targets->is(Json::Kind::string) ? &cause::regex_targets : &cause::missing_field,
       stage::kShapes, "ValueError",
       targets->is(Json::Kind::string)
           ? fmt::format(
                 "SGLang does not recognize target_modules='{}'. Please use a list of module "
                 "name suffixes in the adapter's PEFT config, or explicitly specify "
                 "--lora-target-modules during server startup.",
                 in_text(targets->as_string()))
           : "SGLang currently only supports inferring LoRA target modules when a list of suffixes "
             "is provided in `target_modules` field of PEFT config. Please explicitly specify "
             "`--lora-target-modules` during server startup. You can specify `all` to enable all "
             "support modules types. ",
       fmt::format("target_modules is {}, expected a list", targets->kind_name())});
  return false;
}

bool check_within(CpuAdapter& adapter, const NameSet& targets) {
  NameSet outside, both = targets;
  for (const std::string& target : adapter.targets)
    if (targets.count(target) == 0) outside.insert(target);
  if (outside.empty()) return true;
  both.insert(outside.begin(), outside.end());
  const bool known = std::none_of(outside.begin(), outside.end(), [](const std::string& name) {
    return name == "w1" || name == "w2" || name == "w3" || name == "experts";
  });
  adapter.raise(
      {known ? &cause::server_options : &cause::w_names_in_targets, stage::kShapes, "ValueError",
       fmt::format(
           "LoRA adapter '{}' contains target modules {} that are not included in the "
           "specified --lora-target-modules {}. Please update --lora-target-modules to "
           "include all required modules: {}, or use 'all' to enable all supported modules.",
           in_text(adapter.name), py_list(outside), py_list(targets), py_list(both)),
       fmt::format("target_modules has {}, which --lora-target-modules lacks", py_list(outside))});
  return false;
}

CpuAdapter::Raise unsupported_module(const ClassModule& module) {
  const std::string type =
      module.python_type.empty() ? "sglang.srt.layers.linear.ReplicatedLinear" : module.python_type;
  return {is_router(module.leaf()) ? &cause::router_target : &cause::w_names_in_targets,
          stage::kWrap, "Exception",
          fmt::format("No corresponding LoRA layer supported for <class '{}'>.", type),
          fmt::format("target_modules names {}, which SGLang cannot adapt", module.leaf())};
}

CpuAdapter::Raise pool_error(const PoolError& error) {
  const Cause* const cause = is_router(error.module)          ? &cause::router_target
                             : is_gdn(error.module)           ? &cause::split_gdn
                             : error.type == "AttributeError" ? &cause::no_such_module
                                                              : &cause::w_names_in_targets;
  return {cause, stage::kPool, error.type, error.text,
          fmt::format("target_modules names {}, for which SGLang has no buffer",
                      in_text(error.module))};
}

std::vector<HandOverError> check_hand_over(const ModelClass& model, const Wrapping& wrapping,
                                           const Pool& pool) {
  std::vector<HandOverError> out;
  const auto known = [&](std::string_view target) {
    return std::any_of(out.begin(), out.end(), [&](const auto& e) { return e.target == target; });
  };
  for (const auto& layer : wrapping.layers)
    for (const WrappedModule& wrapped : layer) {
      const std::string target = wrapped.buffer.substr(0, wrapped.buffer.rfind("_moe"));
      if (known(target)) continue;
      const Buffer* buffer = pool.find(wrapped.buffer);
      const bool refused = std::any_of(pool.errors.begin(), pool.errors.end(),
                                       [&](const auto& e) { return e.module == wrapped.buffer; });
      if (buffer == nullptr && !refused) {
        const bool moe = wrapped.module->kind == LayerKind::fused_moe;
        out.push_back({target,
                       {moe ? &cause::moe_buffer_missing : &cause::dense_buffer_missing,
                        stage::kHandOver, "KeyError", py_repr(wrapped.buffer),
                        moe ? "this version has buffers for experts only where the config spells "
                              "num_experts and the model has shared experts"
                            : "the model has dense layers, and no shared experts: SGLang allocates "
                              "no buffer for them"}});
      } else if (buffer != nullptr && wrapped.module->kind == LayerKind::merged) {
        const auto shares = shares_of(*wrapped.module, model.config, pool.rank);
        int64_t rows = 0;
        for (const Span& share : shares) rows += share.count;
        const int64_t held = buffer->b[static_cast<size_t>(wrapped.module->layer)][0];
        if (rows == held) continue;
        out.push_back({target,
                       {&cause::qwen2_moe_shared_size, stage::kHandOver, "ValueError",
                        fmt::format("LoRA B output dim {} does not match base partition prefix dim "
                                    "{} for {} slices.",
                                    held, rows, shares.size()),
                        fmt::format("SGLang takes the rows of {} for {}, the layer has {}",
                                    wrapped.module->name, held, rows)}});
      }
    }
  return out;
}

std::vector<int32_t> sources_of_target(const CpuAdapter& adapter, std::string_view target,
                                       const Features& features) {
  std::vector<int32_t> out;
  for (size_t i = 0; i < adapter.sources.size(); ++i)
    if (normalised_target(leaf_of(adapter.sources[i].name), features) == target)
      out.push_back(static_cast<int32_t>(i));
  return out;
}

}  // namespace moelora::sglang
