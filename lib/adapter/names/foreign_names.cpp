#include "lib/adapter/names/foreign_names.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <string>
#include <unordered_map>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

using Text = std::string_view;

bool has(Text name, std::initializer_list<Text> parts) {
  return std::any_of(parts.begin(), parts.end(),
                     [&](Text part) { return name.find(part) != Text::npos; });
}

bool ends(Text name, std::initializer_list<Text> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](Text ending) { return name.ends_with(ending); });
}

// The last component but ".weight".
Text last_word(Text name) {
  if (name.ends_with(".weight")) name.remove_suffix(Text(".weight").size());
  return leaf_of(name);
}

// "lora_gate_and_up_A": a word between lora_ and the side.
bool is_lora_word(Text word, char a, char b) {
  const bool side =
      word.size() > 7 && word[word.size() - 2] == '_' && (word.back() == a || word.back() == b);
  return side && word.starts_with("lora_") && !word.starts_with("lora_embedding_");
}

bool is_kohya(Text name) {
  const Text module = name.substr(0, name.find('.'));
  return module.starts_with("lora_") && module.size() < name.size() &&
         has(name, {".lora_down", ".lora_up", ".alpha", ".dora_scale"});
}

bool is_megatron_module(Text name) {
  if (!has(name, {"lora"})) return false;
  if (has(name, {".linear_qkv.", ".linear_kv_up_proj."})) return true;
  return has(name, {"decoder.layers."}) &&
         has(name, {".linear_proj.", ".linear_fc1.", ".linear_fc2.", ".linear_q"});
}

// Hugging Face's LFM2 has feed_forward.w1 too, below "model.".
bool is_original(Text name) {
  if (!has(name, {"lora"})) return false;
  if (has(name, {".attention.wq.", ".attention.wk.", ".attention.wv.", ".attention.wo.",
                 ".attention.wqkv."}))
    return true;
  while (name.starts_with(kPeftPrefix)) name.remove_prefix(kPeftPrefix.size());
  return name.starts_with("layers.") && has(name, {".feed_forward."});
}

bool says_lora(Text name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower.find("lora") != std::string::npos;
}

struct Known {
  ForeignSpelling spelling;
  bool (*matches)(Text name);
};

constexpr Text kExport = "Export it with that trainer's own converter to PEFT's names first.";

// The first that matches counts.
const std::array kKnown = {
    Known{{"NeMo or Megatron-Bridge", "adapter.linear_in.weight, adapter.linear_out.weight",
           "Export it to Hugging Face names first (Megatron-Bridge: export_adapter_ckpt)."},
          [](Text n) {
            return has(n, {".linear_in.", ".linear_out."});
          }},
    Known{{"Megatron-Core", "decoder.layers.N, linear_qkv, linear_proj, linear_fc1, linear_fc2",
           "Export it to Hugging Face names first (ms-swift: swift export --to_hf true; "
           "Megatron-Bridge: export_adapter_ckpt)."},
          is_megatron_module},
    Known{
        {"NeMo AutoModel", "experts.lora_gate_and_up_A, experts.lora_down_A: [E, in, r]",
         "Save it again with an AutoModel that writes PEFT's names, or train without the experts' "
         "grouped LoRA."},
        [](Text n) { return is_lora_word(leaf_of(n), 'A', 'B'); }},
    Known{{"kohya", "lora_te_MODULE.lora_down.weight, .lora_up.weight, .alpha", kExport}, is_kohya},
    Known{{"diffusers", "MODULE.lora_down.weight, MODULE.lora_up.weight or lora.down, lora.up",
           kExport},
          [](Text n) {
            return has(n, {".lora_down", ".lora_up", "lora.down", "lora.up"});
          }},
    Known{{"MLX", "MODULE.lora_a [in, r], MODULE.lora_b [r, out], switch_mlp [E, r, in]",
           "MLX keeps the factors transposed and scale = lora_alpha / r: fuse the adapter with "
           "mlx_lm.fuse and serve that model, or train with PEFT."},
          [](Text n) {
            return ends(n, {".lora_a", ".lora_b"});
          }},
    Known{
        {"torchtune or torchtitan", "MODULE.lora_a.weight, MODULE.lora_b.weight",
         "Save it again in PEFT's form (torchtune: save_adapter_weights_only with the Hugging Face "
         "checkpointer)."},
        [](Text n) {
          return ends(n, {".lora_a.weight", ".lora_b.weight"}) ||
                 is_lora_word(last_word(n), 'a', 'b');
        }},
    Known{{"the model's original code", "layers.N.attention.wq, wk, wv, wo",
           "Rename the modules to those of Hugging Face (q_proj, k_proj, v_proj, o_proj): q and k "
           "rows are in another order there, so use the converter of the model's publisher."},
          is_original},
    Known{{"LitGPT", "transformer.h.N.attn.qkv.lora_A, q, k and v in one",
           "Merge it with litgpt merge_lora and convert that model, or train with PEFT."},
          [](Text n) {
            return n.find("transformer.h.") != Text::npos &&
                   has(n, {".attn.qkv.lora_", ".attn.attn.lora_"});
          }},
    Known{{"AdaLoRA", "MODULE.lora_E, MODULE.ranknum",
           "AdaLoRA's delta is B diag(E) A, which no server computes: merge it with PEFT's "
           "merge_and_unload and serve that model."},
          [](Text n) {
            return has(n, {".lora_E", ".ranknum"});
          }},
    Known{{"another method than LoRA", "hada_, lokr_, oft_, boft_, ia3_, vera_, fourierft_",
           "Servers compute plain LoRA alone: merge it with the trainer and serve that model."},
          [](Text n) {
            return has(n, {".hada_", ".lokr_", ".oft_", ".boft_", ".ia3_", ".vera_", ".fourierft_",
                           ".randlora_", ".vblora_", ".road_", ".shira_", ".hra_", ".delora_"});
          }},
};

