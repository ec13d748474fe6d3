#include "lib/engine/sglang/load/read_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/model/targets.h"

namespace moelora::sglang {
namespace {

constexpr int64_t kMostRank = int64_t{1} << 28;  // no server has memory for more

NameSet outside_of(const NameSet& within, const NameSet& targets) {
  NameSet out;
  for (const std::string& target : targets)
    if (within.count(target) == 0) out.insert(target);
  return out;
}

struct ConfigReader {
  const ServedAdapter& served;
  const ModelClass& model;
  const Features& features;
  const PoolRequest* pool;
  CpuAdapter out = {};

  CpuAdapter read() {
    out.name = served.name;
    out.at_start = pool == nullptr;
    out.config = served.config;
    out.alive = has_file() && has_keys() && no_added_tokens() && no_dora() && fits_pool() &&
                is_lora() && has_scale();
    return std::move(out);
  }

  bool fail(CpuAdapter::Raise raise) {
    out.raise(raise);
    return false;
  }

  bool has_file() {
    if (served.has_config) return true;
    return fail({&cause::unreadable_adapter, stage::kConfig, "FileNotFoundError",
                 fmt::format("[Errno 2] No such file or directory: {}",
                             py_repr(served.folder + "/adapter_config.json")),
                 "adapter_config.json cannot be read"});
  }

  bool has_keys() {
    for (std::string_view key : {"target_modules", "r", "lora_alpha"})
      if (served.config.find(key) == nullptr)
        return fail({&cause::missing_field, stage::kConfig, "KeyError", py_repr(key),
                     fmt::format("adapter_config.json has no {}", key)});
    read_targets(*served.config.find("target_modules"));
    return true;
  }

  // Only what is a list or a string counts; the rest is refused with the first tensor.
  void read_targets(const Json& targets) {
    if (targets.is(Json::Kind::string))
      out.all_targets = targets.as_string() == "all" || targets.as_string() == "all-linear";
    for (const Json& item : targets.items())
      if (item.is(Json::Kind::string))
        out.targets.insert(normalised_target(item.as_string(), features));
  }

  bool no_added_tokens() {
    if (!served.added_tokens) return true;
    int64_t added = 0;
    for (const auto& [token, id] : served.added_tokens->members())
      if (id.is_number() && (!features.detects_shared_outer ||
                             id.as_double() >= static_cast<double>(model.config.vocab)))
        ++added;
    if (added == 0) return true;
    return fail({&cause::added_tokens, stage::kValidate, "ValueError",
                 fmt::format("Failed to load {} because LoRA serving currently doesn't support "
                             "adapters that add tokens to the vocabulary",
                             in_text(out.name)),
                 fmt::format("added_tokens.json has {} tokens with ids from {} on, the size of the "
                             "base's vocabulary",
                             added, model.config.vocab)});
  }

  bool no_dora() {
    const Json* dora = served.config.find("use_dora");
    if (dora == nullptr || !dora->is(Json::Kind::boolean) || !dora->as_bool()) return true;
    if (!features.refuses_dora) {
      out.add_event(&cause::dora, Effect::wrong_values,
                    "use_dora is true; this version serves the adapter as plain LoRA");
      return true;
    }
    return fail(
        {&cause::dora, stage::kValidate, "ValueError",
         fmt::format("Failed to load {} because LoRA serving currently doesn't support DoRA "
                     "adapters",
                     in_text(out.name)),
         "use_dora is true"});
  }

