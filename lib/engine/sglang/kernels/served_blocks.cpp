#include "lib/engine/sglang/kernels/served_blocks.h"

#include <algorithm>

#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/kernels/expert_kernel.h"
#include "lib/engine/sglang/plan.h"
#include "lib/engine/sglang/pool/pool.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {
namespace {

using GateUp = ExpertKernel::GateUp;

constexpr std::string_view kGateAOnly =
    "virtual experts multiply up_proj's lora_B with gate_proj's lora_A";
constexpr std::string_view kGateByUp =
    "the second half of the interleaved rows, gate_proj's among them, is multiplied with up_proj's "
    "lora_A";
constexpr std::string_view kUpByGate =
    "the first half of the interleaved rows, up_proj's among them, is multiplied with gate_proj's "
    "lora_A";
constexpr std::string_view kNotSummed = "the delta is written where nothing sums it";
constexpr std::string_view kNoLora = "this version's --lora-backend computes no expert LoRA";
constexpr std::string_view kInputWeights =
    "the router's weight multiplies the delta of down_proj, and not that of gate_proj and up_proj";
constexpr std::string_view kUpRows =
    "up_proj's rows of lora_A are read from where an adapter of the server's rank has them";

// Along dim 0. By halves, so that recipes of many pieces are not walked once an expert.
void unstack(const Tensor& stack, std::vector<Tensor>& out) {
  const int64_t count = stack.dim(0);
  if (count <= 1) {
    if (count == 1) out.push_back(stack.select(0, 0));
    return;
  }
  unstack(stack.slice(0, 0, count / 2), out);
  unstack(stack.slice(0, count / 2, count - count / 2), out);
}

struct Stack {
  explicit Stack(const Tensor& stack) { unstack(stack, parts); }
  const Tensor& of(size_t expert) const { return parts[parts.size() == 1 ? 0 : expert]; }
  std::vector<Tensor> parts;
};

// The routed experts of a layer on one rank.
struct ExpertBuffers {
  Tensor gate_up_a, gate_up_b;  // [E or 1, c*R, H], [E, c*J, R]
  Tensor down_a, down_b;        // [E, R, J], [E or 1, H, R]
};

// What the kernel makes of them: gate and up in one block each, gpt-oss's halves in two.
class ExpertBlocks {
 public:
  ExpertBlocks(int layer, const ModelClass& model, const Pool& pool, int64_t r,
               const ExpertKernel& kernel, std::vector<ServedBlock>& out)
      : layer_(layer),
        model_(model),
        r_(r),
        rank_(pool.request.max_rank),
        kernel_(kernel),
        first_neuron_(pool.rank.moe_tp_rank * (model.intermediate / pool.rank.moe_tp)),
        first_expert_(pool.local_ids ? pool.rank.ep_rank * pool.local_experts : 0),
        out_(out) {}

  void add(const ExpertBuffers& held) {
    const Stack gate_up_a(held.gate_up_a), gate_up_b(held.gate_up_b);
    const Stack down_a(held.down_a), down_b(held.down_b);
    const size_t experts = std::max(gate_up_b.parts.size(), down_a.parts.size());
    for (size_t i = 0; i < experts; ++i) {
      expert_ = first_expert_ + static_cast<int64_t>(i);
      gate_up(gate_up_a.of(i), gate_up_b.of(i).slice(1, 0, r_));
      down(down_a.of(i).slice(0, 0, r_), down_b.of(i).slice(1, 0, r_));
    }
  }

 private:
  void gate_up(const Tensor& a, const Tensor& b) {
    if (!model_.gated) return put("up_proj", a.slice(0, 0, r_), b, 0, "");
    const Tensor gate_a = a.slice(0, 0, r_);
    const bool gate_only = kernel_.gate_up == GateUp::gate_a_only;
    const Tensor own_up_a = a.slice(0, rank_, r_), up_a = gate_only ? gate_a : own_up_a;
    const bool same_a = own_up_a.same_recipe(gate_a);
    if (kernel_.gate_up == GateUp::halves && !same_a) return halves(gate_a, up_a, b);
    const std::string_view defect = same_a                   ? ""
                                    : gate_only              ? kGateAOnly
                                    : kernel_.up_at_max_rank ? kUpRows
                                                             : "";
    put("gate_proj", gate_a, rows_of(b, 0), 0, "");
    put("up_proj", up_a, rows_of(b, 1), 0, defect);
  }

  // gate's rows of the buffer, or up's.
  Tensor rows_of(const Tensor& b, int64_t part) const {
    const int64_t rows = b.dim(0) / 2;
    if (model_.interleaved) return b.reshape({rows, 2, b.dim(1)}).select(1, part);
    return b.slice(0, part * rows, rows);
  }

