// torchtune's own adapters: adapter_model.pt (adapter_N.pt before 0.5), which every checkpointer
// writes beside what it converts, and alone for Phi-3, Llama 4, Llama 3.2 Vision and Meta's
// checkpoints. lora_a [r, in] and lora_b [out, r] as PEFT has them, under torchtune's modules; of
// grouped experts A [E, in, r] and B [E, r, out].
//
// Where torchtune permutes q and k of Hugging Face's checkpoints on loading (hf_to_tune of Llama 2
// and 3, Mistral, Gemma), rows of lora_b are those of rotary pairs side by side. Qwen, Phi-3 and
// Llama 4 are loaded as they are. Phi-3's qkv_proj and gate_up_proj are apart in torchtune.

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <vector>

#include "lib/adapter/config/adapter_config.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/expert_collector.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/modules_by_layer.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/model/attention_heads.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Text = std::string_view;

bool owns(Text name) {
  return ends_in_one(name, {".lora_a.weight", ".lora_b.weight"}) ||
         is_lora_word(last_word(name), 'a', 'b');
}

// A module of torchtune below its layer (the output below none), and the hub's: the first that the
// base model has. `joined`: a matrix of the hub's of which it is the part of that number.
struct Row {
  Text tune;
  std::array<Text, 2> hub;
  Text joined = "";
  size_t part = 0;
};
constexpr Row kRows[] = {
    {"attn.q_proj", {"self_attn.q_proj"}, "self_attn.qkv_proj", 0},
    {"attn.k_proj", {"self_attn.k_proj"}, "self_attn.qkv_proj", 1},
    {"attn.v_proj", {"self_attn.v_proj"}, "self_attn.qkv_proj", 2},
    {"attn.output_proj", {"self_attn.o_proj"}},
    {"mlp.w1", {"mlp.gate_proj", "feed_forward.gate_proj"}, "mlp.gate_up_proj", 0},
    {"mlp.w3", {"mlp.up_proj", "feed_forward.up_proj"}, "mlp.gate_up_proj", 1},
    {"mlp.w2", {"mlp.down_proj", "feed_forward.down_proj"}},
    {"mlp.shared_expert.w1", {"feed_forward.shared_expert.gate_proj"}},
    {"mlp.shared_expert.w3", {"feed_forward.shared_expert.up_proj"}},
    {"mlp.shared_expert.w2", {"feed_forward.shared_expert.down_proj"}},
    {"output", {"lm_head"}}};

const Row* find_row(Text tune) {
  const auto* const at = std::find_if(std::begin(kRows), std::end(kRows),
                                      [&](const Row& r) { return r.tune == tune; });
  return at == std::end(kRows) ? nullptr : at;
}

// Whether torchtune holds q and k of a model in the order of rotary pairs.
bool has_rotary_pairs(const std::string& name, const ModelSpec& spec) {
  constexpr Text kPairs[] = {"llama", "mistral", "gemma", "gemma2"};
  constexpr Text kAsTheyAre[] = {"qwen2", "qwen3", "qwen3_moe", "phi3", "llama4", "llama4_text"};
  const auto is_one_of = [&](const auto& types) {
    return std::find(std::begin(types), std::end(types), spec.model_type) != std::end(types);
  };
  if (is_one_of(kPairs)) return true;
  if (is_one_of(kAsTheyAre)) return false;
  throw Error(name,
              fmt::format("is of torchtune, which is not known to train {}: the order of the rows "
                          "of q and k is not known",
                          spec.model_type),
              check_base());
}

// A name taken apart: where in the model, and which side.
struct Place {
  int layer = -1;
  std::string module;  // below the layer: "attn.q_proj", "mlp.experts.lora_gate"; else "output"
  Side side = Side::A;
};

Place place_of(Text name) {
  constexpr Text kDecoder = "decoder.";
  name = without_weight(without_peft_prefix(name));
  if (name.starts_with(kDecoder)) name.remove_prefix(kDecoder.size());
  Place out;
  out.side = name.back() == 'a' ? Side::A : Side::B;
  const Text word = leaf_of(name);
  const bool is_linear = word == "lora_a" || word == "lora_b";
  name = is_linear ? parent_of(name) : name.substr(0, name.size() - 2);
  if (const auto layer = find_layer(name); layer && layer->begin == Text("layers.").size()) {
    out.layer = layer->layer;
    name.remove_prefix(layer->end + 1);
  }
  out.module = name;
  return out;
}

