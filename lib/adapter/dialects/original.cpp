// Module names of a model's original code: Mistral's (mistral-finetune writes them) and Meta's.
// Their rotary embedding turns rows that lie side by side, Hugging Face's those half a head apart,
// and its converters permute the rows of wq and wk accordingly; so must lora_B be. Hugging Face's
// LFM2 has feed_forward.w1 too and its InternLM2 attention.wqkv, below "model.".
//
// mistral-finetune's lora.safetensors has no adapter_config.json beside it but params.json, with
// "lora": {"rank", "scaling"}; y = W x + scaling B A x.

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <filesystem>

#include "lib/adapter/config/config_reader.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/modules_by_layer.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/io/file.h"
#include "lib/io/json.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

using Text = std::string_view;

bool owns(Text name) {
  if (!has_any(name, {"lora"})) return false;
  return without_peft_prefix(name).starts_with("layers.") &&
         has_any(name, {".feed_forward.", ".attention.wq.", ".attention.wk.", ".attention.wv.",
                        ".attention.wo.", ".attention.wqkv."});
}

// Below a layer.
constexpr std::array<std::array<Text, 2>, 7> kModules = {{{"attention.wq", "self_attn.q_proj"},
                                                          {"attention.wk", "self_attn.k_proj"},
                                                          {"attention.wv", "self_attn.v_proj"},
                                                          {"attention.wo", "self_attn.o_proj"},
                                                          {"feed_forward.w1", "mlp.gate_proj"},
                                                          {"feed_forward.w3", "mlp.up_proj"},
                                                          {"feed_forward.w2", "mlp.down_proj"}}};

Text hub_path(Text original) {
  const auto* const at = std::find_if(kModules.begin(), kModules.end(),
                                      [&](const auto& row) { return row[0] == original; });
  return at == kModules.end() ? Text{} : (*at)[1];
}

// The model types whose converters to Hugging Face permute wq and wk (transformers,
// models/*/convert_*_weights_to_hf.py).
void check_model(const std::string& name, const ModelSpec& spec) {
  constexpr Text kPermuted[] = {"llama", "mistral", "mixtral", "ministral3", "mistral3"};
  if (std::find(std::begin(kPermuted), std::end(kPermuted), spec.model_type) != std::end(kPermuted))
    return;
  throw Error(name,
              fmt::format("is a name of {}'s original code, in which the rows of q and k lie in an "
                          "order that is not known",
                          spec.model_type),
              {"check that ", Option::base,
               " names the model that the adapter was trained on; else rename its modules with the "
               "converter of the model's publisher"});
}

class Reader {
 public:
  Reader(const ModelSpec& spec, Translation& out) : spec_(spec), modules_(spec), out_(out) {}

  void add(const std::string& name, const Tensor& tensor) {
    const TensorNameView parsed = view_tensor_name(name);
    if (parsed.part != TensorPart::lora_a && parsed.part != TensorPart::lora_b)
      throw Error(name,
                  "is neither lora_A nor lora_B, the factors of the original code's names "
                  "that are read",
                  "train without lora_bias and DoRA");
    check_model(name, spec_);
    const Side side = parsed.part == TensorPart::lora_a ? Side::A : Side::B;
    const auto layer = find_layer(parsed.module);
    const Text path = layer ? parsed.module.substr(layer->end + 1) : Text{};
    const std::string module = layer ? hub_module(layer->layer, path) : "";
    if (module.empty())
      throw Error(name,
                  fmt::format("adapts \"{}\", which is no module of {}'s original code that "
                              "is known",
                              parsed.module, spec_.model_type),
                  check_base());
    put(out_, name, lora_name(module, side), in_hub_order(name, path, side, tensor));
  }

 private:
  // "" where the model has no such module.
  std::string hub_module(int layer, Text path) const {
    constexpr Text kExperts = "feed_forward.experts.";
    if (path.starts_with(kExperts) && spec_.experts != 0)  // "7.w1"
      return fmt::format("{}.{}", spec_.expert_stem(Form::hub, layer),
                         path.substr(kExperts.size()));
    const Text hub = hub_path(path);
    const LinearSpec* linear = hub.empty() ? nullptr : modules_.find(layer, hub);
    return linear == nullptr ? "" : linear->hub;
  }

  Tensor in_hub_order(const std::string& name, Text path, Side side, const Tensor& factor) const {
    const bool is_q = path == "attention.wq", is_k = path == "attention.wk";
    if (side == Side::A || (!is_q && !is_k)) return factor;
    return halves_of_rotary_pairs(name, factor, spec_, is_k);
  }

  const ModelSpec& spec_;
  ModulesByLayer modules_;
  Translation& out_;
};

void read(const ForeignAdapter& in, Translation& out) {
  const ModelSpec* spec = base_of_names(
      in, owns,
      "is the original code's name of a module, whose rows of q and k lie in another order than "
      "Hugging Face's, and how many heads there are is not known",
      out);
  if (spec == nullptr) return;
  Reader reader(*spec, out);
  for (const auto& [name, tensor] : in.tensors)
    if (owns(name))
      reader.add(name, tensor);
    else
      put(out, name, name, tensor);
}

Json config(const ForeignAdapter& in) {
  if (!in.config.is(Json::Kind::null)) return in.config;  // and what it lacks is an error
  constexpr Text kParams = "params.json";
  const std::string folder = std::filesystem::path(in.where).parent_path().string();
  const std::string path = join_path(folder, std::string(kParams));
  if (is_absent(path))
    throw Error(in_file(folder),
                "has neither adapter_config.json nor mistral-finetune's params.json: the rank and "
                "the scale of the adapter are not known",
                "copy params.json of the checkpoint beside it, or write adapter_config.json with "
                "\"r\" and \"lora_alpha\"");
  const Json params = read_json_file(InputPath(folder, std::string(kParams), Links::within));
  const ConfigReader own(params, path);
  const ConfigReader lora(own.required("lora"), path);
  const int64_t rank = lora.positive_int("rank", lora.required("rank"));
  const double scaling = lora.number("scaling", lora.required("scaling"));
  return peft_config(path, rank, scaling * static_cast<double>(rank));
}

}  // namespace

const Dialect dialects::original = {
    .id = "original",
    .whose = "the model's original code",
    .names = "layers.N.attention.wq, wk, wv, wo, feed_forward.w1, w2, w3, feed_forward.experts.{e}",
    .shapes = "A [r, in], B [out, r], rows of wq and wk in rotary pairs",
    .sources =
        "mistral-finetune (finetune/checkpointing.py, model/lora.py, model/rope.py), "
        "transformers 5 (models/*/convert_*_weights_to_hf.py)",
    .advice = "",
    .owns = owns,
    .config = config,
    .read = read,
};

}  // namespace moelora