  // The first half of the interleaved rows with gate's A, the second with up's.
  void halves(const Tensor& gate_a, const Tensor& up_a, const Tensor& b) {
    const int64_t rows = b.dim(0) / 2;
    const Tensor gate_b = rows_of(b, 0), up_b = rows_of(b, 1);
    const int64_t gate = (rows + 1) / 2, up = rows / 2;  // of the first half
    put("gate_proj", gate_a, gate_b.slice(0, 0, gate), 0, "");
    put("gate_proj", up_a, gate_b.slice(0, gate, rows - gate), gate, kGateByUp);
    put("up_proj", gate_a, up_b.slice(0, 0, up), 0, kUpByGate);
    put("up_proj", up_a, up_b.slice(0, up, rows - up), up, "");
  }

  void down(const Tensor& a, const Tensor& b) {
    ServedBlock block = of_expert("down_proj", a, b, kernel_.sums_down ? "" : kNotSummed);
    block.in_first = first_neuron_;
    if (!kernel_.sums_down) block.scale = 0;
    push(std::move(block));
  }

  void put(const char* projection, const Tensor& a, const Tensor& b, int64_t first_row,
           std::string_view defect) {
    ServedBlock block = of_expert(projection, a, b, defect);
    block.out_first = first_neuron_ + first_row;
    push(std::move(block));
  }

  ServedBlock of_expert(const char* projection, const Tensor& a, const Tensor& b,
                        std::string_view defect) const {
    ServedBlock block;
    block.module = projection;
    block.layer = layer_;
    block.expert = expert_;
    block.a = a;
    block.b = b;
    block.defect = defect;
    if (!kernel_.weights_outputs && defect.empty()) block.defect = kInputWeights;
    if (!kernel_.has_lora) {
      block.defect = kNoLora;
      block.scale = 0;
    }
    return block;
  }

  void push(ServedBlock block) {
    if (!block.a.pieces().empty() && !block.b.pieces().empty()) out_.push_back(std::move(block));
  }

  int layer_;
  const ModelClass& model_;
  int64_t r_, rank_;
  const ExpertKernel& kernel_;
  int64_t first_neuron_, first_expert_, expert_ = 0;
  std::vector<ServedBlock>& out_;
};

class PoolBlocks {
 public:
  PoolBlocks(const Server& server, size_t index, const Pool& pool, const ExpertKernel& kernel,
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
  // Both factors of a buffer; null where the rank holds none.
  struct Factors {
    const Tensor *a, *b;
    bool found() const { return a != nullptr && b != nullptr; }
  };

  Factors find(int layer, std::string_view buffer) const {
    const auto side = [&](bool is_a) {
      const auto at = buffers_.find(buffer_name(layer, buffer, is_a));
      return at == buffers_.end() ? nullptr : &at->second;
    };
    return {side(true), side(false)};
  }

  void experts(int layer) {
    const Factors gate_up = find(layer, "gate_up_proj_moe"), down = find(layer, "down_proj_moe");
    if (gate_up.found() && down.found())
      ExpertBlocks(layer, model_, pool_, r_, kernel_, out_)
          .add({*gate_up.a, *gate_up.b, *down.a, *down.b});
  }

  void dense(const WrappedModule& wrapped, int layer) {
    const Factors held = find(layer, wrapped.buffer);
    if (!held.found()) return;
    const ClassModule& module = *wrapped.module;
    const std::vector<std::string>& parts = module.parts;
    const std::vector<Span> shares = shares_of(module, model_.config, pool_.rank);
    const bool row = module.kind == LayerKind::row;
    int64_t first = 0;
    for (size_t i = 0; i < parts.size() && i < shares.size(); ++i) {
      ServedBlock block;
      block.module = parts[i];
      block.out_first = shares[i].first;
      block.in_first = row ? pool_.rank.tp_rank * (module.in / pool_.rank.tp) : 0;
      block.a = held.a->slice(0, static_cast<int64_t>(i) * r_, r_);
      block.b = held.b->slice(0, first, shares[i].count).slice(1, 0, r_);
      first += shares[i].count;
      push(std::move(block));
    }
  }

  void embedding(const char* name, LayerKind kind, int64_t out_first) {
    const Factors held = find(-1, name);
    if (!held.found()) return;
    const auto module = std::find_if(model_.modules.begin(), model_.modules.end(),
                                     [&](const ClassModule& m) { return m.kind == kind; });
    ServedBlock block;
    block.module = module == model_.modules.end() ? name : module->name;
    block.out_first = out_first;
    block.a = held.a->slice(0, 0, r_);
    block.b = held.b->slice(1, 0, r_);
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

std::vector<ServedBlock> served_blocks(const BufferRequest& request, const RankBuffers& held) {
  if (held.refused) return {};
  const Server server = start_server(request.plan());
  const ExpertKernel kernel = expert_kernel(server.model(), server.features(), request.options,
                                            server.adapter(0).r, server.max_lora_rank());
  return PoolBlocks(server, 0, server.pool_of(request.tp_rank), kernel, held.buffers).make();
}

}  // namespace moelora::sglang
