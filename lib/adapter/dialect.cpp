#include "lib/adapter/dialect.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <unordered_map>
#include <utility>

#include "lib/adapter/config/config_writer.h"
#include "lib/adapter/layout.h"
#include "lib/adapter/names/config_kinds.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Text = std::string_view;

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &dialects::name,
#include "dialects.inc"
#undef MOELORA_ENTRY
};

bool says_lora(Text name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.find("lora") != std::string::npos;
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The name with 0 for every number between dots or underscores: no dialect is told by one.
void put_shape(Text name, std::string& out) {
  out.clear();
  const auto is_mark = [&](size_t at) { return name[at] == '.' || name[at] == '_'; };
  size_t copied = 0;
  for (size_t at = 0; at < name.size(); ++at) {
    if (!is_digit(name[at])) continue;
    const size_t begin = at;
    while (at < name.size() && is_digit(name[at])) ++at;
    if ((begin > 0 && !is_mark(begin - 1)) || (at < name.size() && !is_mark(at))) continue;
    out.append(name, copied, begin - copied).push_back('0');
    copied = at;
  }
  out.append(name, copied);
}

// What is decided once for each shape of a name.
template <class T>
class ByShape {
 public:
  // The value and whether the shape is new.
  std::pair<T&, bool> at(Text name) {
    put_shape(name, shape_);
    const auto [place, is_new] = known_.try_emplace(shape_);
    return {place->second, is_new};
  }

 private:
  std::unordered_map<std::string, T> known_;
  std::string shape_;
};

using Samples = std::vector<const TensorMap::value_type*>;

Samples samples_of(const TensorMap& tensors) {
  Samples out;
  ByShape<bool> seen;
  for (const auto& entry : tensors)
    if (seen.at(entry.first).second) out.push_back(&entry);
  return out;
}

// ---- the config of a translated file -----------------------------------------------------------

// A pattern's value for each module whose own differs from `all`.
template <class T, class Value>
void set_pattern(Json& config, Text key, const std::map<std::string, T>& by_module, T all,
                 Value&& value) {
  Json::Members out;
  for (const auto& [module, own] : by_module)
    if (own != all) out.emplace_back(module, value(own));
  if (!out.empty()) config.set(key, Json::object(std::move(out)));
}

// lora_alpha as most modules have it, alpha_pattern for the others.
void set_alphas(Json& config, const std::map<std::string, double>& alphas) {
  if (alphas.empty()) return;
  std::map<double, size_t> counts;
  for (const auto& [module, alpha] : alphas) ++counts[alpha];
  const double most =
      std::max_element(counts.begin(), counts.end(), [](const auto& a, const auto& b) {
        return a.second < b.second;
      })->first;
  config.set("lora_alpha", whole_or_real(most));
  config.erase("alpha_pattern");
  set_pattern(config, "alpha_pattern", alphas, most, whole_or_real);
}

// As patterns are looked up: modules of the base model by its memory's names (adapter_file.cpp),
// routed experts by those of the file.
std::string as_read(Text module, const ModelSpec* spec) {
  const bool plain = spec != nullptr && !parse_expert_path(module);
  return plain ? spec->normalised(std::string(module)) : std::string(module);
}

// PEFT's config beside factors of another rank: the scale alpha / r depends on which is right.
void check_rank(const AdapterFiles& files, const std::map<std::string, int64_t>& ranks) {
  if (ranks.empty() || !has_peft_keys(files.own_config) || files.config.rank_pattern.size() > 0)
    return;
  const auto has_it = [&](const auto& entry) { return entry.second == files.config.r; };
  if (std::any_of(ranks.begin(), ranks.end(), has_it)) return;
  const auto& [module, rank] = *ranks.begin();
  throw Error(module,
              fmt::format("has rank {}, but adapter_config.json says {}", rank, files.config.r),
              "set r to what the adapter was trained with: the scale lora_alpha / r depends on it");
}

// The rank of a factor lora_A: its last dim but one.
std::map<std::string, int64_t> ranks_of(const TensorMap& tensors, const ModelSpec* spec) {
  std::map<std::string, int64_t> ranks;
  for (const auto& [name, tensor] : tensors) {
    const TensorNameView parsed = view_tensor_name(name);
    if (parsed.part == TensorPart::lora_a && tensor.rank() >= 2 &&
        !is_expert_parameter(parsed.module))
      ranks[as_read(parsed.module, spec)] = tensor.dim(tensor.rank() - 2);
  }
  return ranks;
}

// What the config says stays (of PEFT's stacks, whose rank no factor tells); before it, as the
// first key counts, the modules of another rank than it gives them.
void set_ranks(Json& config, const AdapterConfig& said,
               const std::map<std::string, int64_t>& ranks) {
  Json::Members out;
  for (const auto& [module, rank] : ranks)
    if (said.scaling(module).rank != rank) out.emplace_back(module, Json(rank));
  if (out.empty()) return;
  if (const Json* old = config.find("rank_pattern"); old != nullptr && old->is(Json::Kind::object))
    for (const auto& [key, rank] : old->members())
      if (ranks.count(key) == 0) out.emplace_back(key, rank);
  config.set("rank_pattern", Json::object(std::move(out)));
}

// A key that names no module by its new name named one by the trainer's, whose scale would now be
// that of lora_alpha.
void check_alpha_pattern(const AdapterConfig& config, const TensorMap& tensors,
                         const ModelSpec* spec) {
  if (config.alpha_pattern.empty()) return;
  std::vector<std::string> modules;
  for (const auto& entry : tensors) {
    const TensorNameView parsed = view_tensor_name(entry.first);
    if (parsed.part != TensorPart::other) modules.push_back(as_read(parsed.module, spec));
  }
  const PathPatterns& keys = config.alpha_pattern.keys();
  const std::vector<PathPatterns::Use> uses = keys.uses(modules);
  for (size_t i = 0; i < uses.size(); ++i)
    if (!uses[i].names && uses[i].fault.empty())
      throw Error(in_file(config.where, "alpha_pattern"),
                  fmt::format("{} names no module of the base model that the file has factors of",
                              in_quotes(keys.key(i))),
                  "write its keys with the base model's names of modules, and remove those of "
                  "modules without factors");
}

}  // namespace

