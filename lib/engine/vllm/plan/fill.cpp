#include "lib/engine/vllm/plan/fill.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/server/module_buffers.h"

namespace moelora::vllm {
namespace {

// ---- values as torch computes them
// ---------------------------------------------------------------

constexpr int64_t kChunk = int64_t{1} << 14;

std::byte* bytes_of(std::vector<float>& values) {
  return reinterpret_cast<std::byte*>(values.data());
}

// The elements of a tensor that is not a whole source.
class TensorSource final : public Source {
 public:
  explicit TensorSource(const Tensor& tensor)
      : Source(tensor.dtype(), tensor.elements()), flat_(tensor.reshape({tensor.elements()})) {}
  void read(int64_t first, int64_t count, std::byte* out) const override {
    flat_.slice(0, first, count).read(out);
  }
  std::string where() const override {
    return flat_.pieces().empty() ? "zeros" : flat_.pieces().front().source->where();
  }

 private:
  Tensor flat_;
};

// FP8 with `mantissa` bits below the leading one; E5M2 has infinities, E4M3 has not.
float small_float(uint8_t bits, int mantissa) {
  const int exponent_bits = 7 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7F) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  const bool top = exponent == (1 << exponent_bits) - 1;
  float out = exponent == 0 ? std::ldexp(static_cast<float>(fraction), 1 - bias - mantissa)
                            : std::ldexp(static_cast<float>(fraction + (1 << mantissa)),
                                         exponent - bias - mantissa);
  if (mantissa == 2 && top) out = fraction == 0 ? HUGE_VALF : NAN;
  if (mantissa == 3 && top && fraction == 7) out = NAN;
  return (bits & 0x80) != 0 ? -out : out;
}

template <class T>
float number(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<float>(value);
}

using ToFloat = float (*)(const std::byte*);

ToFloat to_float(DType dtype) {
  switch (dtype) {
    case DType::BOOL:
    case DType::U8:
      return number<uint8_t>;
    case DType::I8:
      return number<int8_t>;
    case DType::I16:
      return number<int16_t>;
    case DType::U16:
      return number<uint16_t>;
    case DType::I32:
      return number<int32_t>;
    case DType::U32:
      return number<uint32_t>;
    case DType::I64:
      return number<int64_t>;
    case DType::U64:
      return number<uint64_t>;
    case DType::F8_E4M3:
      return [](const std::byte* at) { return small_float(static_cast<uint8_t>(*at), 3); };
    case DType::F8_E5M2:
      return [](const std::byte* at) { return small_float(static_cast<uint8_t>(*at), 2); };
    default:
      return nullptr;
  }
}

// Integers and FP8 as F32.
class NumberSource final : public Source {
 public:
  NumberSource(SourcePtr inner, ToFloat one)
      : Source(DType::F32, inner->elements()), inner_(std::move(inner)), one_(one) {}
  void read(int64_t first, int64_t count, std::byte* out) const override {
    const auto width = static_cast<size_t>(dtype_bytes(inner_->dtype()));
    std::vector<std::byte> held(static_cast<size_t>(count) * width);
    inner_->read(first, count, held.data());
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const float value = one_(held.data() + i * width);
      std::memcpy(out + i * sizeof value, &value, sizeof value);
    }
  }
  std::string where() const override { return inner_->where(); }

 private:
  SourcePtr inner_;
  ToFloat one_;
};

class ProductSource final : public Source {
 public:
  ProductSource(SourcePtr inner, double factor)
      : Source(inner->dtype(), inner->elements()),
        inner_(std::move(inner)),
        factor_(static_cast<float>(factor)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    inner_->read(first, count, out);
    std::vector<float> values(static_cast<size_t>(std::min(count, kChunk)));
    for (int64_t at = 0; at < count; at += kChunk) {
      const int64_t n = std::min(kChunk, count - at);
      std::byte* here = out + at * dtype_bytes(dtype());
      cast_elements(dtype(), DType::F32, n, here, bytes_of(values));
      for (float& value : values) value *= factor_;
      cast_elements(DType::F32, dtype(), n, bytes_of(values), here);
    }
  }

  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }

 private:
  SourcePtr inner_;
  float factor_;
};

bool is_whole_source(const Tensor& tensor) {
  if (tensor.pieces().size() != 1) return false;
  const Piece& piece = tensor.pieces().front();
  if (piece.offset != 0 || piece.source->elements() != tensor.elements()) return false;
  int64_t step = 1;
  for (size_t a = piece.count.size(); a-- > 0; step *= piece.count[a])
    if (piece.stride[a] != step && piece.count[a] != 1) return false;
  return step == tensor.elements();
}

// ---- buffers ------------------------------------------------------------------------------------

constexpr DType kHeld = DType::BF16;

class Filler {
 public:
  Filler(const WeightFile& file, const TensorMap& values) : file_(file), values_(values) {}

