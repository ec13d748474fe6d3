// mlx-lm's own adapters: adapters.safetensors beside an adapter_config.json of its own. Factors of
// an nn.Linear and of an nn.Embedding are transposed, those of a SwitchLinear (the routed experts)
// are not; delta = scale * B A. DoRA's m is PEFT's lora_magnitude_vector: both scale the rows of
// (W + scale * B A) to it.

#include <fmt/core.h>

#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "lib/adapter/config/config_reader.h"
#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/mlx_names.h"
#include "lib/adapter/foreign/mlx_writer.h"
#include "lib/adapter/names/config_kinds.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

bool owns(std::string_view name) { return ends_in_one(name, {".lora_a", ".lora_b"}); }

// ---- the config --------------------------------------------------------------------------------

constexpr std::string_view kParameters = kMlxParameters, kType = kMlxType;

// A full fine-tune has the same two files, and whole weights in them.
bool is_full(const Json& config) {
  const Json* type = config.find(kType);
  return type != nullptr && type->is(Json::Kind::string) && type->as_string() == "full";
}

bool fits(std::span<const TensorMap::value_type* const>, const Json& config) {
  return is_full(config) && !has_peft_keys(config);
}

// Up to 0.14 the scale was scale * alpha / rank; from 0.15 on it is `scale`, though 0.15 to 0.21
// still wrote an alpha that nothing read. num_layers and fine_tune_type came after 0.16.
double scale_of(const ConfigReader& own, const ConfigReader& parameters, int64_t rank) {
  const double scale = parameters.number("scale", parameters.required("scale"));
  const Json* written = parameters.get("alpha");
  if (written == nullptr || own.get("num_layers") != nullptr || own.get(kType) != nullptr)
    return scale;
  const double alpha = parameters.number("alpha", *written);
  if (alpha == static_cast<double>(rank)) return scale;
  throw Error(place_of(*written, own.where()),
              fmt::format("\"alpha\" is {}: mlx-lm multiplied scale by alpha / rank up to 0.14 and "
                          "ignores it since 0.15, and this config tells neither from the other",
                          alpha),
              fmt::format("trained with 0.15 or later: remove \"alpha\"; with an earlier one: set "
                          "\"scale\" to {} and remove it",
                          scale * alpha / static_cast<double>(rank)));
}

struct Trained {
  int64_t rank;
  double scale;
};

// nullopt where the config says nothing in mlx-lm's words.
std::optional<Trained> trained(const Json& config, const std::string& where) {
  const ConfigReader own(config, where);
  const Json* found = own.get(kParameters, Json::Kind::object, "an object");
  if (found == nullptr) return std::nullopt;
  const ConfigReader parameters(*found, where);
  const int64_t rank = parameters.positive_int("rank", parameters.required("rank"));
  return Trained{rank, scale_of(own, parameters, rank)};
}

bool uses_dora(const ConfigReader& own) {
  const std::string type = own.string(kType);
  if (!type.empty() && type != "lora" && type != "dora")
    throw Error(place_of(*own.get(kType), own.where()),
                fmt::format("\"{}\" is {}, expected \"lora\" or \"dora\"", kType, in_quotes(type)));
  return type == "dora" || own.boolean("use_dora");  // the key until 0.18
}

Json config(const ForeignAdapter& in) {
  if (in.config.is(Json::Kind::null))
    throw Error(in.where, "is missing, and MLX's factors mean nothing without its rank and scale",
                "put back the adapter_config.json that mlx-lm wrote beside the weights");
  if (is_full(in.config))
    throw Error(place_of(*in.config.find(kType), in.where),
                "\"fine_tune_type\" is \"full\": the file holds whole weights of the last layers, "
                "no low-rank factors",
                "write the whole model with mlx_lm.fuse and serve that");
  const ConfigReader own(in.config, in.where);
  own.required(kParameters);
  const Trained with = *trained(in.config, in.where);
  Json out = peft_config(in.where, with.rank, Scaling::plain(with.rank, with.scale).alpha);
  if (const std::string base = own.string("model"); !base.empty())
    out.set("base_model_name_or_path", base);
  if (const Json* dropout = own.get(kParameters)->find("dropout");
      dropout != nullptr && dropout->is_number())
    out.set("lora_dropout", *dropout);
  out.set("use_dora", uses_dora(own));
  return out;
}

// ---- reading -----------------------------------------------------------------------------------

// PEFT's keys beside mlx-lm's: one of the two was added by hand, and they must mean the same.
void check_scales(const ForeignAdapter& in, const Trained& own) {
  if (!has_peft_keys(in.config)) return;
  const ConfigReader peft(in.config, in.where);
  const Json& alpha = peft.required("lora_alpha");
  const Scaling said{peft.positive_int("r", peft.required("r")), peft.number("lora_alpha", alpha),
                     peft.boolean("use_rslora")};
  // By hand: 0.3 / 3 is not the double 0.1.
  const bool same_scale = std::abs(said.value() - own.scale) <= 1e-9 * std::abs(own.scale);
  if (said.rank == own.rank && same_scale) return;
  throw Error(
      place_of(alpha, in.where),
      fmt::format("\"r\" {} and \"lora_alpha\" {} make the scale {}, and \"lora_parameters\" "
                  "says rank {} and scale {}",
                  said.rank, said.alpha, said.value(), own.rank, own.scale),
      "remove \"r\" and \"lora_alpha\", which mlx-lm does not write, or correct them");
}

