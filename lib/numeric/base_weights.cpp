#include "lib/numeric/base_weights.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/model/expert_tensors.h"
#include "lib/model/model_spec.h"
#include "lib/model/rename.h"
#include "lib/numeric/quantized.h"

namespace moelora {
namespace {

constexpr std::string_view kPacked = "weight_packed", kBlockScale = "weight_scale_inv";

// The experts of a layer whose matrices are integers or FP8 with scales, one expert after another.
class QuantisedExperts {
 public:
  QuantisedExperts(const TensorMap& tensors, const ModelSpec& spec, int layer,
                   const std::string& where)
      : tensors_(tensors),
        spec_(spec),
        storage_(per_expert_storage(spec)),
        stem_(with_layer(storage_.stem, layer)),
        where_(where) {}

  // Whether expert 0's down projection has a tensor NAME.`suffix`.
  bool stored_as(std::string_view suffix) const {
    return tensors_.count(fmt::format("{}.0.{}.{}", stem_, storage_.down, suffix)) != 0;
  }

  BaseWeights read(std::string_view suffix) const {
    BaseWeights out;
    for (const StoredProjection& p : stored_projections(storage_)) {
      for (int64_t e = 0; e < spec_.experts; ++e) {
        const std::string name = fmt::format("{}.{}.{}", stem_, e, p.name);
        out.weights[p.projection].push_back(
            checked(suffix == kPacked ? packed(name, out.form) : fp8(name, out.form), p, name));
        if (spec_.expert_bias) out.biases[p.projection].push_back(take(name + ".bias"));
      }
    }
    return out;
  }

 private:
  Tensor packed(const std::string& name, std::string& form) const {
    const Tensor& shape = take(name + ".weight_shape");
    PackedInts parts{take(name + ".weight_packed"), take(name + ".weight_scale")};
    const auto [out, in] = two_numbers(shape, name);
    parts.out = out;
    parts.in = in;
    if (const Tensor* zero = find(name + ".weight_zero_point")) parts.zero_point = *zero;
    if (const Tensor* groups = find(name + ".weight_g_idx")) parts.group_of = *groups;
    const Tensor result = packed_ints_tensor(parts, where_ + ": " + name);
    const int bits = packed_bits(parts.packed, parts.in);
    form = parts.scale.dim(1) == 1
               ? fmt::format("INT{} with a scale a row", bits)
               : fmt::format("INT{} in groups of {}", bits, parts.in / parts.scale.dim(1));
    return result;
  }

  Tensor fp8(const std::string& name, std::string& form) const {
    form = fmt::format("FP8 in blocks of {}x{}", kFp8Block, kFp8Block);
    return block_fp8_tensor(take(name + ".weight"), take(fmt::format("{}.{}", name, kBlockScale)),
                            where_ + ": " + name);
  }

  std::pair<int64_t, int64_t> two_numbers(const Tensor& tensor, const std::string& name) const {
    const bool known = tensor.dtype() == DType::I64 || tensor.dtype() == DType::I32;
    if (!known || tensor.elements() != 2)
      throw Error(where_ + ": " + name + ".weight_shape",
                  fmt::format("is {} {}, expected two I64 or I32", dtype_name(tensor.dtype()),
                              to_string(tensor.shape())));
    const std::vector<std::byte> bytes = tensor.read();
    const auto at = [&](size_t i) -> int64_t {
      if (tensor.dtype() == DType::I64) return reinterpret_cast<const int64_t*>(bytes.data())[i];
      return reinterpret_cast<const int32_t*>(bytes.data())[i];
    };
    return {at(0), at(1)};
  }

  Tensor checked(const Tensor& tensor, const StoredProjection& p, const std::string& name) const {
    const Shape expected = {spec_.out_dim(p.projection), spec_.in_dim(p.projection)};
    if (tensor.shape() == expected) return tensor;
    throw Error(where_ + ": " + name, fmt::format("is a {} matrix, the config says {}",
                                                  to_string(tensor.shape()), to_string(expected)));
  }