const Dialect unknown_dialect = {
    .id = "",
    .whose = "no trainer known here",
    .names = "\"lora\" in a name that does not end as PEFT's do",
    .shapes = "",
    .sources = "",
    .advice =
        "PEFT's names end in lora_A.weight and lora_B.weight: save the adapter with "
        "model.save_pretrained."};

std::span<const Dialect* const> all_dialects() { return kAll; }

const Dialect* find_dialect(Text id) {
  const auto* const at =
      std::find_if(kAll.begin(), kAll.end(), [&](const Dialect* s) { return s->id == id; });
  return at == kAll.end() ? nullptr : *at;
}

const Dialect* dialect_of_name(Text name) {
  const TensorPart part = view_tensor_name(name).part;
  const bool factor = part == TensorPart::lora_a || part == TensorPart::lora_b;
  if (part != TensorPart::other && !factor) return nullptr;
  for (const Dialect* dialect : kAll)
    if (dialect->owns != nullptr && dialect->owns(name)) return dialect;
  if (factor || name.find(".modules_to_save.") != Text::npos) return nullptr;
  return says_lora(name) ? &unknown_dialect : nullptr;
}

std::vector<ForeignFactors> foreign_factors(const TensorMap& tensors) {
  std::vector<ForeignFactors> out;
  ByShape<const Dialect*> known;
  for (const auto& [name, tensor] : tensors) {
    const auto [dialect, is_new] = known.at(name);
    if (is_new) dialect = dialect_of_name(name);
    if (dialect == nullptr) continue;
    const auto at = std::find_if(out.begin(), out.end(), [own = dialect](const auto& found) {
      return found.dialect == own;
    });
    (at == out.end() ? out.emplace_back(ForeignFactors{dialect, {}}) : *at).names.push_back(name);
  }
  return out;
}

std::string describe(const ForeignFactors& found, size_t tensors) {
  return fmt::format("{} of {} tensors are low-rank factors in the spelling of {} ({}), which {}",
                     found.names.size(), tensors, found.dialect->whose, found.dialect->names,
                     found.dialect->read == nullptr ? "nothing reads" : found.dialect->readers);
}