  // LoRAMemoryPool.can_support().
  bool fits_pool() {
    if (pool == nullptr) return true;
    const Json& r = *served.config.find("r");
    const int64_t rank = r.is(Json::Kind::integer) ? r.as_int() : 0;
    const bool rank_fits = rank <= pool->max_rank;
    if (rank_fits && (out.all_targets || outside_of(pool->targets, out.targets).empty()))
      return true;
    const Cause* const cause = rank_fits ? &cause::config_without_tensors : &cause::rank_over_limit;
    return fail(
        {cause, stage::kValidate, "ValueError",
         fmt::format("LoRA adapter {} with rank {} is incompatible with the current LoRA "
                     "memory pool configuration. Please ensure that the LoRA adapter's rank "
                     "is within the configured `--max-lora-rank` and that the target "
                     "modules are included in `--lora-target-modules`.",
                     in_text(out.name), rank),
         rank_fits ? fmt::format("its modules {} are not all among the server's {}",
                                 py_list(out.targets), py_list(pool->targets))
                   : fmt::format("its rank {} is above the server's --max-lora-rank {}", rank,
                                 pool->max_rank)});
  }

  bool is_lora() {
    const Json* type = served.config.find("peft_type");
    if (type == nullptr)
      return fail({&cause::missing_field, stage::kRead, "KeyError", "'peft_type'",
                   "adapter_config.json has no peft_type"});
    if (!type->is(Json::Kind::string))
      return fail({&cause::missing_field, stage::kRead, "AttributeError",
                   fmt::format("'{}' object has no attribute 'lower'", py_type(*type)),
                   "peft_type is not a string"});
    std::string lower = type->as_string();
    for (char& c : lower)
      if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (lower == "lora") return true;
    return fail(
        {&cause::missing_field, stage::kRead, "AssertionError", "",
         fmt::format("peft_type is {}, SGLang serves LORA only", py_repr(type->as_string()))});
  }

  bool has_scale() {
    const Json &r = *served.config.find("r"), &alpha = *served.config.find("lora_alpha");
    const auto counts = [](const Json& v) { return v.is_number() || v.is(Json::Kind::boolean); };
    if (!counts(r) || !counts(alpha))
      return fail({&cause::missing_field, stage::kRead, "TypeError",
                   fmt::format("unsupported operand type(s) for /: '{}' and '{}'", py_type(alpha),
                               py_type(r)),
                   fmt::format("r is {}, lora_alpha is {}", r.kind_name(), alpha.kind_name())});
    if (r.is_number() && r.as_double() == 0)
      return fail({&cause::missing_field, stage::kRead, "ZeroDivisionError",
                   alpha.is(Json::Kind::real) ? "float division by zero" : "division by zero",
                   "r is 0"});
    if (!r.is(Json::Kind::integer) || r.as_int() < 0 || r.as_int() > kMostRank)
      return fail({&cause::missing_field, stage::kPool, "TypeError", "",
                   fmt::format("r is {}, expected a positive integer", r.dump(-1))});
    out.r = r.as_int();
    out.alpha = alpha.is_number() ? alpha.as_double() : 1;
    return true;
  }
};

}  // namespace

CpuAdapter read_config(const ServedAdapter& served, const ModelClass& model,
                       const Features& features, const PoolRequest* pool) {
  return ConfigReader{served, model, features, pool}.read();
}

bool check_iterable_targets(CpuAdapter& adapter) {
  const Json& targets = *adapter.config.find("target_modules");
  if (targets.is(Json::Kind::array) || targets.is(Json::Kind::object) || adapter.all_targets)
    return true;
  if (targets.is(Json::Kind::string))
    adapter.raise({&cause::regex_targets, stage::kRead, "ValueError",
                   "Only 'all' or 'all-linear' can be used as the string for target module",
                   fmt::format("target_modules is the string {}", py_repr(targets.as_string()))});
  else
    adapter.raise({&cause::missing_field, stage::kRead, "TypeError",
                   fmt::format("'{}' object is not iterable", py_type(targets)),
                   fmt::format("target_modules is {}, expected a list", targets.kind_name())});
  return false;
}

bool check_listed_targets(CpuAdapter& adapter) {
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

bool check_targets_within(CpuAdapter& adapter, const NameSet& targets) {
  const NameSet outside = outside_of(targets, adapter.targets);
  if (outside.empty()) return true;
  NameSet both = targets;
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

}  // namespace moelora::sglang
