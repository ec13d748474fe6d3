#include "lib/adapter/tensor_name.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

namespace moelora {
namespace {

constexpr std::string_view kExpertHole = "{expert}";
constexpr std::string_view kProjHole = "{proj}";

bool strip_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

std::string_view take_component(std::string_view& text) {
  const size_t dot = text.find('.');
  const std::string_view head = text.substr(0, dot);
  text = dot == std::string_view::npos ? std::string_view{} : text.substr(dot + 1);
  return head;
}

struct Wrapper {
  std::string_view component, whose;
};
constexpr std::array<Wrapper, 6> kWrappers = {
    {{"_orig_mod", "torch.compile"},
     {"module", "DDP or DeepSpeed"},
     {"_fsdp_wrapped_module", "FSDP"},
     {"_fpw_module", "FSDP"},
     {"_forward_module", "Lightning"},
     {"_checkpoint_wrapped_module", "activation checkpointing"}}};

const Wrapper* find_wrapper(std::string_view component) {
  const auto* const at = std::find_if(kWrappers.begin(), kWrappers.end(),
                                      [&](const Wrapper& w) { return w.component == component; });
  return at == kWrappers.end() ? nullptr : at;
}

// MODULE.lora_A.weight, MODULE.lora_A, MODULE.lora_A.ADAPTER.weight: leaves MODULE in `name`.
// `marker` is ".lora_A".
bool strip_factor(std::string_view& name, std::string_view marker) {
  if (strip_suffix(name, marker)) return true;
  std::string_view rest = name;
  if (!strip_suffix(rest, ".weight")) return false;
  if (!rest.ends_with(marker) && !rest.ends_with('.')) rest = parent_of(rest);  // of ADAPTER
  if (!strip_suffix(rest, marker)) return false;
  name = rest;
  return true;
}

// MODULE.lora_A.weight or MODULE.lora_B.weight, as nearly every name ends, where the general rules
// below would not find another marker before it.
std::optional<TensorNameView> plain_factor(std::string_view name) {
  constexpr std::string_view kA = ".lora_A.weight", kB = ".lora_B.weight";
  const bool is_a = name.ends_with(kA);
  if (!is_a && !name.ends_with(kB)) return std::nullopt;
  name.remove_suffix(kA.size());
  if (name.ends_with(".lora_magnitude_vector") || name.ends_with(".lora_A")) return std::nullopt;
  return TensorNameView{name, is_a ? TensorPart::lora_a : TensorPart::lora_b};
}

struct FormNames {
  ExpertPath::Form form;
  NamePattern names;
};

constexpr std::array<FormNames, 5> kForms = {
    {{ExpertPath::Form::numbered, {"{expert}.{proj}", kNumberedWords}},
     {ExpertPath::Form::numbered, {"{expert}.{proj}", kJoinedWords}},
     {ExpertPath::Form::plural, {"{proj}.{expert}", kPluralWords}},
     {ExpertPath::Form::named, {"{proj}", kApartWords}},
     {ExpertPath::Form::named, {"{proj}", kJoinedWords}}}};

void find_place(ExpertPath& path) {
  // DBRX's parameters stand in a module below: experts.mlp.
  std::string_view below = path.rest;
  if (std::string_view rest = below; take_component(rest) == "mlp" && !below.ends_with('.'))
    below = rest;
  if (const auto depth = nesting(below)) {
    path.form = ExpertPath::Form::parameters;
    path.nesting = *depth;
    return;
  }
  for (const FormNames& candidate : kForms) {
    const auto at = candidate.names.match(path.rest);
    if (!at) continue;
    path.form = candidate.form;
    path.expert = at->expert;
    path.projection = at->projection;
    return;
  }
}

}  // namespace

std::string_view wrapper_in(std::string_view name) {
  // All of them begin with '_' or "mod": every name of every file comes by here, several times.
  char before = '.';
  for (size_t at = 0; at < name.size(); before = name[at++]) {
    if (before != '.' || (name[at] != '_' && !name.substr(at).starts_with("mod"))) continue;
    const std::string_view component = name.substr(at, name.find('.', at) - at);
    if (const Wrapper* wrapper = find_wrapper(component)) return wrapper->whose;
  }
  return {};
}

std::string without_wrappers(std::string_view name) {
  if (wrapper_in(name).empty()) return std::string(name);  // whatever dots it begins or ends with
  std::string out;
  while (!name.empty()) {
    const std::string_view component = take_component(name);
    if (find_wrapper(component) != nullptr) continue;
    if (!out.empty()) out += '.';
    out += component;
  }
  return out;
}

TensorName parse_tensor_name(std::string_view name) {
  const std::string unwrapped = wrapper_in(name).empty() ? std::string() : without_wrappers(name);
  const TensorNameView out = view_tensor_name(unwrapped.empty() ? name : unwrapped);
  return {std::string(out.module), out.part};
}

TensorNameView view_tensor_name(std::string_view name) {
  name = without_peft_prefix(name);
  if (const auto factor = plain_factor(name)) return *factor;
  const std::string_view whole = name;
  struct Row {
    std::string_view marker;
    TensorPart part;
  };
  constexpr std::array<Row, 4> kFactors = {{{".lora_A", TensorPart::lora_a},
                                            {".lora_B", TensorPart::lora_b},
                                            {".lora_embedding_A", TensorPart::embedding_a},
                                            {".lora_embedding_B", TensorPart::embedding_b}}};
  if (strip_suffix(name, ".lora_B.bias")) return {name, TensorPart::lora_bias};
  if (strip_suffix(name, ".lora_magnitude_vector") || strip_factor(name, ".lora_magnitude_vector"))
    return {name, TensorPart::magnitude};
  if (strip_suffix(name, ".base_layer.weight")) return {name, TensorPart::base_weight};
  for (const Row& row : kFactors)
    if (strip_factor(name, row.marker)) return {name, row.part};
  return {whole, TensorPart::other};
}

std::string lora_name(std::string_view module, Side side) {
  return fmt::format("{}{}.lora_{}.weight", kPeftPrefix, module, side_letter(side));
}

std::optional<NumberPlace> find_linear_expert(std::string_view module) {
  constexpr std::string_view kWord = "experts.expert_";
  const size_t at = module.find(kWord);
  if (at == std::string_view::npos || (at > 0 && module[at - 1] != '.')) return std::nullopt;
  const size_t begin = at + kWord.size(), end = module.find('.', begin);
  if (end == std::string_view::npos || !parse_index(module.substr(begin, end - begin)))
    return std::nullopt;
  return NumberPlace{begin, end};
}

std::optional<ExpertPath> parse_expert_path(std::string_view module) {
  const auto layer = find_layer(module);
  if (!layer || find_linear_expert(module)) return std::nullopt;
  for (size_t at = layer->end; at != std::string_view::npos; at = module.find('.', at + 1)) {
    const std::string_view here = module.substr(at + 1);
    if (here != "experts" && !(here.starts_with("experts.") && here.size() > 8)) continue;
    const size_t end = at + 1 + 7;
    // A router that chooses among them is none of them (JetMoe's attention).
    if (here.starts_with("experts.router.") || here == "experts.router") return std::nullopt;
    std::string stem;
    stem.reserve(module.size());
    stem.append(module.substr(0, layer->begin)).append("{layer}");
    stem.append(module.substr(layer->end, end - layer->end));
    ExpertPath out{std::move(stem), layer->layer,
                   std::string(end < module.size() ? module.substr(end + 1) : std::string_view{})};
    find_place(out);
    return out;
  }
  return std::nullopt;
}

bool is_expert_parameter(std::string_view module) {
  const auto path = parse_expert_path(module);
  return path && path->form == ExpertPath::Form::parameters;
}

std::optional<int> nesting(std::string_view rest) {
  if (rest.ends_with('.')) return std::nullopt;
  int depth = 0;
  for (; !rest.empty(); ++depth)
    if (take_component(rest) != "base_layer") return std::nullopt;
  return depth;
}

std::optional<NamePattern::At> NamePattern::match(std::string_view rest) const {
  At at{std::nullopt, Projection::down};
  std::string_view pattern = pattern_;
  while (!pattern.empty()) {
    const size_t dot = rest.find('.');
    if ((dot == std::string_view::npos) != (pattern.find('.') == std::string_view::npos))
      return std::nullopt;
    const std::string_view hole = take_component(pattern), text = take_component(rest);
    if (hole == kExpertHole) {
      at.expert = parse_index(text);
      if (!at.expert) return std::nullopt;
    } else {
      const auto word = std::find_if(words_.begin(), words_.end(),
                                     [&](const Word& entry) { return entry.text == text; });
      if (word == words_.end()) return std::nullopt;
      at.projection = word->projection;
    }
  }
  return at;
}

std::string NamePattern::format(int64_t expert, std::string_view word) const {
  std::string out(pattern_);
  if (const size_t at = out.find(kExpertHole); at != std::string::npos)
    out.replace(at, kExpertHole.size(), std::to_string(expert));
  return out.replace(out.find(kProjHole), kProjHole.size(), word);
}

std::string_view NamePattern::word(Projection projection) const {
  for (const Word& word : words_)
    if (word.projection == projection) return word.text;
  return {};
}

}  // namespace moelora
