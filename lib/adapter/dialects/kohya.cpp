// kohya-ss's names: a module's path with underscores for dots, behind the name of the part of a
// pipeline. Which underscores were dots is not in the file: the base model tells, or a list of
// paths that language models have.

#include <fmt/core.h>

#include <array>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/up_down.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Text = std::string_view;

constexpr std::array<Text, 2> kFronts = {"lora_", "lycoris_"};

Text without_front(Text name) {
  for (const Text front : kFronts)
    if (name.starts_with(front)) return name.substr(front.size());
  return {};
}

bool owns(Text name) {
  return !without_front(name).empty() && name.find('.') != Text::npos &&
         has_any(name, {".lora_down", ".lora_up", ".lora_mid", ".alpha", ".dora_scale"});
}

// A path with its numbers taken out, "layers.#.self_attn.q_proj", so that one stands for all
// layers and experts.
struct Numbered {
  std::string path;
  std::vector<Text> numbers;
};

bool is_mark(char c) { return c == '.' || c == '_'; }

Numbered without_numbers(Text path) {
  Numbered out;
  for (size_t at = 0; at < path.size();) {
    size_t end = at;
    while (end < path.size() && !is_mark(path[end])) ++end;
    const Text word = path.substr(at, end - at);
    const bool number = !word.empty() && word.find_first_not_of("0123456789") == Text::npos;
    if (number) out.numbers.push_back(word);
    out.path += number ? Text("#") : word;
    if (end < path.size()) out.path += path[end];
    at = end + 1;
  }
  return out;
}

std::string flat(std::string path) {
  for (char& c : path)
    if (c == '.') c = '_';
  return path;
}

std::string with_numbers(const Numbered& in) {
  std::string out;
  auto number = in.numbers.begin();
  for (const char c : in.path)
    if (c == '#')
      out += *number++;
    else
      out += c;
  return out;
}

// Paths by what is left of them with underscores for dots.
class FlatPaths {
 public:
  // `spelled`: how the path may be written; `path`: what it means.
  void add(Text spelled, Text path) {
    const Numbered from = without_numbers(spelled), to = without_numbers(path);
    if (from.numbers != to.numbers) return;
    std::vector<std::string>& known = paths_[flat(from.path)];
    for (const std::string& other : known)
      if (other == to.path) return;
    known.push_back(to.path);
  }

  // All that it may mean. A name that holds the mark itself has no number for it.
  std::vector<std::string> find(Text spelled) const {
    const Numbered from = without_numbers(spelled);
    std::vector<std::string> out;
    if (spelled.find('#') != Text::npos) return out;
    const auto at = paths_.find(flat(from.path));
    if (at == paths_.end()) return out;
    for (const std::string& path : at->second) out.push_back(with_numbers({path, from.numbers}));
    return out;
  }

 private:
  std::unordered_map<std::string, std::vector<std::string>> paths_;
};

// ---- the paths of a base model -----------------------------------------------------------------

// A pipeline may hold the model without its head, or a part of it, so that the first components
// are not in the names.
void add_with_roots(FlatPaths& paths, Text spelled, Text path) {
  paths.add(spelled, path);
  for (const Text root :
       {"model.language_model.", "language_model.model.", "language_model.", "model."})
    if (spelled.starts_with(root)) paths.add(spelled.substr(root.size()), path);
}