constexpr ForeignSpelling kUnknown = {
    "no trainer known here", "\"lora\" in a name that does not end as PEFT's do",
    "PEFT's names end in lora_A.weight and lora_B.weight: save the adapter with "
    "model.save_pretrained."};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// The name with 0 for every number: no spelling is told by one.
void put_shape(std::string_view name, std::string& out) {
  out.clear();
  for (size_t end = 0; end != Text::npos; name = name.substr(std::min(end + 1, name.size()))) {
    end = name.find('.');
    const Text component = name.substr(0, end);
    const bool is_number =
        !component.empty() && std::all_of(component.begin(), component.end(), is_digit);
    out.append(is_number ? Text("0") : component).append(end == Text::npos ? "" : ".");
  }
}

}  // namespace

const ForeignSpelling* foreign_spelling(std::string_view name) {
  const TensorPart part = parse_tensor_name(name).part;
  const bool factor = part == TensorPart::lora_a || part == TensorPart::lora_b;
  if (part != TensorPart::other && !factor) return nullptr;
  for (const Known& known : kKnown)
    if (known.matches(name)) return &known.spelling;
  if (factor || name.find(".modules_to_save.") != std::string_view::npos) return nullptr;
  return says_lora(name) ? &kUnknown : nullptr;
}

std::vector<ForeignFactors> foreign_factors(const TensorMap& tensors) {
  std::vector<ForeignFactors> out;
  std::unordered_map<std::string, const ForeignSpelling*> known;
  std::string shape;
  for (const auto& [name, tensor] : tensors) {
    put_shape(name, shape);
    const auto [of_shape, is_new] = known.try_emplace(shape);
    if (is_new) of_shape->second = foreign_spelling(name);
    const ForeignSpelling* const spelling = of_shape->second;
    if (spelling == nullptr) continue;
    const auto at = std::find_if(out.begin(), out.end(),
                                 [&](const auto& found) { return found.spelling == spelling; });
    (at == out.end() ? out.emplace_back(ForeignFactors{spelling, {}}) : *at).names.push_back(name);
  }
  return out;
}

std::string describe(const ForeignFactors& found, size_t tensors) {
  return fmt::format(
      "{} of {} tensors are low-rank factors in the spelling of {} ({}), which nothing reads",
      found.names.size(), tensors, found.spelling->whose, found.spelling->names);
}

}  // namespace moelora
