#include "lib/adapter/config/config_writer.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "lib/base/dotted_path.h"
#include "lib/base/regex/python_regex.h"
#include "lib/base/version.h"

namespace moelora {
namespace {

// The shortest name a pattern key may have: a module's leaf, a parameter's last two components.
std::string short_key(const ExpertTarget& target) {
  if (!target.parameter) return std::string(leaf_of(target.path));
  return target.path.substr(stem_of(parent_of(target.path)).size());
}

// The entries that give every target `value` where the default does not.
Json pattern(std::span<const ExpertTarget> targets, double standard,
             const std::function<double(const ExpertTarget&)>& value) {
  std::map<std::string, std::set<double>> values;  // by short key, over everything the key matches
  for (const ExpertTarget& t : targets) values[short_key(t)];
  for (const ExpertTarget& t : targets)
    for (auto& [key, seen] : values)
      if (ends_in(t.path, key)) seen.insert(value(t));
  std::map<std::string, double> entries;
  for (const ExpertTarget& t : targets) {
    if (value(t) == standard) continue;
    const std::string key = short_key(t);
    entries[values[key].size() > 1 ? t.path : key] = value(t);
  }
  Json::Members members;
  for (const auto& [key, v] : entries) members.emplace_back(key, whole_or_real(v));
  return Json::object(std::move(members));
}

void set_pattern(Json& config, std::string_view key, Json value) {
  if (!value.members().empty() || config.find(key) != nullptr) config.set(key, std::move(value));
}

void set_scales(Json& config, const AdapterConfig& original,
                std::span<const ExpertTarget> targets) {
  int64_t r = original.r;
  double alpha = original.lora_alpha;
  const bool uniform =
      !targets.empty() && std::all_of(targets.begin(), targets.end(), [&](const ExpertTarget& t) {
        return t.scaling == targets.front().scaling;
      });
  if (uniform) {
    r = targets.front().scaling.rank;
    alpha = targets.front().scaling.alpha;
  }
  if (r != original.r) config.set("r", Json(r));
  if (alpha != original.lora_alpha) config.set("lora_alpha", whole_or_real(alpha));
  set_pattern(config, "rank_pattern",
              pattern(targets, static_cast<double>(r),
                      [](const ExpertTarget& t) { return static_cast<double>(t.scaling.rank); }));
  set_pattern(config, "alpha_pattern",
              pattern(targets, alpha, [](const ExpertTarget& t) { return t.scaling.alpha; }));
}

using Names = std::vector<std::string>;

void add_unique(Names& names, const std::string& name) {
  if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
}

// How many modules or parameters of this name a whole model has, for expert targets: a name that is
// not targeted everywhere must be written with its full path.
bool everywhere(const WrittenConfig& in, int64_t found) {
  if (in.spec == nullptr) return true;
  const auto layers = std::count(in.spec->moe_layers.begin(), in.spec->moe_layers.end(), true);
  return found == layers * (in.layout->numbered ? in.spec->experts : 1);
}

// Expert names as short as they can be: the leaf (modules) or the path below the layer (parameters)
// where every layer has it, else full paths.
Names expert_names(const WrittenConfig& in, bool parameters) {
  std::map<std::string, Names> by_short;
  Names order;
  for (const ExpertTarget& t : in.experts) {
    if (t.parameter != parameters) continue;
    const std::string name(parameters ? below_layer(t.path) : leaf_of(t.path));
    by_short[name].push_back(t.path);
    add_unique(order, name);
  }
  Names out;
  for (const std::string& name : order) {
    const Names& paths = by_short[name];
    if (everywhere(in, static_cast<int64_t>(paths.size())))
      out.push_back(name);
    else
      out.insert(out.end(), paths.begin(), paths.end());
  }
  return out;
}

Names dense_modules(const WrittenConfig& in) {
  Names out;
  for (const ExpertTarget& t : in.dense)
    if (!t.parameter) out.push_back(t.path);
  return out;
}

bool is_shared_leaf(const WrittenConfig& in, std::string_view name) {
  return in.changes != nullptr && in.changes->shared_leaves.count(name) != 0;
}

// The original entries that still name a dense module, then leaves for the modules no entry names.
Names kept_modules(const WrittenConfig& in) {
  const Names modules = dense_modules(in);
  Names out;
  for (const std::string& entry : in.original.target_modules)
    if (!is_shared_leaf(in, entry) &&
        std::any_of(modules.begin(), modules.end(),
                    [&](const std::string& module) { return ends_in(module, entry); }))
      add_unique(out, entry);
  std::set<std::string> missing;
  for (const std::string& module : modules)
    if (!ends_in_any(module, out))
      missing.insert(
          std::string(is_shared_leaf(in, leaf_of(module)) ? below_layer(module) : leaf_of(module)));
  out.insert(out.end(), missing.begin(), missing.end());
  return out;
}

// exclude_modules of a config: names, or a regular expression of whole paths.
class Exclusion {
 public:
  explicit Exclusion(const Json& config) {
    const Json* said = config.find("exclude_modules");
    if (said == nullptr) return;
    if (said->is(Json::Kind::string)) regex_ = said->as_string();
    for (const Json& item : said->items())
      if (item.is(Json::Kind::string)) names_.push_back(item.as_string());
  }

