#include "lib/engine/vllm/plan/fill.h"

#include <fmt/format.h>

#include <map>

#include "lib/base/error.h"
#include "lib/engine/torch_values.h"
#include "lib/engine/vllm/server/module_buffers.h"

namespace moelora::vllm {
namespace {

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
  if (const auto fault = start_fault(server.settings)) return fault->refusal;
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
