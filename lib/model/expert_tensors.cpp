#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <set>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/model/base_convert.h"
#include "lib/model/mxfp4.h"
#include "lib/model/rename.h"

namespace moelora {
namespace {

// [E, 2I, ...] of gate and up apart.
Tensor half_of(const Tensor& gate_up, Projection half, GateUpOrder order) {
  const int64_t index = half == Projection::gate ? 0 : 1, rows = gate_up.dim(1) / 2;
  if (order == GateUpOrder::halves) return gate_up.slice(1, index * rows, rows);
  Shape apart = gate_up.shape();
  apart[1] = rows;
  apart.insert(apart.begin() + 2, 2);
  return gate_up.reshape(apart).select(2, index);
}

Tensor together(const Tensor& gate, const Tensor& up, GateUpOrder order) {
  const bool halves = order == GateUpOrder::halves;
  const Tensor parts[] = {halves ? gate : gate.unsqueeze(2), halves ? up : up.unsqueeze(2)};
  Shape shape = gate.shape();
  shape[1] *= 2;
  return Tensor::concat(halves ? 1 : 2, parts).reshape(shape);
}

// A batched parameter as [E, out, in], and back.
Tensor by_expert(const Tensor& parameter, const ModelSpec& spec, Projection p, ExpertAxes axes) {
  if (axes == ExpertAxes::out_in) return parameter;
  if (axes == ExpertAxes::in_out) return parameter.transpose(1, 2);
  const Tensor apart = parameter.reshape(
      {parameter.dim(0) / spec.intermediate, spec.intermediate, parameter.dim(1)});
  return p == Projection::down ? apart.transpose(1, 2) : apart;
}

Tensor as_parameter(const Tensor& experts, Projection p, ExpertAxes axes) {
  if (axes == ExpertAxes::out_in) return experts;
  if (axes == ExpertAxes::in_out) return experts.transpose(1, 2);
  const Tensor apart = p == Projection::down ? experts.transpose(1, 2) : experts;
  return apart.reshape({apart.dim(0) * apart.dim(1), apart.dim(2)});
}

class ExpertReader {
 public:
  ExpertReader(const TensorMap& tensors, const ModelSpec& spec, const std::string& where)
      : tensors_(tensors), spec_(spec), where_(where) {}

  SplitExperts split() {
    std::map<int, ExpertLayer> experts;
    for (const ExpertStorage& storage : storages_)
      for (const int layer : layers_of(storage))
        if (!experts.contains(layer)) experts.emplace(layer, read(storage, layer));
    SplitExperts out;
    for (auto& [layer, read] : experts) out.experts.push_back(std::move(read));
    for (const auto& [name, tensor] : tensors_) {
      if (used_.contains(name) || is_of_idle(name)) continue;
      refuse_expert(name);
      out.rest.emplace(name, tensor);
    }
    return out;
  }

 private:
  // The layer whose experts the tensor belongs to; -1 for none, and for one that is never run.
  int layer_of(const ExpertStorage& storage, const std::string& name) const {
    const auto [layer, rest] = split_stem(name, storage.stem);
    if (layer < 0 || rest.empty()) return -1;
    if (storage.numbered)
      return std::isdigit(static_cast<unsigned char>(rest[0])) != 0 && !is_idle(rest) ? layer : -1;
    for (const StoredProjection& p : stored_projections(storage))
      if (rest.starts_with(p.name.substr(0, p.name.find('.')))) return layer;
    return -1;
  }

  bool is_idle(const std::string& rest) const {
    const auto expert = parse_index(std::string_view(rest).substr(0, rest.find('.')));
    return expert && *expert >= spec_.experts && *expert < spec_.experts + spec_.idle_experts;
  }

  // What transformers saves of experts that are never run, in numbered form: of no use.
  bool is_of_idle(const std::string& name) const {
    return std::any_of(storages_.begin(), storages_.end(), [&](const ExpertStorage& storage) {
      const auto [layer, rest] = split_stem(name, storage.stem);
      return storage.numbered && layer >= 0 && is_idle(rest);
    });
  }

  std::set<int> layers_of(const ExpertStorage& storage) const {
    std::set<int> out;
    for (const auto& [name, tensor] : tensors_) out.insert(layer_of(storage, name));
    out.erase(-1);
    return out;
  }

  ExpertLayer read(const ExpertStorage& storage, int layer) {
    ExpertLayer out;
    out.layer = layer;
    out.numbered = storage.numbered;
    const std::string stem = with_layer(storage.stem, layer);
    ExpertStorage as_found = storage;
    as_found.axes = axes_in(tensors_, spec_, storage, layer);
    for (const StoredProjection& p : stored_projections(storage)) {
      const Tensor weight =
          storage.numbered ? numbered(stem, p, "weight") : batched(stem, p, as_found, out.mxfp4);
      add(out.weights, p.projection, weight, storage);
      if (spec_.expert_bias)
        add(out.biases, p.projection,
            storage.numbered
                ? numbered(stem, p, "bias")
                : take(stem + "." + p.name + "_bias", {spec_.experts, spec_.out_dim(p.projection)}),
            storage);
    }
    return out;
  }

  void add(std::map<Projection, Tensor>& out, Projection projection, const Tensor& tensor,
           const ExpertStorage& storage) const {
    if (projection != Projection::gate_up) {
      out[projection] = tensor;
      return;
    }
    for (const Projection half : {Projection::gate, Projection::up})
      out[half] = half_of(tensor, half, required_gate_up_order(spec_, storage));
  }

