#include "lib/model/derived_family.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <set>
#include <span>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/io/json_build.h"
#include "lib/model/model_spec.h"

namespace moelora {
namespace {

using Text = std::string_view;

bool holds(Text text, std::span<const Text> words) {
  return std::any_of(words.begin(), words.end(),
                     [&](Text word) { return text.find(word) != Text::npos; });
}

bool holds(Text text, std::initializer_list<Text> words) {
  return holds(text, std::span<const Text>(words.begin(), words.size()));
}

bool is_one_of(Text text, std::initializer_list<Text> words) {
  return std::find(words.begin(), words.end(), text) != words.end();
}

Hint describe_it() {
  return {"describe the family in a file like those of schemas/models and pass it with ",
          Option::model_spec};
}

// ---- layers -------------------------------------------------------------------------------------

// "model.layers." and what follows the number, for each number in a name.
struct Numbered {
  Text stem;
  int64_t number;
  Text rest;
};

std::vector<Numbered> numbers_in(Text name) {
  std::vector<Numbered> out;
  for (size_t begin = 0; begin < name.size();) {
    const size_t end = std::min(name.find('.', begin), name.size());
    const auto number = parse_index(name.substr(begin, end - begin));
    if (number && begin > 0 && end < name.size())
      out.push_back({name.substr(0, begin), *number, name.substr(end + 1)});
    begin = end + 1;
  }
  return out;
}

// Parts of a model that are not its text layers.
constexpr std::array<Text, 8> kTowers = {"vision", "visual", "audio",    "vit",
                                         "image",  "speech", "encoder.", "mtp"};

// What no model has, and a file of names could: every block is held against every layer.
constexpr size_t kMostModules = 1000, kMostChoices = 100;

// A tensor of a layer, without the layer's stem: "mlp.experts.3.w1.weight".
struct LayerTensor {
  std::string rest;
  Shape shape;
};

// What has a weight in which layers, and of which shape: "self_attn.q_proj".
struct Found {
  std::map<Shape, std::set<int>> layers;
  bool bias = false;
};

// Literal: as an expression of family files.
Json number(int64_t value) { return Json(value); }

class Deriver {
 public:
  Deriver(const std::map<std::string, Shape>& tensors, const Json& config, const std::string& where)
      : tensors_(tensors), config_(config), where_(where) {}

  Json family() {
    find_ends();
    find_layers();
    find_modules();
    find_experts();
    return document();
  }

 private:
  [[noreturn]] void refuse(const std::string& what) const {
    throw Error(where_, fmt::format("the family cannot be derived: {}", what), describe_it());
  }

  // ---- the embedding and lm_head, which say what is hidden and what the vocabulary is ----

  void find_ends() {
    for (const auto& [name, shape] : tensors_) {
      if (shape.size() != 2 || holds(name, kTowers) || !name.ends_with(".weight")) continue;
      const Text module = Text(name).substr(0, name.size() - Text(".weight").size());
      const Text leaf = leaf_of(module);
      if (is_one_of(leaf, {"embed_tokens", "wte", "word_embeddings", "tok_embeddings", "embed_in",
                           "embed", "embedding", "embeddings"}) &&
          shape[0] > vocab_) {
        embedding_ = module;
        vocab_ = shape[0];
        hidden_ = shape[1];
      }
    }
    if (embedding_.empty()) refuse("no tensor looks like the embedding of the tokens");
    for (const auto& [name, shape] : tensors_) {
      if (!name.ends_with(".weight")) continue;
      const Text module = Text(name).substr(0, name.size() - Text(".weight").size());
      if (shape == Shape{vocab_, hidden_} && module != embedding_ &&
          is_one_of(leaf_of(module), {"lm_head", "output", "head", "embed_out", "unembed"}))
        head_ = module;
    }
  }

  // ---- the layers of the text model: those with the most matrices that meet the hidden size ----

