#include "lib/numeric/base_weights.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/model/base_convert.h"
#include "lib/model/model_spec.h"
#include "lib/model/rename.h"

namespace moelora {
namespace {

constexpr int kWordBits = 32;

int64_t words_for(int64_t values, int bits) {
  const int64_t per_word = kWordBits / bits;
  return (values + per_word - 1) / per_word;
}

void require(const Tensor& tensor, const Shape& shape, const std::string& where,
             std::string_view what) {
  if (tensor.shape() == shape) return;
  throw Error(where, fmt::format("{} has shape {}, expected {}", what, to_string(tensor.shape()),
                                 to_string(shape)));
}

void require(const Tensor& tensor, DType dtype, const std::string& where, std::string_view what) {
  if (tensor.dtype() == dtype) return;
  throw Error(where, fmt::format("{} is {}, expected {}", what, dtype_name(tensor.dtype()),
                                 dtype_name(dtype)));
}

std::vector<uint32_t> words_of(const Tensor& tensor) {
  std::vector<uint32_t> out(static_cast<size_t>(tensor.elements()));
  tensor.read(reinterpret_cast<std::byte*>(out.data()));
  return out;
}

class PackedIntsSource final : public Source {
 public:
  PackedIntsSource(PackedInts parts, int bits, std::string where)
      : Source(DType::F64, parts.out * parts.in),
        parts_(std::move(parts)),
        bits_(bits),
        groups_(parts_.scale.dim(1)),
        where_(std::move(where)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const std::vector<int64_t> groups = group_of_columns();
    for (int64_t at = first; at < first + count;) {
      const int64_t row = at / parts_.in, column = at % parts_.in;
      const int64_t n = std::min(parts_.in - column, first + count - at);
      read_row(row, column, n, groups, out);
      out += n * 8;
      at += n;
    }
  }

  std::string where() const override { return where_; }
  std::string change() const override { return fmt::format("decode INT{} (exact)", bits_); }

 private:
  int value_of(uint32_t word, int64_t index) const {
    const int64_t shift = index % (kWordBits / bits_) * bits_;
    const uint32_t mask = (1u << bits_) - 1;
    return static_cast<int>((word >> shift) & mask) - (1 << (bits_ - 1));
  }

  void read_row(int64_t row, int64_t column, int64_t count, const std::vector<int64_t>& groups,
                std::byte* out) const {
    const std::vector<uint32_t> words = words_of(parts_.packed.slice(0, row, 1));
    const std::vector<double> scales = read_double(parts_.scale.slice(0, row, 1));
    const std::vector<int> zeros = zero_points(row);
    const int64_t per_word = kWordBits / bits_;
    for (int64_t c = column; c < column + count; ++c, out += 8) {
      const auto group = static_cast<size_t>(groups[static_cast<size_t>(c)]);
      const int value = value_of(words[static_cast<size_t>(c / per_word)], c);
      const double weight = (value - zeros[group]) * scales[group];
      std::memcpy(out, &weight, 8);
    }
  }

  // By group, of one row.
  std::vector<int> zero_points(int64_t row) const {
    std::vector<int> out(static_cast<size_t>(groups_), 0);
    if (!parts_.zero_point) return out;
    if (parts_.zero_point->dtype() == DType::I8) {
      const std::vector<std::byte> bytes = parts_.zero_point->slice(0, row, 1).read();
      for (size_t g = 0; g < out.size(); ++g) out[g] = static_cast<int8_t>(bytes[g]);
      return out;
    }
    const std::vector<uint32_t> words =
        words_of(parts_.zero_point->slice(0, row / (kWordBits / bits_), 1));
    for (size_t g = 0; g < out.size(); ++g) out[g] = value_of(words[g], row);
    return out;
  }

  // Without an order of its own, and where it is marked as not in use (-1), columns are in order.
  std::vector<int64_t> group_of_columns() const {
    std::vector<int64_t> out(static_cast<size_t>(parts_.in));
    for (int64_t c = 0; c < parts_.in; ++c) out[static_cast<size_t>(c)] = c / (parts_.in / groups_);
    if (!parts_.group_of) return out;
    const std::vector<uint32_t> given = words_of(*parts_.group_of);
    if (std::all_of(given.begin(), given.end(), [](uint32_t g) { return g == ~0u; })) return out;
    for (size_t c = 0; c < out.size(); ++c) {
      if (given[c] >= static_cast<uint64_t>(groups_))
        throw Error(where_, fmt::format("weight_g_idx of column {} is {}, expected 0 to {}", c,
                                        static_cast<int32_t>(given[c]), groups_ - 1));
      out[c] = given[c];
    }
    return out;
  }

