#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/load/load.h"
#include "lib/engine/vllm/plan/plan.h"

namespace moelora::vllm {
namespace {

// ---- values as torch computes them --------------------------------------------------------------

std::byte* bytes_of(std::vector<float>& values) {
  return reinterpret_cast<std::byte*>(values.data());
}

// The elements of a tensor that is not a whole source.
class TensorSource final : public Source {
 public:
  explicit TensorSource(const Tensor& tensor)
      : Source(tensor.dtype(), tensor.elements()), tensor_(tensor) {}
  void read(int64_t first, int64_t count, std::byte* out) const override {
    if (count == elements()) return tensor_.read(out);  // a part has a piece for each row or less
    tensor_.reshape({elements()}).slice(0, first, count).read(out);
  }
  std::string where() const override {
    return tensor_.pieces().empty() ? "zeros" : tensor_.pieces().front().source->where();
  }

 private:
  Tensor tensor_;
};

using ToFloat = float (*)(const std::byte*);

template <class T>
float number(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<float>(value);
}

float half(int bits) {
  const auto narrow = static_cast<uint16_t>(bits);
  float out = 0;
  cast_elements(DType::F16, DType::F32, 1, reinterpret_cast<const std::byte*>(&narrow),
                reinterpret_cast<std::byte*>(&out));
  return out;
}

// The upper byte of an F16.
float e5m2(const std::byte* at) { return half(static_cast<int>(*at) << 8); }

// As an F16 it is 2^8 too small: its exponent has one bit less, and a bias of 7, not 15. It has no
// infinities, and one NaN of either sign.
float e4m3(const std::byte* at) {
  const int bits = static_cast<int>(*at), magnitude = bits & 0x7F;
  return magnitude == 0x7F ? NAN : 256 * half((bits & 0x80) << 8 | magnitude << 7);
}

ToFloat to_float(DType dtype) {
  constexpr std::pair<DType, ToFloat> kAll[] = {
      {DType::BOOL, number<uint8_t>}, {DType::U8, number<uint8_t>},
      {DType::I8, number<int8_t>},    {DType::I16, number<int16_t>},
      {DType::U16, number<uint16_t>}, {DType::I32, number<int32_t>},
      {DType::U32, number<uint32_t>}, {DType::I64, number<int64_t>},
      {DType::U64, number<uint64_t>}, {DType::F8_E4M3, e4m3},
      {DType::F8_E5M2, e5m2}};
  for (const auto& [known, convert] : kAll)
    if (known == dtype) return convert;
  return nullptr;
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

class ProductSource final : public ComputedSource {
 public:
  ProductSource(const SourcePtr& inner, double factor)
      : ComputedSource(inner, inner->dtype(), inner->elements()),
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

  std::string change() const override { return {}; }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 14;
  float factor_;
};

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
    if (view.elements() == 0 || view.sources.empty()) return Tensor::zeros(kHeld, view.shape);
    if (!view.stacked)
      return Tensor::strided(source(view.sources[0], view.scale), view.shape, view.strides,
                             view.offset);
    const Shape shape(view.shape.begin() + 1, view.shape.end());
    const std::vector<int64_t> strides(view.strides.begin() + 1, view.strides.end());
    std::vector<Tensor> parts;
    for (size_t i = 0; i < view.sources.size(); ++i)
      parts.push_back(Tensor::strided(
          source(view.sources[i], view.scales.empty() ? view.scale : view.scales[i]), shape,
          strides, view.offset));
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

// Every buffer of the rank, zero where no placement says otherwise.
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

// What ends a load on this rank, in the server's order.
std::optional<Refusal> refusal_of(const Server& server, const RankLoad& load) {
  for (const PlanEvent& event : server.events)
    if (event.refusal) return event.refusal;
  if (const auto event = start_event(server.settings)) return event->refusal;
  return load.refusal() == nullptr ? std::nullopt : load.refusal()->refusal;
}

}  // namespace

SourcePtr flat_source(const Tensor& tensor) {
  if (tensor.pieces().size() == 1) {
    const SourcePtr& source = tensor.pieces().front().source;
    if (source->elements() == tensor.elements() &&
        tensor.same_recipe(Tensor(source, tensor.shape())))
      return source;
  }
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

RankBuffers fill(const BufferRequest& request) {
  const Server server = make_server(request.plan());
  const int64_t rank = request.tp_rank;
  if (rank < 0 || rank >= server.settings.tp)
    throw Error("tp-rank",
                fmt::format("is {}, the server has ranks 0 to {}", rank, server.settings.tp - 1));
  const Adapter adapter = open_adapter(server, request.adapter);
  const RankLoad load = load_on_rank(server, adapter, rank);
  if (auto refusal = refusal_of(server, load)) return {std::move(refusal), {}};
  const auto file = static_cast<size_t>(adapter.file - request.adapter.files.data());
  return {std::nullopt, filled_buffers(server, adapter, load, request.values.at(file))};
}

}  // namespace moelora::vllm
