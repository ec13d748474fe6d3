// xorl (Together). Its adapter_model.safetensors calls a factor that all experts share "shared"
// where others have an expert's number; its checkpoints keep the stacks as they are in memory, in
// front of whose axes PEFT's are transposed.

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/expert_stacks.h"
#include "lib/adapter/layout.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

constexpr std::string_view kShared = "shared.";
constexpr std::array<std::string_view, 3> kWords = {"gate_proj", "up_proj", "down_proj"};

bool is_word(std::string_view text) {
  return std::find(kWords.begin(), kWords.end(), text) != kWords.end();
}

// "shared.gate_proj" below the experts.
bool is_shared(std::string_view rest) {
  return rest.starts_with(kShared) && is_word(rest.substr(kShared.size()));
}

// "...experts.gate_proj_lora_A" taken apart; nullopt for anything else.
struct InMemory {
  std::string module;  // "...experts.gate_proj"
  Side side;
};
std::optional<InMemory> in_memory(std::string_view name) {
  constexpr std::string_view kA = "_lora_A", kB = "_lora_B";
  const bool is_a = name.ends_with(kA);
  if (!is_a && !name.ends_with(kB)) return std::nullopt;
  name.remove_suffix(kA.size());
  if (!is_word(leaf_of(name)) || leaf_of(parent_of(name)) != "experts") return std::nullopt;
  return InMemory{std::string(without_peft_prefix(name)), is_a ? Side::A : Side::B};
}

bool owns(std::string_view name) {
  if (in_memory(name)) return true;
  const TensorNameView parsed = view_tensor_name(name);
  if (parsed.part != TensorPart::lora_a && parsed.part != TensorPart::lora_b) return false;
  const auto path = parse_expert_path(parsed.module);
  return path && is_shared(path->rest);
}

// [E or 1, in, r] of A and [E or 1, r, out] of B.
Tensor transposed(const std::string& name, const Tensor& stack) {
  if (stack.rank() != 3)
    throw Error(name, fmt::format("has shape {}, expected three dims: xorl's experts in memory",
                                  to_string(stack.shape())));
  return stack.transpose(1, 2);
}

// xorl writes the factors of lm_head, a Linear, under PEFT's names of an embedding's.
std::string peft_name(const std::string& name) {
  const TensorNameView parsed = view_tensor_name(name);
  if (leaf_of(parsed.module) != "lm_head") return name;
  if (parsed.part == TensorPart::embedding_a) return lora_name(parsed.module, Side::A);
  if (parsed.part == TensorPart::embedding_b) return lora_name(parsed.module, Side::B);
  return name;
}

void read(const ForeignAdapter& in, Translation& out) {
  ExpertStacks stacks(in);
  for (const auto& [name, tensor] : in.tensors) {
    if (const auto own = in_memory(name)) {
      put(out, name, lora_name(own->module, own->side), transposed(name, tensor));
      continue;
    }
    const auto t = expert_tensor(name, parse_tensor_name(name), tensor);
    if (t && is_shared(t->path.rest)) {
      const std::string stem = with_layer(t->path.stem, t->path.layer);
      const std::string module = fmt::format("{}.{}", stem, t->path.rest.substr(kShared.size()));
      put(out, name, lora_name(module, t->side), shared_factor(name, tensor));
    } else if (t && t->path.form == ExpertPath::Form::numbered) {
      stacks.add(name, t->path, t->side, tensor);
    } else {
      put(out, name, peft_name(name), tensor);
    }
  }
  stacks.put_all(out);
}

}  // namespace

const Dialect dialects::xorl = {
    .id = "xorl",
    .whose = "xorl",
    .names =
        "experts.shared.gate_proj.lora_A beside experts.{e}.gate_proj.lora_B; in memory "
        "experts.gate_proj_lora_A",
    .shapes = "shared and numbered 2-D, as PEFT's; in memory A [E or 1, in, r], B [E or 1, r, out]",
    .sources = "xorl (lora/utils.py: save_lora_checkpoint; models/layers/moe/lora.py)",
    .advice = "",
    .owns = owns,
    .read = read,
};

}  // namespace moelora
