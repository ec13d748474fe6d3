#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "lib/engine/vllm/plan/plan.h"
#include "lib/engine/vllm/server/module_buffers.h"

namespace moelora::vllm {
namespace {

class Blocks {
 public:
  Blocks(const Server& server, int64_t rank, const std::vector<TensorMap>& ranks)
      : server_(server),
        settings_(server.settings),
        rank_(rank),
        ranks_(ranks),
        fully_(settings_.fully_sharded && settings_.tp > 1) {}

  std::vector<ServedBlock> run() {
    for (const Module& module : server_.modules)
      if (module.is_experts())
        experts(module);
      else
        dense(module);
    return std::move(blocks_);
  }

 private:
  // A buffer of this rank, or those of all side by side along `dim`.
  Tensor held(const std::string& name) const { return ranks_[static_cast<size_t>(rank_)].at(name); }
  Tensor gathered(const std::string& name, int dim, int64_t of_each) const {
    std::vector<Tensor> parts;
    for (const TensorMap& rank : ranks_) {
      const Tensor& part = rank.at(name);
      parts.push_back(part.slice(dim, 0, std::min(part.dim(dim), of_each)));
    }
    return Tensor::concat(dim, parts);
  }

  void dense(const Module& module) {
    const std::vector<Slice> slices = slices_of(module);
    if (module.kind == Kind::joined) return joined(module, slices);
    for (size_t i = 0; i < slices.size(); ++i)
      if (module.children[slices[i].child].linear != nullptr)
        add_block(dense_slice(module, slices[i], i), blocks_);
  }

  // One buffer of B, with this rank's part of each slice below the other.
  void joined(const Module& module, const std::vector<Slice>& slices) {
    const ServedBlock whole = dense_slice(module, slices[0], 0);
    int64_t first = 0;
    for (const Slice& slice : slices) {
      const int64_t size = slice.rows / slice.parts;
      ServedBlock block = whole;
      block.b = whole.b.slice(0, first, size);
      block.out_first = slice.first + rank_ / (settings_.tp / slice.parts) * size;
      add_block(std::move(block), blocks_);
      first += size;
    }
  }

  // Of the base's Linear: children that are parts of one follow each other.
  static int64_t first_row(const Module& module, size_t child) {
    int64_t first = 0;
    for (size_t i = 0; i < child; ++i)
      if (module.children[i].linear == module.children[child].linear)
        first += module.children[i].out;
    return first;
  }

  ServedBlock dense_slice(const Module& module, const Slice& slice, size_t index) const {
    const Child& child = module.children[slice.child];
    const std::string a = fmt::format("{}.lora_a_stacked.{}", module.name, index);
    ServedBlock out;
    out.module = child.linear->memory;
    out.a = held(a);
    out.b = held(fmt::format("{}.lora_b_stacked.{}", module.name, index));
    const int64_t rows = out.b.dim(0);
    out.out_first =
        first_row(module, slice.child) + slice.first + rank_ / (settings_.tp / slice.parts) * rows;
    if (module.kind == Kind::embedding) out.a = out.a.transpose(0, 1);
    if (module.kind == Kind::row) {
      out.out_first = fully_ ? rank_ * rows : 0;
      if (fully_) out.a = gathered(a, 1, out.a.dim(1));
      out.in_first = fully_ ? 0 : rank_ * out.a.dim(1);
    } else if (fully_ && module.children[0].parts > 1) {
      out.a = gathered(a, 0, out.a.dim(0));
    }
    return out;
  }

  int64_t units() const { return server_.spec.intermediate / settings_.moe_tp(); }
  int64_t first_unit() const { return settings_.moe_tp() > 1 ? rank_ * units() : 0; }

  // [E, n, ..]: what the rank's units are of its slots, along `dim`.
  Tensor own_units(const Tensor& tensor, int dim) const {
    return tensor.slice(dim, 0, std::min(tensor.dim(dim), units()));
  }

  void experts(const Module& module) {
    const std::string w13 = module.name + ".w13_lora_";
    if (module.kind == Kind::stacked_experts)
      stacked(module, w13_a(w13 + "a_stacked.0"), held(w13 + "b_stacked.0"));
    else
      for (int slice = 0; slice < (server_.spec.gated ? 2 : 1); ++slice)
        expand(module, slice == 0 && server_.spec.gated ? "gate_proj" : "up_proj",
               w13_a(fmt::format("{}a_stacked.{}", w13, slice)),
               held(fmt::format("{}b_stacked.{}", w13, slice)));
    down(module);
  }

  bool fully_experts() const { return fully_ && settings_.moe_tp() > 1; }

  Tensor w13_a(const std::string& name) const {
    return fully_experts() ? gathered(name, 1, held(name).dim(1)) : held(name);
  }

  void stacked(const Module& module, const Tensor& a, const Tensor& b) {
    const int64_t local = b.dim(0), own = b.dim(1) / 2, rank = b.dim(2);
    const bool interleaved = server_.model.interleaved;
    const Tensor pairs = interleaved ? b.reshape({local, own, 2, rank}).transpose(1, 2)
                                     : b.reshape({local, 2, own, rank});
    expand(module, "gate_proj", a, pairs.select(1, 0));
    expand(module, "up_proj", a, pairs.select(1, 1));
  }

  void expand(const Module& module, const char* projection, const Tensor& a, const Tensor& b) {
    each(module, projection, a, own_units(b, 1), first_unit(), 0);
  }

  void down(const Module& module) {
    const std::string a = module.name + ".w2_lora_a_stacked.0";
    const Tensor b = held(module.name + ".w2_lora_b_stacked.0");
    if (fully_experts())
      each(module, "down_proj", gathered(a, 2, units()), b, rank_ * b.dim(1), 0);
    else
      each(module, "down_proj", own_units(held(a), 2), b, 0, first_unit());
  }

  // A pair of every expert of this rank, of factors [E or 1, ..].
  void each(const Module& module, const char* projection, const Tensor& a, const Tensor& b,
            int64_t out_first, int64_t in_first) {
    const int64_t first = server_.first_expert(rank_);
    for (int64_t e = 0; e < server_.local_experts(); ++e)
      add_block(
          {projection, module.layer, first + e, out_first, in_first, 1,
           a.select(0, std::min(e, a.dim(0) - 1)), b.select(0, std::min(e, b.dim(0) - 1)), 1, ""},
          blocks_);
  }

  const Server& server_;
  const Settings& settings_;
  int64_t rank_;
  const std::vector<TensorMap>& ranks_;
  bool fully_;
  std::vector<ServedBlock> blocks_;
};

}  // namespace

std::vector<ServedBlock> blocks(const BufferRequest& request, const RankBuffers& held) {
  if (held.refused) return {};
  const Server server = make_server(request.plan());
  std::vector<TensorMap> ranks(static_cast<size_t>(server.settings.tp));
  ranks[static_cast<size_t>(request.tp_rank)] = held.buffers;
  for (int64_t rank = 0; server.settings.fully_sharded && rank < server.settings.tp; ++rank) {
    if (rank == request.tp_rank) continue;
    BufferRequest other = request;
    other.tp_rank = rank;
    RankBuffers filled = fill(other);
    if (filled.refused) return {};
    ranks[static_cast<size_t>(rank)] = std::move(filled.buffers);
  }
  return Blocks(server, request.tp_rank, ranks).run();
}

}  // namespace moelora::vllm