  void find_layers() {
    std::map<Text, int64_t> matrices;
    for (const auto& [name, shape] : tensors_) {
      if (shape.size() < 2 || holds(name, kTowers)) continue;
      const auto numbers = numbers_in(name);
      if (!numbers.empty() && std::find(shape.begin(), shape.end(), hidden_) != shape.end())
        ++matrices[numbers.front().stem];
    }
    if (matrices.empty()) refuse("no tensor lies in a numbered layer");
    stem_ = std::max_element(matrices.begin(), matrices.end(), [](const auto& a, const auto& b) {
              return a.second < b.second;
            })->first;
    for (const auto& [name, shape] : tensors_)
      for (const Numbered& at : numbers_in(name))
        if (at.stem == stem_) {
          layers_ = std::max(layers_, at.number + 1);
          in_layers_[static_cast<int>(at.number)].push_back({std::string(at.rest), shape});
          break;
        }
  }

  // ---- Linears ----

  static bool is_beside(Text module) {
    return holds(module, {"norm", "rotary", "sinks", "A_log", "embed", "scale"}) ||
           leaf_of(module).find("conv") != Text::npos;
  }

  void find_modules() {
    std::set<std::string> biases;
    for (const auto& [layer, tensors] : in_layers_)
      for (const LayerTensor& t : tensors)
        if (t.shape.size() == 1 && t.rest.ends_with(".bias"))
          biases.insert(t.rest.substr(0, t.rest.size() - Text(".bias").size()));
    for (const auto& [layer, tensors] : in_layers_)
      for (const LayerTensor& t : tensors) {
        if (take_expert(t, layer)) continue;
        if (t.shape.size() != 2 || !t.rest.ends_with(".weight")) continue;
        const std::string module = t.rest.substr(0, t.rest.size() - Text(".weight").size());
        if (is_beside(module)) continue;
        Found& found = modules_[module];
        if (modules_.size() > kMostModules)
          refuse(fmt::format("its layers hold more than {} kinds of modules", kMostModules));
        found.layers[t.shape].insert(layer);
        found.bias = biases.count(module) != 0;
      }
  }

  // ---- routed experts ----

  // "mlp.experts.3.w1.weight", or a parameter of three dims below "experts" or "moe".
  bool take_expert(const LayerTensor& t, int layer) {
    for (const Numbered& at : numbers_in(t.rest)) {
      if (!holds(at.stem, {"expert"}) || holds(at.stem, {"shared"})) continue;
      if (t.shape.size() != 2 || !at.rest.ends_with(".weight")) return true;
      const Text name = at.rest.substr(0, at.rest.size() - Text(".weight").size());
      numbered_[std::string(name)] = t.shape;
      experts_path_ = std::string(at.stem.substr(0, at.stem.size() - 1));
      experts_ = std::max(experts_, at.number + 1);
      moe_.insert(layer);
      return true;
    }
    if (t.shape.size() != 3 || holds(t.rest, {"shared", "conv"})) return false;
    const std::string path(parent_of(t.rest.ends_with(".weight") ? parent_of(t.rest) : t.rest));
    if (!holds(path, {"expert", "moe", "ffn", "mlp"})) return false;
    batched_[t.rest.substr(path.size() + 1)] = t.shape;
    experts_path_ = path;
    experts_ = t.shape[0];
    moe_.insert(layer);
    return true;
  }

  static std::optional<Projection> projection_of(Text name) {
    const Text leaf = name.ends_with(".weight") ? name.substr(0, name.rfind('.')) : name;
    if (holds(leaf, {"gate_up", "w13", "gate_and_up", "wi_fused", "input_linear"}))
      return Projection::gate_up;
    if (holds(leaf, {"down", "output_linear"}) || is_one_of(leaf, {"w2", "w2_weight", "fc2", "wo"}))
      return Projection::down;
    if (holds(leaf, {"gate"}) || is_one_of(leaf, {"w1", "w1_weight"})) return Projection::gate;
    if (holds(leaf, {"up"}) || is_one_of(leaf, {"w3", "w3_weight", "v1"})) return Projection::up;
    return std::nullopt;
  }

  std::map<Projection, std::string> projections(const std::map<std::string, Shape>& named) const {
    std::map<Projection, std::string> out;
    for (const auto& [name, shape] : named)
      if (const auto projection = projection_of(name);
          projection && !out.emplace(*projection, name).second)
        refuse(fmt::format("{}.{} and {} are both {}", experts_path_, out.at(*projection), name,
                           projection_name(*projection)));
    if (out.count(Projection::down) == 0)
      refuse(fmt::format("{} has no tensor that looks like down_proj", experts_path_));
    for (const auto& [name, shape] : named)
      if (!projection_of(name)) out.emplace(by_width(name, named, out), name);
    return out;
  }