  const Tensor* find(const std::string& name) const {
    const auto found = tensors_.find(name);
    return found == tensors_.end() ? nullptr : &found->second;
  }

  const Tensor& take(const std::string& name) const {
    if (const Tensor* found = find(name)) return *found;
    throw Error(where_, fmt::format("the tensor {} is missing", name),
                "check that all shards of the checkpoint are there");
  }

  const TensorMap& tensors_;
  const ModelSpec& spec_;
  ExpertStorage storage_;
  std::string stem_;
  const std::string& where_;
};

// The tensors below any of the places where the experts of `layer` may be.
TensorMap tensors_of_layer(const TensorMap& tensors, const ModelSpec& spec, int layer) {
  TensorMap out;
  for (const ExpertStorage& storage : {spec.hub, spec.memory, per_expert_storage(spec)}) {
    const std::string stem = with_layer(storage.stem, layer) + ".";
    for (auto it = tensors.lower_bound(stem); it != tensors.end(); ++it) {
      if (!it->first.starts_with(stem)) break;
      out.insert(*it);
    }
  }
  return out;
}

BaseWeights plain_experts(const TensorMap& tensors, const ModelSpec& spec, int layer,
                          const std::string& where) {
  const SplitExperts split = split_experts(tensors, spec, where);
  if (split.experts.empty())
    throw Error(where, fmt::format("holds no experts of layer {}", layer),
                "check that all shards of the checkpoint are there");
  const ExpertLayer& found = split.experts.front();
  BaseWeights out;
  for (const auto& [projection, tensor] : found.weights) {
    for (int64_t e = 0; e < spec.experts; ++e)
      out.weights[projection].push_back(tensor.select(0, e));
    out.form = found.mxfp4 ? "MXFP4" : std::string(dtype_name(tensor.dtype()));
  }
  for (const auto& [projection, tensor] : found.biases) {
    for (int64_t e = 0; e < spec.experts; ++e)
      out.biases[projection].push_back(tensor.select(0, e));
  }
  return out;
}

Tensor random_tensor(const SyntheticBase& base, Projection p, int64_t expert, const Shape& shape) {
  const bool bias = shape.size() == 1;
  const double variance = bias ? 0.01 : 1.0 / static_cast<double>(shape[1]);
  const int64_t elements = bias ? shape[0] : shape[0] * shape[1];
  const std::string name =
      fmt::format("{}.{}.{}.{}", base.layer, expert, projection_name(p), bias ? "bias" : "weight");
  const SourcePtr source = random_source(base.seed, name, elements, std::sqrt(3 * variance));
  return Tensor(cast_source(source, DType::BF16), shape);
}

}  // namespace

BaseWeights read_base_weights(const TensorMap& tensors, const ModelSpec& spec, int layer,
                              const std::string& where) {
  const TensorMap of_layer = tensors_of_layer(tensors, spec, layer);
  const QuantisedExperts quantised(of_layer, spec, layer, where);
  for (const std::string_view suffix : {kPacked, kBlockScale}) {
    if (quantised.stored_as(suffix)) return quantised.read(suffix);
  }
  return plain_experts(of_layer, spec, layer, where);
}

BaseWeights synthetic_base(const SyntheticBase& base) {
  BaseWeights out;
  out.form = fmt::format("synthetic, seed {}", base.seed);
  for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
    if (p == Projection::gate && !base.gated) continue;
    const bool down = p == Projection::down;
    const int64_t rows = down ? base.width : base.intermediate;
    const int64_t columns = down ? base.intermediate : base.width;
    for (int64_t e = 0; e < base.experts; ++e) {
      out.weights[p].push_back(random_tensor(base, p, e, {rows, columns}));
      if (base.biases) out.biases[p].push_back(random_tensor(base, p, e, {rows}));
    }
  }
  return out;
}

}  // namespace moelora
