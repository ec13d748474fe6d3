#include "lib/engine/sglang/kernels/blocks.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/kernels/expert_blocks.h"

namespace moelora::sglang {
namespace {

class Maker {
 public:
  Maker(const Server& server, size_t index, const Pool& pool, const ExpertKernel& kernel,
        const TensorMap& buffers)
      : server_(server),
        model_(server.model()),
        pool_(pool),
        kernel_(kernel),
        buffers_(buffers),
        r_(std::min(server.adapter(index).r, pool.request.max_rank)),
        scale_(static_cast<float>(server.adapter(index).scale())) {}

  std::vector<ServedBlock> make() {
    const auto& layers = server_.wrapping().layers;
    for (size_t layer = 0; layer < layers.size(); ++layer)
      for (const WrappedModule& wrapped : layers[layer])
        if (wrapped.module->kind != LayerKind::fused_moe)
          dense(wrapped, static_cast<int>(layer));
        else if (wrapped.buffer == "gate_up_proj_moe")
          experts(static_cast<int>(layer));
    embedding("embed_tokens", LayerKind::embedding, 0);
    embedding("lm_head", LayerKind::lm_head, pool_.vocab_first);
    return std::move(out_);
  }

 private:
  // Null where the rank holds no such buffer.
  const Tensor* find(const std::string& buffer) const {
    const auto at = buffers_.find(buffer);
    return at == buffers_.end() ? nullptr : &at->second;
  }

  void experts(int layer) {
    const std::string gate_up = fmt::format("layers.{}.gate_up_proj_moe.", layer);
    const std::string down = fmt::format("layers.{}.down_proj_moe.", layer);
    const Tensor *gate_up_a = find(gate_up + "A"), *gate_up_b = find(gate_up + "B");
    const Tensor *down_a = find(down + "A"), *down_b = find(down + "B");
    if (gate_up_a == nullptr || gate_up_b == nullptr || down_a == nullptr || down_b == nullptr)
      return;
    add_expert_blocks({*gate_up_a, *gate_up_b, *down_a, *down_b}, layer, model_, pool_, r_, kernel_,
                      out_);
  }

  void dense(const WrappedModule& wrapped, int layer) {
    const std::string stem = fmt::format("layers.{}.{}.", layer, wrapped.buffer);
    const Tensor *a = find(stem + "A"), *b = find(stem + "B");
    if (a == nullptr || b == nullptr) return;
    const ClassModule& module = *wrapped.module;
    const std::vector<std::string> parts = module.parts();
    const std::vector<Span> shares = shares_of(module, model_.config, pool_.rank);
    const bool row = module.kind == LayerKind::row;
    int64_t first = 0;
    for (size_t i = 0; i < parts.size() && i < shares.size(); ++i) {
      ServedBlock block;
      block.module = parts[i];
      block.out_first = shares[i].first;
      block.in_first = row ? pool_.rank.tp_rank * (module.in / pool_.rank.tp) : 0;
      block.a = a->slice(0, static_cast<int64_t>(i) * r_, r_);
      block.b = b->slice(0, first, shares[i].count).slice(1, 0, r_);
      first += shares[i].count;
      push(std::move(block));
    }
  }

  void embedding(const char* name, LayerKind kind, int64_t out_first) {
    const Tensor *a = find(fmt::format("{}.A", name)), *b = find(fmt::format("{}.B", name));
    if (a == nullptr || b == nullptr) return;
    const auto module = std::find_if(model_.modules.begin(), model_.modules.end(),
                                     [&](const ClassModule& m) { return m.kind == kind; });
    ServedBlock block;
    block.module = module == model_.modules.end() ? name : module->name;
    block.out_first = out_first;
    block.a = a->slice(0, 0, r_);
    block.b = b->slice(1, 0, r_);
    push(std::move(block));
  }

  void push(ServedBlock block) {
    block.scale = scale_;
    if (!block.a.pieces().empty() && !block.b.pieces().empty()) out_.push_back(std::move(block));
  }

  const Server& server_;
  const ModelClass& model_;
  const Pool& pool_;
  const ExpertKernel& kernel_;
  const TensorMap& buffers_;
  int64_t r_;
  double scale_;
  std::vector<ServedBlock> out_;
};

}  // namespace

std::vector<ServedBlock> pool_blocks(const Server& server, size_t index, const Pool& pool,
                                     const ExpertKernel& kernel, const TensorMap& buffers) {
  return Maker(server, index, pool, kernel, buffers).make();
}

}  // namespace moelora::sglang
