#include "tools/python/words.h"

#include <algorithm>
#include <array>

#include "lib/base/nearest.h"
#include "tools/sizes.h"

namespace moelora::python {
namespace {

constexpr std::array<std::string_view, 2> kOrders = {"rank-major", "expert-major"},
                                          kRoles = {"natural", "swapped"};
constexpr std::array<std::string_view, 4> kTypes = {"keep", "f32", "f16", "bf16"};
constexpr std::array<std::string_view, 2> kNames = {"family", "canonical"};
constexpr std::array<std::string_view, 2> kForms = {"per-expert", "fused"},
                                          kBaseTypes = {"keep", "bf16"};
constexpr std::array<std::string_view, 3> kFailOn = {"error", "warning", "never"};

// Which of a few words an option is; nullopt where it is not given.
std::optional<size_t> choice(const Words& words, const char* key, Option option,
                             std::string_view kind, std::span<const std::string_view> known) {
  std::string word;
  words.take(key, word);
  if (word.empty()) return std::nullopt;
  const auto at = std::find(known.begin(), known.end(), word);
  if (at == known.end()) throw unknown_word(at_option(option), kind, word, known);
  return static_cast<size_t>(at - known.begin());
}

std::optional<BOrder> order(const Words& words, const char* key, Option option) {
  const auto at = choice(words, key, option, "order", kOrders);
  if (!at) return std::nullopt;
  return *at == 0 ? BOrder::rank_major : BOrder::expert_major;
}

std::optional<Roles> roles(const Words& words, const char* key, Option option) {
  const auto at = choice(words, key, option, "role", kRoles);
  if (!at) return std::nullopt;
  return *at == 0 ? Roles::natural : Roles::swapped;
}

Links links(const Words& words) {
  bool follow = false;
  words.take("follow_links", follow);
  return follow ? Links::all : Links::within;
}

}  // namespace

nb::object Words::find(const char* key) const {
  return words_.contains(key) ? nb::object(words_[key]) : nb::none();
}

void Words::refuse(const char* key, const nb::object& value, bool wants_integer) {
  const bool number = !nb::isinstance<nb::bool_>(value) && PyIndex_Check(value.ptr()) != 0;
  if (wants_integer && number)
    throw Error(std::string(key) + "=", nb::cast<std::string>(nb::str(value)) + " is out of range");
  throw nb::type_error(
      (std::string(key) + ": cannot be a " + nb::type_name(value.type()).c_str()).c_str());
}

void Words::take_size(const char* key, uint64_t& out) const {
  const nb::object value = find(key);
  if (nb::isinstance<nb::str>(value))
    out = parse_size(std::string(key) + "=", nb::cast<std::string>(value));
  else
    take(key, out);
}

std::string Words::spelling(Option option) const {
  std::string out(option_name(option));
  std::replace(out.begin(), out.end(), '-', '_');
  const char* const other = option == Option::engine ? "for_" : option == Option::max ? "most" : "";
  for (const std::string& word : {out, out + "_", out + "s", std::string(other)})
    if (!word.empty() && words_.contains(word.c_str())) return word + "=";
  return "";
}

LoadOptions load_options(const Words& words) {
  LoadOptions out;
  words.take("from_", out.from);
  words.take("base", out.base);
  words.take("model_specs", out.model_specs);
  words.take("follow_base", out.follow_base);
  words.take("ignore_zip_crc", out.ignore_zip_crc);
  out.links = links(words);
  out.read.b_order = order(words, "b_order", Option::b_order);
  out.read.roles = roles(words, "roles", Option::roles);
  return out;
}

ConvertOptions convert_options(const Words& words) {
  ConvertOptions out;
  static_cast<LoadOptions&>(out) = load_options(words);
  words.take("to", out.to);
  words.take("for_", out.engine);
  words.take("server_options", out.server_options);
  words.take("drop", out.drop);
  out.out_b_order = order(words, "out_b_order", Option::out_b_order);
  out.out_roles = roles(words, "out_roles", Option::out_roles);
  out.canonical_names = choice(words, "names", Option::names, "value", kNames) == size_t{1};
  constexpr std::array<DType, 3> kCasts = {DType::F32, DType::F16, DType::BF16};
  if (const auto at = choice(words, "dtype", Option::dtype, "value", kTypes); at && *at > 0)
    out.dtype = kCasts[*at - 1];
  words.take("verify", out.verify);
  words.take("dry_run", out.dry_run);
  words.take_size("max_shard_size", out.max_shard_size);
  words.take("force", out.force);
  words.take("sync", out.sync);
  words.take("threads", out.threads);
  return out;
}

BaseConversion base_conversion(const Words& words) {
  BaseConversion out;
  const auto to = choice(words, "to", Option::to, "form", kForms);
  if (!to) throw Error(Option::to, "is empty, expected per-expert or fused");
  out.to = *to == 0 ? ExpertForm::per_expert : ExpertForm::fused;
  out.to_bf16 = choice(words, "dtype", Option::dtype, "value", kBaseTypes) == size_t{1};
  std::string layers, part;
  words.take("layers", layers);
  words.take("part", part);
  if (!layers.empty()) out.layers = parse_layers("layers=", layers);
  if (!part.empty()) {
    const auto [number, count] = parse_part("part=", part);
    out.part = {number, count};
  }
  words.take("model_specs", out.model_specs);
  out.links = links(words);
  words.take("verify", out.verify);
  words.take("dry_run", out.dry_run);
  words.take_size("max_shard_size", out.max_shard_size);
  words.take("force", out.force);
  words.take("sync", out.durable);
  words.take("threads", out.threads);
  return out;
}

ValidateOptions validate_options(const Words& words) {
  ValidateOptions out;
  static_cast<LoadOptions&>(out) = load_options(words);
  words.take("engines", out.engines);
  words.take("server_options", out.server_options);
  words.take("tp", out.tp);
  words.take("ep", out.ep);
  words.take("max_lora_rank", out.max_lora_rank);
  words.take("max_loras", out.max_loras);
  if (!words.find("gpu_memory").is_none()) words.take_size("gpu_memory", out.gpu_memory.emplace());
  words.take("compute_capability", out.compute_capability);
  words.take("values", out.look_at_values);
  words.take("numeric", out.numeric);
  words.take("source", out.source);
  words.take("device", out.device);
  words.take("forward", out.forward);
  words.take("ignore", out.ignore);
  words.take("project", out.project);
  words.take("threads", out.threads);
  return out;
}

CompareWeightsOptions weights_options(const Words& words) {
  CompareWeightsOptions out;
  static_cast<LoadOptions&>(out) = load_options(words);
  words.take("tolerance", out.tolerance);
  words.take("threads", out.threads);
  return out;
}

CompareLogprobsOptions logprobs_options(const Words& words) {
  CompareLogprobsOptions out;
  words.take("max", out.most);
  words.take("presets", out.presets);
  words.take("floor", out.floor);
  words.take("base_a", out.base_a);
  words.take("base_b", out.base_b);
  words.take("candidates", out.candidates);
  words.take("worst", out.worst);
  return out;
}

ScoreFilesOptions scoring_options(const Words& words) {
  ScoreFilesOptions out;
  static_cast<LoadOptions&>(out) = load_options(words);
  words.take("adapter", out.adapter);
  std::string precision;
  words.take("precision", precision);
  out.precision = precision_by_name(precision);
  words.take("temperature", out.temperature);
  words.take("top", out.top);
  words.take("threads", out.threads);
  return out;
}

PredictOptions prediction_options(const Words& words) {
  PredictOptions out;
  static_cast<ScoreFilesOptions&>(out) = scoring_options(words);
  words.take("engines", out.engines);
  words.take("server_options", out.server_pairs);
  words.take("most", out.most);
  return out;
}

ReportOptions report_options(const Words& words) {
  ReportOptions out;
  words.take("verbose", out.verbose);
  words.take("width", out.width);
  words.take("working_folder", out.working_folder);
  words.take("root", out.root);
  words.take("project", out.project);
  const size_t at = choice(words, "fail_on", Option::format, "value", kFailOn).value_or(0);
  if (at == 1) out.fail_on = Severity::warning;
  if (at == 2) out.fail_on = std::nullopt;
  return out;
}

}  // namespace moelora::python