const Dialect* detect_dialect(const TensorMap& tensors, const Json& config, ShardSet set) {
  for (const Dialect* dialect : kAll)
    if (set != ShardSet::none && dialect->set == set) return dialect;
  const Samples samples = samples_of(tensors);
  for (const auto* sample : samples) {
    const Dialect* dialect = dialect_of_name(sample->first);
    if (dialect != nullptr && dialect->read != nullptr) return dialect;
  }
  for (const Dialect* dialect : kAll)
    if (dialect->fits != nullptr && dialect->fits(samples, config)) return dialect;
  return nullptr;
}

bool needs_no_config(const TensorMap& tensors) {
  const Dialect* dialect = detect_dialect(tensors, {});
  return dialect != nullptr && dialect->config != nullptr;
}

const Dialect* dialect_named(const std::string& word, Option said_by) {
  const auto can = [&](const Dialect* dialect) {
    return said_by == Option::to ? dialect->write != nullptr : dialect->read != nullptr;
  };
  std::vector<Text> known;
  for (const Layout* layout : all_layouts()) known.push_back(layout->id);
  if (word.empty() || std::find(known.begin(), known.end(), word) != known.end()) return nullptr;
  for (const Dialect* dialect : kAll)
    if (can(dialect)) known.push_back(dialect->id);
  const Dialect* dialect = find_dialect(word);
  if (dialect != nullptr && can(dialect)) return dialect;
  if (dialect != nullptr)
    throw Error(at_option(said_by, word),
                fmt::format("is the dialect of {}, which is {}", dialect->whose,
                            said_by == Option::to ? "read and not written" : "known and not read"),
                dialect->advice.empty() ? fmt::format("layouts: {}", fmt::join(known, ", "))
                                        : std::string(dialect->advice));
  throw unknown_word(at_option(said_by), "layout", word, known);
}

void read_config(Json config, AdapterFiles& files, const std::string& from) {
  const std::string where = join_path(files.folder, std::string(kConfigName));
  files.dialect = dialect_named(from, Option::from);
  files.form_said = !from.empty();
  if (from.empty()) files.dialect = detect_dialect(files.tensors, config, files.set);
  files.own_config = config;
  if (files.dialect != nullptr && files.dialect->config != nullptr && !has_peft_keys(config))
    config = files.dialect->config({files.tensors, files.own_config, where, nullptr});
  files.config = parse_adapter_config(std::move(config), where);
}

void translate(AdapterFiles& files, const ModelSpec* spec) {
  Translation out;
  const std::string& where = files.config.where;
  if (files.dialect == nullptr && spec != nullptr && !files.form_said)
    for (const Dialect* dialect : kAll)
      if (dialect->fits_base != nullptr &&
          dialect->fits_base({files.tensors, files.own_config, where, spec, files.set}))
        files.dialect = dialect;
  if (files.dialect == nullptr) return;
  files.dialect->read({files.tensors, files.own_config, where, spec, files.set}, out);
  files.notes.push_back(fmt::format(
      "written by {}: read as dialect {}, which is what --verify and --source compare with",
      files.dialect->whose, files.dialect->id));
  files.notes.insert(files.notes.end(), out.notes.begin(), out.notes.end());
  files.tensors = std::move(out.tensors);
  files.own_names = std::move(out.own_names);
  if (files.dialect->owns != nullptr || files.dialect->set != ShardSet::none)
    check_alpha_pattern(files.config, files.tensors, spec);
  Json config = files.config.json;
  config.erase("target_modules");  // of the trainer's names; the targets follow from the tensors
  std::map<std::string, double> alphas;
  for (auto& [module, alpha] : out.alphas) alphas[as_read(module, spec)] = alpha;
  const std::map<std::string, int64_t> ranks = ranks_of(files.tensors, spec);
  if (alphas.empty() && !out.joins) check_rank(files, ranks);
  set_alphas(config, alphas);
  set_ranks(config, files.config, ranks);
  files.config = parse_adapter_config(std::move(config), where);
}

}  // namespace moelora