  PackedInts parts_;
  int bits_;
  int64_t groups_;
  std::string where_;
};

void check_zero_point(const PackedInts& parts, int bits, int64_t groups, const std::string& where) {
  const Tensor& zero = *parts.zero_point;
  const bool packed = zero.dtype() == DType::I32;
  if (!packed) require(zero, DType::I8, where, "weight_zero_point");
  require(zero, {packed ? words_for(parts.out, bits) : parts.out, groups}, where,
          "weight_zero_point");
}

// ---- FP8 in blocks ----

double e4m3_value(int code) {
  const int exponent = code >> 3 & 0xF, fraction = code & 7;
  if (exponent == 15 && fraction == 7) return std::numeric_limits<double>::quiet_NaN();
  const double size = exponent == 0 ? std::ldexp(fraction, -9)  // 2^-6 * fraction / 8
                                    : std::ldexp(8 + fraction, exponent - 10);
  return code >= 128 ? -size : size;
}

class BlockFp8Source final : public Source {
 public:
  BlockFp8Source(Tensor weight, Tensor scale, std::string where)
      : Source(DType::F64, weight.elements()),
        weight_(std::move(weight)),
        scale_(std::move(scale)),
        where_(std::move(where)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t columns = weight_.dim(1);
    for (int64_t at = first; at < first + count;) {
      const int64_t row = at / columns, column = at % columns;
      const int64_t n = std::min(columns - column, first + count - at);
      read_row(row, column, n, out);
      out += n * 8;
      at += n;
    }
  }

  std::string where() const override { return where_; }
  std::string change() const override { return "decode FP8 with block scales (exact)"; }

 private:
  void read_row(int64_t row, int64_t column, int64_t count, std::byte* out) const {
    const std::vector<std::byte> codes = weight_.slice(0, row, 1).slice(1, column, count).read();
    const std::vector<double> scales = read_double(scale_.slice(0, row / kFp8Block, 1));
    for (int64_t i = 0; i < count; ++i, out += 8) {
      const double code = e4m3_values()[static_cast<size_t>(codes[static_cast<size_t>(i)])];
      const double value = code * scales[static_cast<size_t>((column + i) / kFp8Block)];
      std::memcpy(out, &value, 8);
    }
  }

  Tensor weight_, scale_;
  std::string where_;
};

int64_t blocks_of(int64_t extent) { return (extent + kFp8Block - 1) / kFp8Block; }

}  // namespace

int packed_bits(const Tensor& packed, int64_t in) {
  if (packed.rank() != 2 || in < 1 || in / 8 > packed.dim(1)) return 0;
  for (const int bits : {4, 8}) {
    if (packed.dim(1) == words_for(in, bits)) return bits;
  }
  return 0;
}

Tensor packed_ints_tensor(const PackedInts& parts, const std::string& where) {
  require(parts.packed, DType::I32, where, "weight_packed");
  const int bits = packed_bits(parts.packed, parts.in);
  if (bits == 0 || parts.packed.dim(0) != parts.out)
    throw Error(where, fmt::format("weight_packed has shape {}, which holds neither 4-bit nor "
                                   "8-bit values of a [{}, {}] matrix",
                                   to_string(parts.packed.shape()), parts.out, parts.in));
  const Tensor& scale = parts.scale;
  if (!is_float(scale.dtype()) || scale.rank() != 2 || scale.dim(0) != parts.out ||
      scale.dim(1) < 1 || parts.in % scale.dim(1) != 0)
    throw Error(where, fmt::format("weight_scale is {} {}, expected a float type and [{}, a "
                                   "divisor of {}]",
                                   dtype_name(scale.dtype()), to_string(scale.shape()), parts.out,
                                   parts.in));
  if (parts.zero_point) check_zero_point(parts, bits, scale.dim(1), where);
  if (parts.group_of) {
    require(*parts.group_of, DType::I32, where, "weight_g_idx");
    require(*parts.group_of, {parts.in}, where, "weight_g_idx");
  }
  return Tensor(std::make_shared<PackedIntsSource>(parts, bits, where), {parts.out, parts.in});
}

const std::array<double, 256>& e4m3_values() {
  static const std::array<double, 256> values = [] {
    std::array<double, 256> out;
    for (int code = 0; code < 256; ++code) out[static_cast<size_t>(code)] = e4m3_value(code);
    return out;
  }();
  return values;
}

Tensor block_fp8_tensor(const Tensor& weight, const Tensor& scale, const std::string& where) {
  if (weight.dtype() != DType::F8_E4M3 || weight.rank() != 2)
    throw Error(where, fmt::format("is {} {}, expected a matrix of F8_E4M3",
                                   dtype_name(weight.dtype()), to_string(weight.shape())));
  const Shape expected = {blocks_of(weight.dim(0)), blocks_of(weight.dim(1))};
  if (!is_float(scale.dtype()) || scale.shape() != expected)
    throw Error(where, fmt::format("weight_scale_inv is {} {}, expected a float type and {}, one "
                                   "scale for each {}x{} block",
                                   dtype_name(scale.dtype()), to_string(scale.shape()),
                                   to_string(expected), kFp8Block, kFp8Block));
  return Tensor(std::make_shared<BlockFp8Source>(weight, scale, where), weight.shape());
}

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
               ? fmt::format("INT{} with a scale per row", bits)
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