class Reader {
 public:
  Reader(const ForeignAdapter& in, const ModelSpec& spec, Translation& out)
      : in_(in), spec_(spec), modules_(spec), out_(out) {}

  void read() {
    for (const auto& [name, tensor] : in_.tensors) {
      if (owns(name))
        add(name, tensor);
      else if (name.ends_with(".magnitude"))
        throw Error(name, "is the magnitude of DoRA, whose rows torchtune orders otherwise",
                    "train without DoRA, or merge the adapter with torchtune and serve that model");
      else
        put(out_, name, name, tensor);
    }
    finish_joins();
  }

 private:
  // A part of a matrix that the hub has joined.
  struct Part {
    std::optional<Tensor> side[2];
    std::string names[2];
  };
  struct Join {
    const LinearSpec* linear = nullptr;
    std::array<Part, 3> parts;
  };

  void add(const std::string& name, const Tensor& tensor) {
    const Place place = place_of(name);
    if (is_lora_word(last_word(name), 'a', 'b')) return add_experts(name, place, tensor);
    const Row* row = find_row(place.module);
    if (row == nullptr)
      throw Error(name,
                  fmt::format("is of \"{}\", no module of torchtune's that is known", place.module),
                  "what is read are the attention, the MLPs, the experts and the output of its "
                  "decoder; a checkpoint of torchtitan says \"peft\" for save_format to write "
                  "PEFT's names");
    if (tensor.rank() != 2)
      throw Error(name, fmt::format("has shape {}, expected two dims", to_string(tensor.shape())));
    const Tensor factor = in_hub_order(name, place, tensor);
    for (const Text hub : row->hub)
      if (const LinearSpec* linear = modules_.find(place.layer, hub))
        return put(out_, name, lora_name(linear->hub, place.side), factor);
    const LinearSpec* joined = modules_.find(place.layer, row->joined);
    if (joined == nullptr)
      throw Error(name,
                  fmt::format("adapts {} of layer {}, which this base model does not have",
                              row->hub.front(), place.layer),
                  check_base());
    Join& join = joins_[joined->hub];
    join.linear = joined;
    Part& part = join.parts[row->part];
    const auto side = static_cast<size_t>(place.side);
    part.side[side] = factor;
    part.names[side] = name;
  }

  Tensor in_hub_order(const std::string& name, const Place& place, const Tensor& factor) const {
    const bool is_q = place.module == "attn.q_proj", is_k = place.module == "attn.k_proj";
    if (place.side == Side::A || (!is_q && !is_k) || !has_rotary_pairs(name, spec_)) return factor;
    return halves_of_rotary_pairs(name, factor, spec_, is_k);
  }

  void add_experts(const std::string& name, const Place& place, const Tensor& stack) {
    constexpr std::array<std::array<Text, 2>, 3> kWords = {
        {{"lora_gate", "gate_proj"}, {"lora_up", "up_proj"}, {"lora_down", "down_proj"}}};
    const Text leaf = leaf_of(place.module);
    const auto* const word =
        std::find_if(kWords.begin(), kWords.end(), [&](const auto& w) { return w[0] == leaf; });
    if (word == kWords.end() || parent_of(place.module) != "mlp.experts" || place.layer < 0)
      throw Error(name,
                  "is no factor of torchtune's grouped experts, which are called "
                  "layers.N.mlp.experts.lora_gate, lora_up and lora_down");
    if (stack.rank() != 3)
      throw Error(name, fmt::format("has shape {}, expected three dims, experts first",
                                    to_string(stack.shape())));
    if (spec_.experts == 0)
      throw Error(
          name,
          fmt::format("is of routed experts, and the base model is a dense {}", spec_.model_type),
          check_base());
    const std::string module =
        fmt::format("{}.{}", spec_.expert_stem(Form::memory, place.layer), (*word)[1]);
    put(out_, name, lora_name(module, place.side), stack.transpose(1, 2));
  }

