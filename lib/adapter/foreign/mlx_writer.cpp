#include "lib/adapter/foreign/mlx_writer.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>
#include <vector>

#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/mlx_names.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

class Writer {
 public:
  Writer(const PeftAdapter& in, const ModelSpec& spec)
      : in_(in),
        spec_(spec),
        parameters_(in.config.target_parameters.begin(), in.config.target_parameters.end()) {}

  ForeignFiles write() {
    for (const auto& [name, tensor] : in_.tensors) add(name, tensor);
    const auto [keys, layers] = targets();
    Json parameters = Json::object({{"dropout", dropout()},
                                    {"keys", Json::strings(keys)},
                                    {"rank", Json(first_.rank)},
                                    {"scale", Json(first_.value())}});
    Json::Members config{{std::string(kMlxType), in_.config.use_dora ? "dora" : "lora"},
                         {std::string(kMlxParameters), std::move(parameters)},
                         {"num_layers", Json(layers)}};
    if (!in_.config.base_model.empty())
      config.insert(config.end() - 1, {"model", in_.config.base_model});
    out_.config = Json::object(std::move(config));
    return std::move(out_);
  }

 private:
  // A kind of module: where it stands in a layer, and in which layers it is adapted.
  struct Kind {
    std::string hub;  // of one of them; "" for experts
    std::set<int> layers;
  };

  void add(const std::string& name, const Tensor& tensor) {
    const TensorName parsed = parse_tensor_name(name);
    switch (parsed.part) {
      case TensorPart::lora_a:
      case TensorPart::lora_b: {
        const bool is_a = parsed.part == TensorPart::lora_a;
        check_scale(name, parsed.module);
        const bool stacked = tensor.rank() == 3;
        put_in(name, module_of(name, parsed.module, stacked), is_a ? "lora_a" : "lora_b",
               stacked ? tensor : tensor.transpose(0, 1));
        return;
      }
      case TensorPart::embedding_a:
      case TensorPart::embedding_b:
        if (in_.config.use_dora) refuse_dora(name, "an embedding");
        check_scale(name, parsed.module);
        put_in(name, module_of(name, parsed.module, false),
               parsed.part == TensorPart::embedding_a ? "lora_a" : "lora_b",
               tensor.transpose(0, 1));
        return;
      case TensorPart::magnitude:
        if (!in_.config.use_dora)
          throw Error(name, "is DoRA's, and the config does not say use_dora",
                      "set \"use_dora\" as the trainer used it");
        put_in(name, module_of(name, parsed.module, false), "m", tensor);
        return;
      case TensorPart::base_weight:
        throw Error(name, "is the base's own weight, and mlx-lm loads factors alone",
                    "save the adapter with save_pretrained(save_embedding_layers=False)");
      default:
        throw Error(name, "is no low-rank factor, and mlx-lm loads nothing else from an adapter",
                    "train without modules_to_save and lora_bias, or leave the tensor out");
    }
  }

  void put_in(const std::string& name, const std::string& module, std::string_view leaf,
              const Tensor& tensor) {
    if (!out_.tensors.emplace(fmt::format("{}.{}", module, leaf), tensor).second)
      throw Error(name, fmt::format("is a second {} of mlx-lm's {}", leaf, module));
  }

  [[noreturn]] static void refuse_dora(const std::string& name, std::string_view what) {
    throw Error(name, fmt::format("is of {}, whose DoRA in mlx-lm differs from PEFT's", what),
                "train them without DoRA, or merge the adapter into the base model");
  }

  // mlx-lm's path; remembered for the config.
  std::string module_of(const std::string& name, const std::string& module, bool stacked) {
    if (!stacked) {
      const std::string out = mlx_module_of_hub(module, spec_);
      remember(out, module);
      return out;
    }
    if (in_.config.use_dora) refuse_dora(name, "routed experts");
    const auto path = parse_expert_path(module);
    if (!path || !path->projection)
      throw Error(name, "is no factor of routed experts that mlx-lm has");
    const std::string out = mlx_module_of_experts(path->layer, *path->projection, spec_);
    remember(out, "");
    return out;
  }

  void remember(const std::string& mlx, const std::string& hub) {
    const auto place = find_layer(mlx);
    if (!place) {
      outside_.insert(mlx);
      return;
    }
    Kind& kind = kinds_[std::string(below_layer(mlx))];
    if (kind.layers.insert(place->layer).second) paths_.insert(mlx);
    kind.hub = hub;
  }

  // One scale and one rank are all that the config can say.
  void check_scale(const std::string& name, const std::string& module) {
    const std::string weight = module + ".weight";
    const Scaling scaling = in_.config.scaling(ends_in_any(weight, parameters_) ? weight : module);
    if (first_name_.empty()) {
      first_name_ = name;
      first_ = scaling;
    }
    if (scaling.rank == first_.rank && scaling.value() == first_.value()) return;
    throw Error(
        name,
        fmt::format("has rank {} and scale {}, {} has rank {} and scale {}: MLX has one of "
                    "each for all modules",
                    scaling.rank, scaling.value(), first_name_, first_.rank, first_.value()),
        "make them one first: lora-convert adapter IN OUT --for sglang (or vllm) pads ranks and "
        "folds scales into lora_B; then convert OUT");
  }

  bool has_module(const Kind& kind, int layer) const {
    if (kind.hub.empty()) return spec_.is_moe(layer);
    const auto place = find_layer(kind.hub);
    std::string other = kind.hub;
    other.replace(place->begin, place->end - place->begin, std::to_string(layer));
    return spec_.find_linear(spec_.normalised(other)) != nullptr;
  }

  // Whether the last layers, from `first` on, are adapted wherever they have such a module.
  bool is_of_all(const Kind& kind, int first) const {
    for (int layer = first; layer < static_cast<int>(spec_.layers); ++layer)
      if (has_module(kind, layer) != (kind.layers.count(layer) != 0)) return false;
    return true;
  }

  // keys and num_layers as mlx-lm's tuner writes them: module names below a layer, for the last
  // layers. Where the adapter is not so regular every path is named in full, which it takes too.
  std::pair<std::vector<std::string>, int64_t> targets() const {
    int first = static_cast<int>(spec_.layers) - 1;
    for (const auto& [key, kind] : kinds_) first = std::min(first, *kind.layers.begin());
    bool regular = true;
    for (const auto& [key, kind] : kinds_) regular = regular && is_of_all(kind, first);
    std::vector<std::string> keys(outside_.begin(), outside_.end());
    if (regular)
      for (const auto& [key, kind] : kinds_) keys.push_back(key);
    else
      keys.insert(keys.end(), paths_.begin(), paths_.end());
    return {keys, spec_.layers - first};
  }

  Json dropout() const {
    const Json* found = in_.config.json.find("lora_dropout");
    return found != nullptr && found->is_number() ? *found : Json(0.0);
  }

  const PeftAdapter& in_;
  const ModelSpec& spec_;
  const PathEnds parameters_;  // bare parameters, whose scale is looked up with ".weight"
  ForeignFiles out_;
  Scaling first_;
  std::string first_name_;
  std::map<std::string, Kind> kinds_;      // by path below the layer
  std::set<std::string> paths_, outside_;  // in full: in layers, and outside
};

}  // namespace

ForeignFiles write_mlx(const PeftAdapter& in) {
  if (in.spec == nullptr)
    throw needs_base("mlx",
                     "mlx-lm's names follow from its model class, and the base is not known");
  return Writer(in, *in.spec).write();
}

}  // namespace moelora
