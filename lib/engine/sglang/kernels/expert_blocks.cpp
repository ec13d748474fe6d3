#include "lib/engine/sglang/kernels/expert_blocks.h"

#include <algorithm>

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

class Maker {
 public:
  Maker(int layer, const ModelClass& model, const Pool& pool, int64_t r, const ExpertKernel& kernel,
        std::vector<ServedBlock>& out)
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

}  // namespace

void add_expert_blocks(const ExpertBuffers& held, int layer, const ModelClass& model,
                       const Pool& pool, int64_t r, const ExpertKernel& kernel,
                       std::vector<ServedBlock>& out) {
  Maker(layer, model, pool, r, kernel, out).add(held);
}

}  // namespace moelora::sglang