class Reader {
 public:
  Reader(const ForeignAdapter& in, Translation& out) : in_(in), out_(out) {
    trained_ = trained(in.config, in.where);
    if (trained_) check_scales(in, *trained_);
  }

  void read() {
    for (const auto& [name, tensor] : in_.tensors) {
      if (name.ends_with(".lora_a"))
        add_pair(name, tensor);
      else if (name.ends_with(".lora_b"))
        partner(name, ".lora_a");
      else if (const std::string a = sibling(name, "lora_a"); is_magnitude(name, a))
        put(out_, name, module_of(a) + ".lora_magnitude_vector", tensor);
      else
        out_.tensors.emplace(name, tensor);
    }
  }

 private:
  bool is_magnitude(const std::string& name, const std::string& a) const {
    return name.ends_with(".m") && in_.tensors.count(a) != 0;
  }

  const Tensor& partner(const std::string& name, std::string_view end) const {
    const std::string other = std::string(parent_of(name)).append(end);
    const auto at = in_.tensors.find(other);
    if (at == in_.tensors.end())
      throw Error(name, fmt::format("has no {} beside it", other),
                  "the file is not whole: save the adapter again");
    return at->second;
  }

  std::string module_of(const std::string& name) const {
    return std::string(kPeftPrefix) + hub_module_of_mlx(parent_of(name), in_.spec, name);
  }

  void add_pair(const std::string& name, const Tensor& a) {
    const Tensor& b = partner(name, ".lora_b");
    const std::string module = hub_module_of_mlx(parent_of(name), in_.spec, name);
    if (mlx_experts(parent_of(name))) return add(name, module, stacked_a(name, a, b), b);
    if (a.rank() != 2 || b.rank() != 2 || a.dim(1) != b.dim(0))
      refuse(name, a, b, "[in, r], [r, out]");
    check_rank(name, a.dim(1));
    add(name, module, a.transpose(0, 1), b.transpose(0, 1));
  }

  // Until 0.27 or later A of all experts was one matrix, expert by expert.
  Tensor stacked_a(const std::string& name, const Tensor& a, const Tensor& b) const {
    const bool flat = a.rank() == 2 && b.rank() == 3 && b.dim(2) > 0 && a.dim(0) % b.dim(2) == 0 &&
                      a.dim(0) / b.dim(2) == b.dim(0);
    const Tensor out = flat ? a.reshape({b.dim(0), b.dim(2), a.dim(1)}) : a;
    if (out.rank() != 3 || b.rank() != 3 || out.dim(0) != b.dim(0) || out.dim(1) != b.dim(2))
      refuse(name, a, b, "[E, r, in], [E, out, r]");
    check_rank(name, out.dim(1));
    return out;
  }

  [[noreturn]] static void refuse(const std::string& name, const Tensor& a, const Tensor& b,
                                  std::string_view expected) {
    throw Error(name, fmt::format("is {} and lora_b is {}, expected {}", to_string(a.shape()),
                                  to_string(b.shape()), expected));
  }

  void check_rank(const std::string& name, int64_t rank) const {
    if (!trained_ || rank == trained_->rank) return;
    throw Error(name,
                fmt::format("has rank {}, and \"lora_parameters\" says {}", rank, trained_->rank),
                "the config is of another training: put back the one that was beside the weights");
  }

  void add(const std::string& name, const std::string& module, const Tensor& a, const Tensor& b) {
    const bool embedding = is_embedding(module);
    if (embedding && in_.tensors.count(sibling(name, "m")) != 0)
      throw Error(sibling(name, "m"), "is DoRA's of an embedding, which PEFT computes otherwise",
                  "train the embedding without DoRA");
    for (const Side side : {Side::A, Side::B})
      put(out_, name,
          embedding ? fmt::format("{}{}.lora_embedding_{}", kPeftPrefix, module, side_letter(side))
                    : lora_name(module, side),
          side == Side::A ? a : b);
    if (embedding && in_.spec != nullptr && in_.spec->tied_embeddings)
      out_.notes.push_back(fmt::format(
          "{} is the output layer too: mlx-lm adapts both, PEFT the embedding alone until it is "
          "merged",
          module));
  }

  bool is_embedding(const std::string& module) const {
    if (in_.spec != nullptr) {
      const LinearSpec* linear = in_.spec->find_linear(module);
      return linear != nullptr && linear->role == Role::embedding;
    }
    const std::string_view leaf = leaf_of(module);
    return leaf == "embed_tokens" || leaf == "wte" || leaf == "embeddings" ||
           leaf == "word_embeddings";
  }

  const ForeignAdapter& in_;
  Translation& out_;
  std::optional<Trained> trained_;
};

void read(const ForeignAdapter& in, Translation& out) { Reader(in, out).read(); }

}  // namespace

const Dialect dialects::mlx = {
    .id = "mlx",
    .whose = "MLX",
    .names = "MODULE.lora_a, MODULE.lora_b; experts in switch_mlp; DoRA's m",
    .shapes = "A [in, r], B [r, out]; of experts A [E, r, in] (once [E*r, in]), B [E, out, r]",
    .sources = "mlx-lm 0.32.2 (tuner/lora.py, tuner/dora.py, tuner/utils.py), 0.0.6 to 0.27",
    .advice = "",
    .owns = owns,
    .fits = fits,
    .config = config,
    .read = read,
    .write = write_mlx,
    .through = "stacked",
    .stem = "adapters",
};

}  // namespace moelora