  // The first rows of the parts of a joined matrix, and behind the last the number of all.
  std::array<int64_t, 4> first_rows(const LinearSpec& linear) const {
    if (leaf_of(linear.hub) == "gate_up_proj") return {0, linear.out / 2, linear.out, linear.out};
    const AttentionHeads heads = attention_heads(spec_);
    const int64_t q = heads.heads * heads.head_dim, kv = heads.kv_heads * heads.head_dim;
    return {0, q, q + kv, q + 2 * kv};
  }

  // A the parts' below each other, B theirs down a diagonal: the sum of the parts' deltas, each in
  // its rows.
  void finish_joins() {
    if (joins_.empty()) return;
    for (const auto& [module, join] : joins_) finish(module, join);
    // n ranks together need an alpha that gives the scale of one.
    const AdapterConfig config = parse_adapter_config(in_.config, in_.where);
    out_.joins = true;
    for (const auto& entry : out_.tensors) {
      const TensorNameView parsed = view_tensor_name(entry.first);
      if (parsed.part != TensorPart::lora_a) continue;
      const std::string module(parsed.module);
      const auto parts = joined_parts_.find(module);
      const Scaling own = config.scaling(spec_.normalised(module));
      out_.alphas[module] =
          parts == joined_parts_.end() ? own.alpha : alpha_of_all(own, parts->second);
    }
  }

  static double alpha_of_all(const Scaling& one, int64_t parts) {
    const int64_t rank = one.rank * parts;
    return one.rslora ? one.with_rank(rank).alpha : Scaling::plain(rank, one.value()).alpha;
  }

  void finish(const std::string& module, const Join& join) {
    const std::array<int64_t, 4> rows = first_rows(*join.linear);
    std::vector<Tensor> a;
    std::vector<PlacedTensor> b;
    std::string name;
    int64_t rank = 0;
    for (size_t i = 0; i < join.parts.size(); ++i) {
      const Part& part = join.parts[i];
      if (!part.side[0] && !part.side[1]) continue;
      for (const Side side : {Side::A, Side::B})
        if (!part.side[static_cast<size_t>(side)])
          throw orphan(part.names[1 - static_cast<size_t>(side)], side);
      check(part, rows[i + 1] - rows[i], a.empty() ? part.side[0]->dim(0) : a.front().dim(0));
      a.push_back(*part.side[0]);
      b.push_back({*part.side[1], {rows[i], rank}});
      rank += part.side[0]->dim(0);
      name = part.names[0];
    }
    joined_parts_[module] = static_cast<int64_t>(a.size());
    put(out_, name, lora_name(module, Side::A), Tensor::concat(0, a));
    put(out_, name, lora_name(module, Side::B),
        Tensor::assemble(b.front().part.dtype(), {rows.back(), rank}, b));
  }

  void check(const Part& part, int64_t rows, int64_t rank) const {
    const Tensor &a = *part.side[0], &b = *part.side[1];
    check_ranks(part.names[0], a, b);
    if (a.dim(0) != rank)
      throw Error(part.names[0], fmt::format("has rank {}, the first part of the joined matrix {}",
                                             a.dim(0), rank));
    if (b.dim(0) != rows)
      throw Error(part.names[1], fmt::format("has {} rows, expected {}", b.dim(0), rows),
                  check_base());
  }

  const ForeignAdapter& in_;
  const ModelSpec& spec_;
  ModulesByLayer modules_;
  Translation& out_;
  std::map<std::string, Join> joins_;  // by the hub's module
  std::map<std::string, int64_t> joined_parts_;
};

void read(const ForeignAdapter& in, Translation& out) {
  const ModelSpec* spec = base_of_names(
      in, owns,
      "is torchtune's name of a module, and what the model calls it and in which order the rows of "
      "q and k lie is not known",
      out);
  if (spec != nullptr) Reader(in, *spec, out).read();
}

}  // namespace

const Dialect dialects::torchtune = {
    .id = "torchtune",
    .whose = "torchtune or torchtitan",
    .names = "layers.N.attn.q_proj.lora_a.weight, mlp.w1, w2, w3, mlp.experts.lora_gate_a",
    .shapes = "A [r, in], B [out, r]; of experts A [E, in, r], B [E, r, out]",
    .sources =
        "torchtune (models/convert_weights.py, models/*/_convert_weights.py, modules/moe/"
        "experts.py, training/checkpointing/_checkpointer.py)",
    .advice = "",
    .owns = owns,
    .read = read,
};

}  // namespace moelora