  // What stands alone beside down: gate and up in one where it is twice as wide, else up.
  Projection by_width(const std::string& name, const std::map<std::string, Shape>& named,
                      const std::map<Projection, std::string>& known) const {
    if (named.size() != 2 || known.size() != 1)
      refuse(fmt::format("{}.{} is none of the names of gate, up and down that are known",
                         experts_path_, name));
    const auto elements = [&](const std::string& of) {
      double out = 1;  // a header may name extents whose product no integer holds
      for (const int64_t extent : named.at(of)) out *= static_cast<double>(extent);
      return out;
    };
    return elements(name) == 2 * elements(known.at(Projection::down)) ? Projection::gate_up
                                                                      : Projection::up;
  }

  void find_experts() {
    if (experts_ == 0) return;
    if (!numbered_.empty() && !batched_.empty())
      refuse(fmt::format("{} holds numbered experts and batched ones", experts_path_));
    const bool is_numbered = !numbered_.empty();
    const auto& named = is_numbered ? numbered_ : batched_;
    const auto names = projections(named);
    const Shape& down = named.at(names.at(Projection::down));
    if (is_numbered) {
      if (down[0] != hidden_)
        refuse(fmt::format("down of an expert is {}, expected {} rows", to_string(down), hidden_));
      intermediate_ = down[1];
    } else {
      set_axes(down);
    }
    gated_ = names.count(Projection::gate) + names.count(Projection::gate_up) > 0;
    Json::Members words;
    for (const auto& [projection, name] : names)
      words.emplace_back(word_of(projection), Json(name));
    storage_ = Json::object({{"path", experts_path_}});
    if (!is_numbered) storage_.set("axes", out_in_ ? "out_in" : "in_out");
    storage_.set(is_numbered ? "numbered" : "batched", Json::object(std::move(words)));
  }

  static const char* word_of(Projection projection) {
    constexpr std::array<const char*, 4> kWords = {"gate", "up", "gate_up", "down"};
    return kWords[static_cast<size_t>(projection)];
  }

  void set_axes(const Shape& down) {
    if (down[1] == down[2])
      refuse(
          fmt::format("the experts' width {} is the hidden size: shapes do not tell [E, in, out] "
                      "from [E, out, in]",
                      down[1]));
    if (down[1] != hidden_ && down[2] != hidden_)
      refuse(fmt::format("{} of the experts is {}, expected one of the last two dims to be {}",
                         "down", to_string(down), hidden_));
    out_in_ = down[1] == hidden_;
    intermediate_ = out_in_ ? down[2] : down[1];
  }

  // ---- the file ----

  Role role_of(Text module, const Shape& shape) const {
    const Text leaf = leaf_of(module);
    if (leaf == "shared_expert_gate") return Role::shared_expert_gate;
    if (holds(module, {"share"})) return Role::shared_expert;
    if (experts_ > 0 && shape[0] == experts_ && shape[1] == hidden_ &&
        holds(module, {"gate", "router"}))
      return Role::router;
    if (holds(module, {"linear_attn", "mamba", "delta", "conv"})) return Role::mixer;
    if (holds(module, {"attn", "attention"}) ||
        is_one_of(leaf, {"q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj"}))
      return Role::attention;
    if (holds(module, {"mlp", "ffn", "feed_forward", "moe", "expert"})) return Role::dense_mlp;
    return Role::mixer;
  }

  static const char* role_word(Role role) {
    constexpr std::array<const char*, 6> kWords = {
        "attention", "mixer", "dense_mlp", "shared_expert", "shared_expert_gate", "router"};
    return kWords[static_cast<size_t>(role)];
  }

  // The name of the choice of these layers; "" for all.
  std::string choice_of(const std::set<int>& layers) {
    if (static_cast<int64_t>(layers.size()) == layers_) return "";
    if (layers == moe_) return "moe";
    const auto [at, is_new] = choices_.try_emplace(layers);
    if (is_new) at->second = fmt::format("some_{}", choices_.size());
    if (choices_.size() > kMostChoices)
      refuse(fmt::format("its layers differ in more than {} ways", kMostChoices));
    return at->second;
  }

