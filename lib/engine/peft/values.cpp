#include "lib/engine/peft/values.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "lib/adapter/gate_up.h"
#include "lib/adapter/tensor_name.h"
#include "lib/engine/peft/plan.h"
#include "lib/engine/peft/wrap.h"

namespace moelora::peft {
namespace {

// "lora_A" of a name or a key becomes "lora_B"; "" for what has none.
std::string twin_of(std::string name) {
  const size_t at = std::max(name.rfind(".lora_A.") + 1, name.rfind(".lora_embedding_A") + 1);
  if (at == 0) return "";
  name[name.find('A', at)] = 'B';
  return name;
}

Tensor experts_of_a(const Tensor& a, int64_t experts) {
  return a.reshape({experts, a.dim(0) / experts, a.dim(1)});
}
Tensor experts_of_b(const Tensor& b, int64_t experts) {
  return b.reshape({b.dim(0), b.dim(1) / experts, experts}).permute({2, 0, 1});
}

class Blocks {
 public:
  Blocks(const BufferRequest& request, const RankBuffers& held)
      : held_(held),
        host_(host_of(request.spec, request.version, request.options)),
        modules_(modules_of(host_)),
        config_(read_config(request.adapter.config)) {
    resolve_targets(config_, host_, modules_);
    wrapped_ = wrap(config_, host_, modules_);
    const ServerPlan plan = peft::plan(request.plan());
    for (const TensorFate& fate : plan.adapters.front().fates)
      if (fate.fate == Fate::used) tensors_[fate.buffer].push_back(fate.tensor);
  }

  std::vector<ServedBlock> run() {
    for (const auto& [key, tensors] : tensors_) {
      const Slot* slot = wrapped_.find(key);
      if (slot == nullptr || twin_of(key).empty()) continue;
      for (const std::string& tensor : tensors) pair(*slot, key, tensor);
    }
    return std::move(blocks_);
  }

 private:
  void pair(const Slot& slot, const std::string& key, const std::string& a) {
    const auto twins = tensors_.find(twin_of(key));
    if (twins == tensors_.end()) return;  // a lone lora_A adds nothing: lora_B stays zero
    const bool joined = tensors_.at(key).size() > 1;
    const std::string b = joined ? twin_of(a) : twins->second.front();
    const auto found = held_.buffers.find(b);
    if (found == held_.buffers.end()) return;
    place(slot, joined ? parse_tensor_name(a).module : slot.target, held_.buffers.at(a),
          found->second);
  }

  void place(const Slot& slot, const std::string& path, const Tensor& a, const Tensor& b) {
    ServedBlock block;
    block.scale = config_.scaling(slot.target);
    block.a = a;
    block.b = b;
    if (const auto expert = parse_expert_path(path);
        expert && expert->form == ExpertPath::Form::numbered) {
      block.module = projection_name(*expert->projection);
      block.layer = expert->layer;
      block.expert = *expert->expert;
    } else if (const auto parameter = expert_parameter(slot)) {
      block.layer = parameter->first;
      return host_.spec.storage(host_.form()).axes == ExpertAxes::rows
                 ? rows(parameter->second, std::move(block))
                 : batched(parameter->second, std::move(block));
    } else {
      block.module = path.ends_with(".weight") ? path.substr(0, path.size() - 7) : path;
      if (host_.spec.find_linear(block.module) == nullptr) return;  // the experts' biases
    }
    add_block(std::move(block), blocks_);
  }

  // The layer and the projection whose weights the slot's parameter holds; nullopt of another.
  std::optional<std::pair<int, Projection>> expert_parameter(const Slot& slot) const {
    const ExpertStorage& storage = host_.spec.storage(host_.form());
    if (storage.numbered) return std::nullopt;
    const auto [layer, name] = split_stem(slot.target, storage.stem);
    for (const StoredProjection& stored : stored_projections(storage))
      if (layer >= 0 && stored.name == name) return std::pair(layer, stored.projection);
    return std::nullopt;
  }

  // One Linear to PEFT, of whose outputs each expert has a run; down's weight is transposed.
  void rows(Projection projection, ServedBlock block) {
    const Tensor a = block.a, b = block.b;
    const int64_t width = host_.spec.intermediate;
    for (block.expert = 0; block.expert < host_.spec.experts; ++block.expert) {
      const Tensor own = b.slice(0, block.expert * width, width);
      const bool down = projection == Projection::down;
      block.a = down ? own.transpose(0, 1) : a;
      add(projection, down ? a.transpose(0, 1) : own, block);
    }
  }

  void batched(Projection projection, ServedBlock block) {
    const ExpertStorage& storage = host_.spec.storage(host_.form());
    const int64_t experts = host_.spec.batched_experts(projection);
    Tensor a = experts_of_a(block.a, experts), b = experts_of_b(block.b, experts);
    if (host_.reads_in_out() != (storage.axes == ExpertAxes::in_out)) {
      std::swap(a, b);
      a = a.transpose(1, 2);
      b = b.transpose(1, 2);
    }
    each_expert(projection, a, b, block);
  }

  void each_expert(Projection projection, const Tensor& a, const Tensor& b, ServedBlock block) {
    for (block.expert = 0; block.expert < host_.spec.experts; ++block.expert) {
      block.a = a.select(0, block.expert);
      const Tensor rows = b.select(0, block.expert);
      if (projection != Projection::gate_up) {
        add(projection, rows, block);
        continue;
      }
      add(Projection::gate, gate_up_half(rows, required_gate_up_order(host_.spec), 0), block);
      add(Projection::up, gate_up_half(rows, required_gate_up_order(host_.spec), 1), block);
    }
  }

  void add(Projection projection, const Tensor& b, ServedBlock block) {
    block.module = projection_name(projection);
    block.b = b;
    add_block(std::move(block), blocks_);
  }

  const RankBuffers& held_;
  Host host_;
  Modules modules_;
  Config config_;
  Wrapped wrapped_;
  std::map<std::string, std::vector<std::string>> tensors_;  // of the file, by PEFT's key
  std::vector<ServedBlock> blocks_;
};

}  // namespace

RankBuffers fill(const BufferRequest& request) {
  const AdapterPlan plan = std::move(peft::plan(request.plan()).adapters.front());
  RankBuffers out;
  if (const PlanEvent* refusal = plan.first_refusal()) {
    out.refused = refusal->refusal;
    return out;
  }
  for (const TensorFate& fate : plan.fates)
    for (const TensorMap& file : request.values)
      if (const auto at = file.find(fate.tensor); fate.fate == Fate::used && at != file.end())
        out.buffers.emplace(fate.tensor, at->second);
  return out;
}

std::vector<ServedBlock> blocks(const BufferRequest& request, const RankBuffers& held) {
  return Blocks(request, held).run();
}

}  // namespace moelora::peft