  bool has(const std::string& path) const {
    if (ends_in_any(path, names_)) return true;
    if (regex_.empty()) return false;
    if (!compiled_ || compiled_->text() != regex_) compiled_.emplace(regex_);
    return compiled_->fullmatch(path);
  }

  // Takes out what keeps one of these modules from its factors.
  void admit(const Names& modules) {
    std::erase_if(names_, [&](const std::string& name) {
      return std::any_of(modules.begin(), modules.end(),
                         [&](const std::string& module) { return ends_in(module, name); });
    });
    if (std::any_of(modules.begin(), modules.end(),
                    [&](const std::string& module) { return has(module); }))
      regex_.clear();
  }

  void add(const Names& paths) {
    if (regex_.empty())
      names_.insert(names_.end(), paths.begin(), paths.end());
    else if (!paths.empty()) {
      regex_ = "(" + regex_ + ")";
      for (const std::string& path : paths) regex_ += "|" + path;
    }
  }

  Json json() const {
    if (!regex_.empty()) return regex_;
    return names_.empty() ? Json() : Json::strings(names_);
  }

 private:
  Names names_;
  std::string regex_;
  mutable std::optional<PythonRegex> compiled_;  // regex_, once it is asked
};

// Modules of the base that the new list names, though they hold no factor, and the old config did
// not.
Names overmatched(const WrittenConfig& in, const Names& targets, const Exclusion& old) {
  Names out;
  if (in.spec == nullptr) return out;
  const Names modules = dense_modules(in);
  const std::set<std::string> adapted(modules.begin(), modules.end());
  const Form form = in.layout != nullptr ? in.layout->form : Form::memory;
  for (const LinearSpec& linear : in.spec->linears) {
    if (!linear.is_in(form)) continue;
    const std::string& path = form == Form::hub ? linear.hub : linear.memory;
    if (adapted.count(path) == 0 && ends_in_any(path, targets) &&
        (!ends_in_any(path, in.original.target_modules) || old.has(path)))
      out.push_back(path);
  }
  return out;
}

void empty(Json& config, std::string_view key) {
  if (config.find(key) != nullptr) config.set(key, Json());
}

void set_names(Json& config, std::string_view key, const Names& names) {
  names.empty() ? empty(config, key) : config.set(key, Json::strings(names));
}

void exclude(const WrittenConfig& in, const Names& targets, Json& config) {
  const Exclusion old(config);
  Exclusion now = old;
  now.admit(dense_modules(in));
  Names more = overmatched(in, targets, old);
  std::erase_if(more, [&](const std::string& path) { return now.has(path); });
  now.add(more);
  Json said = now.json();
  if (said == old.json()) return;
  if (said.is(Json::Kind::null))
    empty(config, "exclude_modules");
  else
    config.set("exclude_modules", std::move(said));
}

void set_targets(const WrittenConfig& in, Json& config) {
  const Json* layers = config.find("layers_to_transform");
  const bool by_layer = layers != nullptr && !layers->is(Json::Kind::null);
  Names modules = by_layer ? dense_modules(in) : kept_modules(in);
  if (by_layer) {  // full paths say which layers; PEFT would apply the choice to the experts too
    empty(config, "layers_to_transform");
    empty(config, "layers_pattern");
  }
  for (const std::string& name : expert_names(in, false)) add_unique(modules, name);
  set_names(config, "target_modules", modules);
  if (config.find("target_modules") == nullptr) config.set("target_modules", Json());
  exclude(in, modules, config);

  Names parameters;
  for (const std::string& entry : in.original.target_parameters)
    for (const ExpertTarget& t : in.dense)
      if (t.parameter && ends_in(t.path, entry)) add_unique(parameters, entry);
  for (const ExpertTarget& t : in.dense)
    if (t.parameter && !ends_in_any(t.path, parameters)) add_unique(parameters, t.path);
  for (const std::string& name : expert_names(in, true)) add_unique(parameters, name);
  set_names(config, "target_parameters", parameters);
}

Json marker_of(const WrittenConfig& in) {
  Json::Members out{{"layout", Json(std::string(in.layout->id))}};
  if (in.layout->one_parameter) {
    out.emplace_back("roles", Json(std::string(roles_name(in.options.roles))));
    out.emplace_back("b_order", Json(std::string(b_order_name(in.options.b_order))));
  }
  if (in.layout->fused && in.gate_up_order)
    out.emplace_back("gate_up_order",
                     *in.gate_up_order == GateUpOrder::halves ? "halves" : "interleaved");
  out.emplace_back("version", Json(std::string(version())));
  return Json::object(std::move(out));
}

// In auto_mapping, where Unsloth keeps and reads its own: PEFT warns of keys that it does not know
// at the top level, and carries this one along. What the input's writer said of the order goes.
void set_markers(const WrittenConfig& in, Json& config) {
  const Json* old = config.find("auto_mapping");
  Json mapping = old != nullptr && old->is(Json::Kind::object) ? *old : Json::object({});
  for (const char* key : {"moelora", "lora_B_layout", "unsloth_fused_expert_lora"}) {
    config.erase(key);
    mapping.erase(key);
  }
  if (in.layout->one_parameter)
    mapping.set("lora_B_layout",
                in.options.b_order == BOrder::rank_major ? "rank_major" : "grouped_by_expert");
  mapping.set("moelora", marker_of(in));
  config.set("auto_mapping", std::move(mapping));
}

// A plain list of suffixes; what else PEFT would choose modules by is emptied.
void set_suffixes(const WrittenConfig& in, Json& config) {
  std::set<std::string> leaves;
  for (const auto& targets : {in.dense, in.experts})
    for (const ExpertTarget& t : targets) {
      const std::string leaf(leaf_of(t.path));
      const auto other = in.changes->suffixes.find(leaf);
      leaves.insert(other == in.changes->suffixes.end() ? leaf : other->second);
    }
  config.set("target_modules", Json::strings({leaves.begin(), leaves.end()}));
  for (const char* key :
       {"target_parameters", "exclude_modules", "layers_to_transform", "layers_pattern"})
    empty(config, key);
}

}  // namespace

Json whole_or_real(double value) {
  const bool whole = std::nearbyint(value) == value && std::fabs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

Json write_config(const WrittenConfig& in) {
  Json config = in.original.json;
  const bool fitted = in.changes != nullptr;
  if (config.find("peft_type") == nullptr) config.set("peft_type", "LORA");
  if (fitted && in.changes->targets == TargetStyle::suffixes)
    set_suffixes(in, config);
  else if (in.layout != nullptr || fitted)
    set_targets(in, config);
  else if (in.original.target_modules.empty() && in.original.target_regex.empty())
    set_names(config, "target_modules", kept_modules(in));
  if (in.layout != nullptr) set_markers(in, config);
  std::vector<ExpertTarget> all(in.dense.begin(), in.dense.end());
  all.insert(all.end(), in.experts.begin(), in.experts.end());
  if (in.layout != nullptr || fitted) set_scales(config, in.original, all);
  return config;
}

}  // namespace moelora