void add_experts(FlatPaths& paths, const ModelSpec& spec) {
  const std::string hub = per_expert_storage(spec).stem;
  for (const Text word : {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3"})
    for (const Form form : {Form::hub, Form::memory}) {
      const auto of = [&](std::string stem) {
        if (const size_t at = stem.find("{layer}"); at != std::string::npos)
          stem.replace(at, 7, "0");
        return fmt::format("{}.0.{}", stem, word);
      };
      add_with_roots(paths, of(spec.storage(form).stem), of(hub));
    }
}

FlatPaths paths_of(const ModelSpec& spec) {
  FlatPaths out;
  for (const LinearSpec& linear : spec.linears) {
    add_with_roots(out, linear.hub, linear.hub);
    add_with_roots(out, linear.memory, linear.hub);
  }
  if (spec.experts > 0) add_experts(out, spec);
  return out;
}

bool is_of(const ModelSpec& spec, const std::string& module) {
  if (spec.find_linear(module) != nullptr) return true;
  const auto expert = parse_expert_path(module);
  return expert && spec.is_moe(expert->layer) && expert->expert && *expert->expert < spec.experts;
}

// ---- the paths of language models ---------------------------------------------------------------

FlatPaths usual_paths() {
  std::vector<std::string> below;
  for (const Text leaf : {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "dense",
                          "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"})
    below.push_back(fmt::format("self_attn.{}", leaf));
  for (const Text leaf : {"in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_b",
                          "in_proj_a", "out_proj"})
    below.push_back(fmt::format("linear_attn.{}", leaf));
  for (const Text mlp : {"mlp", "feed_forward", "block_sparse_moe"}) {
    below.push_back(fmt::format("{}.gate", mlp));
    below.push_back(fmt::format("{}.router", mlp));
    below.push_back(fmt::format("{}.shared_expert_gate", mlp));
    for (const Text leaf : {"gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3"})
      for (const Text part : {"", "shared_expert.", "shared_experts.", "shared_mlp.", "experts.0."})
        below.push_back(fmt::format("{}.{}{}", mlp, part, leaf));
  }
  FlatPaths out;
  out.add("lm_head", "lm_head");
  for (const std::string& path : below) {
    for (const Text root : {"model.", "model.language_model.", "language_model.model."}) {
      const std::string whole = fmt::format("{}layers.0.{}", root, path);
      out.add(whole, whole);
    }
    out.add("layers.0." + path, "model.layers.0." + path);  // the model without its head
  }
  return out;
}

// ---- which one it is ----

class Modules {
 public:
  explicit Modules(const ModelSpec* spec)
      : spec_(spec), paths_(spec != nullptr ? paths_of(*spec) : usual_paths()) {}

  std::string operator()(const std::string& name, Text module) const {
    for (const Text path : without_part(without_front(module))) {
      const std::vector<std::string> found = paths_.find(path);
      if (found.size() > 1) refuse_several(name, found);
      if (found.size() == 1 && (spec_ == nullptr || is_of(*spec_, found.front())))
        return found.front();
    }
    if (spec_ == nullptr)
      throw needs_base(name,
                       "writes underscores for dots, and which of them were dots is not "
                       "known of this module");
    throw Error(name,
                fmt::format("is of no module of this base model ({}), whatever underscores were "
                            "dots",
                            spec_->family),
                check_base());
  }

 private:
  // Without the part of the pipeline: te_, te1_, unet_, transformer_, llm_, prior_te_ ..
  static std::array<Text, 3> without_part(Text module) {
    std::array<Text, 3> out = {module, {}, {}};
    for (size_t i = 1; i < out.size(); ++i) {
      const Text before = out[i - 1];
      size_t at = 0;
      while (at < before.size() && !is_mark(before[at])) ++at;
      if (at < before.size()) out[i] = before.substr(at + 1);
    }
    return out;
  }

  [[noreturn]] void refuse_several(const std::string& name,
                                   const std::vector<std::string>& found) const {
    const std::string what = fmt::format("may be of {} or of {}", found[0], found[1]);
    if (spec_ == nullptr) throw needs_base(name, what);
    throw Error(name, what, "rename it with dots: MODULE.lora_down.weight, MODULE.lora_up.weight");
  }

  const ModelSpec* spec_;
  FlatPaths paths_;
};

void read(const ForeignAdapter& in, Translation& out) {
  const Modules modules(in.spec);
  read_up_down(
      in, owns, [&](const std::string& name, Text module) { return modules(name, module); }, out);
}

}  // namespace

const Dialect dialects::kohya = {
    .id = "kohya",
    .whose = "kohya",
    .names = "lora_te_MODULE.lora_down.weight, .lora_up.weight, .alpha",
    .shapes = "down [r, in], up [out, r], alpha one number",
    .sources =
        "kohya-ss/sd-scripts 02298e3 (networks/lora.py, lora_anima.py), LyCORIS 00e635c "
        "(modules/locon.py), OneTrainer 02ac9b4 (LoRAModule.py)",
    .advice = "",
    .owns = owns,
    .config = up_down_config,
    .read = read,
};

}  // namespace moelora