  static Json listed(const std::set<int>& layers) {
    std::vector<Json> out;
    for (const int layer : layers) out.emplace_back(int64_t{layer});
    return Json::object({{"only", Json::array(std::move(out))}});
  }

  Json modules() {
    std::vector<Json> out;
    for (const auto& [module, found] : modules_)
      for (const auto& [shape, layers] : found.layers) {
        const std::string choice = choice_of(layers);
        Json block = Json::object({{"path", module}, {"role", role_word(role_of(module, shape))}});
        if (!choice.empty()) block.set("layers", choice);
        if (found.bias) block.set("bias", number(1));
        block.set("linears",
                  Json::object({{"", Json::array({number(shape[0]), number(shape[1])})}}));
        out.push_back(std::move(block));
      }
    return Json::array(std::move(out));
  }

  static Json always(int64_t value) { return Json::object({{"default", number(value)}}); }

  static Json keys(std::initializer_list<const char*> names, Json otherwise) {
    std::vector<Json> list;
    for (const char* name : names) list.emplace_back(name);
    return Json::object(
        {{"keys", Json::array(std::move(list))}, {"default", std::move(otherwise)}});
  }

  Json values() const {
    Json out = Json::object({{"hidden", always(hidden_)},
                             {"layers", always(layers_)},
                             {"vocab", always(vocab_)},
                             {"tied", always(head_.empty() ? 1 : 0)}});
    if (experts_ == 0) return out;
    out.set("experts", always(experts_));
    out.set("intermediate", always(intermediate_));
    out.set("top_k", keys({"num_experts_per_tok", "num_experts_per_token", "moe_top_k", "moe_topk",
                           "moe_k", "top_k"},
                          number(1)));
    return out;
  }

  Json experts() const {
    Json out = Json::object(
        {{"activation",
          keys({"hidden_act", "hidden_activation", "activation_function"}, "unknown")}});
    if (!gated_) out.set("gated", false);
    if (gated_) out.set("gate_up_order", "unknown");  // in memory, at least
    out.set("memory", storage_);
    return out;
  }

  Json layer_choices() const {
    Json out = Json::object();
    if (!moe_.empty())
      out.set("moe", static_cast<int64_t>(moe_.size()) == layers_ ? Json("all") : listed(moe_));
    for (const auto& [layers, name] : choices_) out.set(name, listed(layers));
    return out;
  }

  Json document() {
    const Json* type = config_.find("model_type");
    const std::string model_type = type != nullptr ? type->as_string() : "unknown";
    Json all = modules();  // fills the choices of layers
    Json out = Json::object({{"family", "derived"},
                             {"note", "Derived from the names and shapes of " + where_ +
                                          "; what they do not decide is unknown."},
                             {"model_types", Json::object({{model_type, Json::object()}})},
                             {"values", values()},
                             {"layers", layer_choices()},
                             {"layer", stem_ + "{layer}"},
                             {"embedding", embedding_},
                             {"lm_head", head_.empty() ? "lm_head" : head_},
                             {"modules", std::move(all)}});
    if (experts_ > 0) out.set("experts", experts());
    return out;
  }

  const std::map<std::string, Shape>& tensors_;
  const Json& config_;
  const std::string& where_;
  std::string embedding_, head_, stem_, experts_path_;
  int64_t vocab_ = 0, hidden_ = 0, layers_ = 0, experts_ = 0, intermediate_ = 0;
  bool out_in_ = true, gated_ = false;
  std::map<int, std::vector<LayerTensor>> in_layers_;
  std::map<std::string, Found> modules_;
  std::map<std::string, Shape> numbered_, batched_;
  std::set<int> moe_;
  std::map<std::set<int>, std::string> choices_;
  Json storage_;
};

}  // namespace

Json derive_family(const std::map<std::string, Shape>& tensors, const Json& config,
                   const std::string& where) {
  return Deriver(tensors, config, where).family();
}

}  // namespace moelora