  Tensor buffer(const Placement& placement, const Shape& shape) {
    std::vector<Tensor> parts;
    for (const View& part : placement.parts) parts.push_back(tensor_of(part));
    Tensor out = Tensor::concat(static_cast<int>(placement.axis), parts);
    for (size_t d = 0; d < placement.count.size(); ++d)
      if (out.shape()[d] != placement.count[d])
        out = out.broadcast(static_cast<int>(d), placement.count[d]);
    const PlacedTensor placed[] = {{std::move(out), std::vector<int64_t>(shape.size(), 0)}};
    return Tensor::assemble(kHeld, shape, placed);
  }

 private:
  Tensor tensor_of(const View& view) {
    if (view.elements() == 0) return Tensor::zeros(kHeld, view.shape);
    if (!view.stacked)
      return Tensor::strided(source(view.sources[0], view.scale), view.shape, view.strides,
                             view.offset);
    const Shape shape(view.shape.begin() + 1, view.shape.end());
    const std::vector<int64_t> strides(view.strides.begin() + 1, view.strides.end());
    std::vector<Tensor> parts;
    for (uint32_t tensor : view.sources)
      parts.push_back(Tensor::strided(source(tensor, view.scale), shape, strides, view.offset));
    return Tensor::stack(parts);
  }

  // A tensor of the file as the server holds it: cast, then scaled.
  SourcePtr source(uint32_t tensor, double scale) {
    SourcePtr& cast = sources_[{tensor, 1}];
    if (!cast) cast = torch_cast(flat_source(value(tensor)), kHeld);
    if (scale == 1) return cast;
    SourcePtr& scaled = sources_[{tensor, scale}];
    if (!scaled) scaled = torch_product(cast, scale);
    return scaled;
  }

  const Tensor& value(uint32_t tensor) const {
    const auto at = values_.find(file_.tensors[tensor].name);
    if (at == values_.end() || at->second.shape() != file_.tensors[tensor].shape)
      throw Error(file_.name, file_.tensors[tensor].name + " has no values of its shape");
    return at->second;
  }

  const WeightFile& file_;
  const TensorMap& values_;
  std::map<std::pair<uint32_t, double>, SourcePtr> sources_;
};

void check_rank(const Server& server, int64_t rank) {
  if (rank < 0 || rank >= server.settings.tp)
    throw Error("tp-rank",
                fmt::format("is {}, the server has ranks 0 to {}", rank, server.settings.tp - 1));
}

}  // namespace

SourcePtr flat_source(const Tensor& tensor) {
  if (is_whole_source(tensor)) return tensor.pieces().front().source;
  return std::make_shared<TensorSource>(tensor);
}

SourcePtr torch_cast(SourcePtr source, DType to) {
  if (source->dtype() == to) return source;
  if (is_float(source->dtype())) return cast_source(cast_source(std::move(source), DType::F32), to);
  const ToFloat one = to_float(source->dtype());
  if (one == nullptr)
    throw Error(source->where(),
                std::string(dtype_name(source->dtype())) + " is not a type that torch can cast");
  return cast_source(std::make_shared<NumberSource>(std::move(source), one), to);
}

SourcePtr torch_product(SourcePtr source, double factor) {
  if (factor == 1) return source;
  return std::make_shared<ProductSource>(std::move(source), factor);
}

TensorMap filled_buffers(const Server& server, const Adapter& adapter, const RankLoad& load,
                         const TensorMap& values) {
  TensorMap out;
  for (const Module& module : server.modules)
    for (const Buffer& buffer : module_buffers(server, module))
      out.emplace(buffer.name, Tensor::zeros(kHeld, buffer.shape));
  Filler filler(*adapter.file, values);
  for (const Placement& placement : load.placements) {
    const Buffer& buffer = load.buffers[placement.buffer];
    out[buffer.name] = filler.buffer(placement, buffer.shape);
  }
  return out;
}

std::optional<Refusal> refusal_of(const Server& server, const RankLoad& load) {
  for (const PlanEvent& event : server.events)
    if (event.refusal) return event.refusal;
  if (const auto event = start_event(server.settings)) return event->refusal;
  return load.refusal() == nullptr ? std::nullopt : load.refusal()->refusal;
}

RankBuffers fill(const BufferRequest& request) {
  const Server server = make_server(request.spec, request.base_config,
                                    make_settings(request.options, request.spec, request.version));
  check_rank(server, request.tp_rank);
  const Adapter adapter = open_adapter(server, request.adapter);
  const RankLoad load = load_on_rank(server, adapter, request.tp_rank);
  if (auto refusal = refusal_of(server, load)) return {std::move(refusal), {}};
  const auto file = static_cast<size_t>(adapter.file - request.adapter.files.data());
  return {std::nullopt, filled_buffers(server, adapter, load, request.values.at(file))};
}

}  // namespace moelora::vllm