  Tensor numbered(const std::string& stem, const StoredProjection& p, const std::string& what) {
    const Shape shape = what == "bias"
                            ? Shape{spec_.out_dim(p.projection)}
                            : Shape{spec_.out_dim(p.projection), spec_.in_dim(p.projection)};
    std::vector<Tensor> parts;
    for (int64_t e = 0; e < spec_.experts; ++e) {
      const std::string name = fmt::format("{}.{}.{}.{}", stem, e, p.name, what);
      parts.push_back(take(name, shape));
      if (parts.back().dtype() != parts.front().dtype())
        throw Error(in_file(where_, name),
                    fmt::format("is {}, but expert 0's is {}", dtype_name(parts.back().dtype()),
                                dtype_name(parts.front().dtype())));
    }
    return Tensor::stack(parts);
  }

  Tensor batched(const std::string& stem, const StoredProjection& p, const ExpertStorage& storage,
                 bool& mxfp4) {
    const std::string name = stem + "." + p.name;
    const int64_t rows = spec_.out_dim(p.projection), columns = spec_.in_dim(p.projection);
    if (tensors_.count(name + "_blocks") != 0) {
      mxfp4 = true;
      const Tensor blocks = take(name + "_blocks"), scales = take(name + "_scales");
      return checked(name + "_blocks",
                     mxfp4_tensor(blocks, scales, where_ + ": " + name + "_blocks"),
                     {spec_.experts, rows, columns});
    }
    const Tensor all = by_expert(take(name, spec_.parameter_shape(storage, p.projection)), spec_,
                                 p.projection, storage.axes);
    return all.dim(0) == spec_.experts ? all : all.slice(0, 0, spec_.experts);
  }

  const Tensor& take(const std::string& name) {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) {
      throw Error(where_, fmt::format("the tensor {} is missing", name),
                  fmt::format("the config says {} experts a layer; check that all shards are there",
                              spec_.experts));
    }
    used_.insert(name);
    return found->second;
  }

  const Tensor& take(const std::string& name, const Shape& shape) {
    return checked(name, take(name), shape);
  }

  const Tensor& checked(const std::string& name, const Tensor& tensor, const Shape& shape) const {
    if (tensor.shape() == shape) return tensor;
    throw Error(in_file(where_, name), fmt::format("has shape {}, the config says {}",
                                                   to_string(tensor.shape()), to_string(shape)));
  }

  void refuse_expert(const std::string& name) const {
    for (const ExpertStorage& storage : storages_)
      if (const int layer = layer_of(storage, name); layer >= 0)
        throw Error(
            in_file(where_, name),
            fmt::format(
                "belongs to the experts of layer {}, but is none of the tensors they are known by",
                layer),
            "quantized experts other than MXFP4 (FP8, bitsandbytes) must be dequantized first");
  }

  const TensorMap& tensors_;
  const ModelSpec& spec_;
  const std::string& where_;
  const std::array<ExpertStorage, 3> storages_ = {spec_.hub, spec_.memory,
                                                  per_expert_storage(spec_)};
  std::set<std::string> used_;
};

Tensor stored(const std::map<Projection, Tensor>& tensors, Projection p, GateUpOrder order) {
  if (p != Projection::gate_up) return tensors.at(p);
  return together(tensors.at(Projection::gate), tensors.at(Projection::up), order);
}

// Zeros for the experts that are never run: no file has values of theirs that mean anything.
Tensor with_idle(const ModelSpec& spec, const ExpertStorage& storage, Projection p,
                 const Tensor& tensor) {
  Shape idle = tensor.shape();
  idle[0] = spec.batched_experts(p) - spec.experts;
  if (storage.numbered || idle[0] == 0) return tensor;
  return Tensor::concat(0, std::vector{tensor, Tensor::zeros(tensor.dtype(), idle)});
}

}  // namespace

ExpertAxes axes_in(const TensorMap& tensors, const ModelSpec& spec, const ExpertStorage& storage,
                   int layer) {
  if (spec.hub.numbered || spec.memory.numbered || spec.hub.axes == spec.memory.axes)
    return storage.axes;
  for (const StoredProjection& p : stored_projections(storage)) {
    const auto found = tensors.find(with_layer(storage.stem, layer) + "." + std::string(p.name));
    if (found == tensors.end()) continue;
    const int64_t rows = spec.out_dim(p.projection), columns = spec.in_dim(p.projection);
    if (rows == columns) continue;
    const int64_t experts = spec.batched_experts(p.projection);
    if (found->second.shape() == Shape{experts, rows, columns}) return ExpertAxes::out_in;
    if (found->second.shape() == Shape{experts, columns, rows}) return ExpertAxes::in_out;
  }
  return storage.axes;
}

SplitExperts split_experts(const TensorMap& tensors, const ModelSpec& spec,
                           const std::string& where) {
  return ExpertReader(tensors, spec, where).split();
}

void add_experts(const ExpertLayer& experts, const ModelSpec& spec, const ExpertStorage& storage,
                 TensorMap& out) {
  const std::string stem = with_layer(storage.stem, experts.layer);
  const auto add = [&](const StoredProjection& p, const std::map<Projection, Tensor>& all,
                       bool bias) {
    const Tensor tensor =
        with_idle(spec, storage, p.projection,
                  stored(all, p.projection, required_gate_up_order(spec, storage)));
    if (!storage.numbered)
      out[fmt::format("{}.{}{}", stem, p.name, bias ? "_bias" : "")] =
          bias ? tensor : as_parameter(tensor, p.projection, storage.axes);
    for (int64_t e = 0; storage.numbered && e < spec.experts; ++e)
      out[fmt::format("{}.{}.{}.{}", stem, e, p.name, bias ? "bias" : "weight")] =
          tensor.select(0, e);
  };
  for (const StoredProjection& p : stored_projections(storage)) {
    add(p, experts.weights, false);
    if (!experts.biases.empty()) add(p, experts.biases, true);
  }
}

}  // namespace moelora
