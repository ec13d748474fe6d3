#include "lib/compare/bits/names.h"

#include <algorithm>
#include <array>

#include "lib/base/dotted_path.h"

namespace moelora::packed {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";

// The next component of a dotted path; `path` becomes what follows.
std::string_view take(std::string_view& path) {
  const size_t dot = std::min(path.find('.'), path.size());
  const std::string_view head = path.substr(0, dot);
  path.remove_prefix(std::min(dot + 1, path.size()));
  return head;
}

// The last component; `path` becomes what stands before it.
std::string_view take_last(std::string_view& path) {
  const std::string_view tail = leaf_of(path);
  path = parent_of(path);
  return tail;
}

struct Factor {
  Side side;
  bool embedding;
};

std::optional<Factor> factor_of(std::string_view component) {
  if (component == "lora_A") return Factor{Side::A, false};
  if (component == "lora_B") return Factor{Side::B, false};
  if (component == "lora_embedding_A") return Factor{Side::A, true};
  if (component == "lora_embedding_B") return Factor{Side::B, true};
  return std::nullopt;
}

struct Word {
  std::string_view text;
  Projection projection;
};
constexpr std::array<Word, 10> kWords = {{{"gate_proj", Projection::gate},
                                          {"up_proj", Projection::up},
                                          {"down_proj", Projection::down},
                                          {"gate_up_proj", Projection::gate_up},
                                          {"w1", Projection::gate},
                                          {"w3", Projection::up},
                                          {"w2", Projection::down},
                                          {"linear", Projection::gate},  // Grok-1's
                                          {"linear_v", Projection::up},
                                          {"linear_1", Projection::down}}};

const Word* find_word(std::string_view text) {
  const auto* const found =
      std::find_if(kWords.begin(), kWords.end(), [&](const Word& w) { return w.text == text; });
  return found == kWords.end() ? nullptr : found;
}

// The side, and `path` without "lora_A", "lora_A.weight" or "lora_A.ADAPTER.weight" at its end.
std::optional<Factor> take_factor(std::string_view& path) {
  std::string_view rest = path;
  std::string_view last = take_last(rest);
  std::optional<Factor> factor = factor_of(last);
  if (!factor && last == "weight") {
    last = take_last(rest);
    factor = factor_of(last);
    if (!factor && !last.empty()) factor = factor_of(take_last(rest));
  }
  if (factor) path = rest;
  return factor;
}

// nllb-moe's "expert_3.fc1", a Linear like any other.
bool is_linear(std::string_view rest) {
  const std::string_view first = take(rest);
  return !rest.empty() && first.starts_with("expert_") && parse_index(first.substr(7));
}

// What follows "layers", or DBRX's "transformer.blocks"; nothing where neither is there.
std::string_view behind_layers(std::string_view path) {
  for (std::string_view before; !path.empty();) {
    const std::string_view here = take(path);
    if (here == "layers" || (here == "blocks" && before == "transformer")) break;
    before = here;
  }
  return path;
}

// Finds "layers.N" and, after it, "experts"; their router is a dense module.
void find_experts(FactorName& name) {
  std::string_view rest = behind_layers(name.module);
  const auto layer = parse_index(take(rest));
  if (!layer || rest.empty()) return;
  while (!rest.empty()) {
    if (take(rest) != "experts") continue;
    if (is_linear(rest)) return;
    const bool outermost = rest.empty();
    if (rest.substr(0, rest.find('.')) == "router") return;
    if (outermost && name.module.back() == '.') return;
    name.expert = true;
    name.layer = static_cast<int>(*layer);
    name.rest = rest;
    name.stem = name.module.substr(0, name.module.size() - rest.size() - (outermost ? 0 : 1));
    return;
  }
}

std::optional<int> nesting(std::string_view rest) {
  int depth = 0;
  for (; !rest.empty(); ++depth) {
    const bool more = rest.find('.') != std::string_view::npos;
    if (take(rest) != "base_layer" || (more && rest.empty())) return std::nullopt;
  }
  return depth;
}

}  // namespace

char letter(Side side) { return side == Side::A ? 'A' : 'B'; }

std::string_view without_prefix(std::string_view name) {
  while (name.starts_with(kPrefix)) name.remove_prefix(kPrefix.size());
  return name;
}

std::optional<FactorName> parse_factor_name(std::string_view name) {
  FactorName out;
  out.module = without_prefix(name);
  const auto factor = take_factor(out.module);
  if (!factor || out.module.empty()) return std::nullopt;
  out.side = factor->side;
  out.embedding = factor->embedding;
  if (!out.embedding) find_experts(out);
  return out;
}

std::optional<ExpertRest> parse_expert_rest(std::string_view rest) {
  using Form = ExpertRest::Form;
  std::string_view below = rest;
  if (take(below) != "mlp" || rest.ends_with('.')) below = rest;  // DBRX's parameters are in mlp
  if (const auto depth = nesting(below))
    return ExpertRest{Form::parameter, Projection::down, -1, *depth, false};
  std::string_view tail = rest;
  const std::string_view first = take(tail);
  if (tail.empty() && first.size() == rest.size()) {
    const Word* word = find_word(first);
    if (word == nullptr) return std::nullopt;
    return ExpertRest{Form::all, word->projection, -1, 0, word->text[0] == 'w'};
  }
  if (const auto expert = parse_index(first)) {
    const Word* word = find_word(tail);
    if (word == nullptr) return std::nullopt;
    return ExpertRest{Form::numbered, word->projection, *expert, 0, word->text[0] == 'w'};
  }
  const auto expert = parse_index(tail);
  if (!expert || (first != "gate_up_projs" && first != "down_projs")) return std::nullopt;
  return ExpertRest{Form::plural, first == "down_projs" ? Projection::down : Projection::gate_up,
                    *expert, 0, false};
}

}  // namespace moelora::packed
