#include "lib/engine/sglang/copy/copier.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/load/diagnosis.h"

namespace moelora::sglang {
namespace {

class ExpertCopier {
 public:
  ExpertCopier(const Copier& copier, const TempBuffers& buffers, const Buffer& buffer, bool is_a)
      : c_(copier), buffers_(buffers), buffer_(buffer), is_a_(is_a) {}

  void copy(const TempBuffer& held) {
    if (held.empty()) return;
    if (c_.pool.is_outer(buffer_, is_a_)) return copy_outer(held);
    if (held.tensor != nullptr) return copy_stack(*held.tensor);
    for (const auto& [expert, staged] : held.experts)
      if (const auto local = local_of(expert)) copy_expert(*staged, *local, -1);
  }

 private:
  std::optional<int64_t> local_of(int64_t expert) const {
    if (!c_.pool.local_ids) return expert;
    const int64_t local = expert - c_.pool.rank.ep_rank * c_.pool.local_experts;
    return local >= 0 && local < c_.pool.local_experts ? std::optional(local) : std::nullopt;
  }

  void copy_stack(const Staged& staged) {
    const int64_t total = staged.shape[0];
    const int64_t first = c_.pool.local_ids ? c_.pool.rank.ep_rank * c_.pool.local_experts : 0;
    const int64_t count =
        c_.pool.local_ids ? std::min(c_.pool.local_experts, total - first) : total;
    for (int64_t i = 0; i < count; ++i)
      if (!copy_expert(staged, i, first + i)) return;
  }

  // The factor that all experts share: one tensor of leading extent 1, or one numbered expert.
  void copy_outer(const TempBuffer& held) {
    const int64_t count =
        held.tensor != nullptr ? held.tensor->shape[0] : static_cast<int64_t>(held.experts.size());
    if (count != 1) return refuse_outer(held, count);
    const bool stack = held.tensor != nullptr;
    copy_expert(stack ? *held.tensor : *held.experts.front().second, 0, stack ? 0 : -1);
  }

  void refuse_outer(const TempBuffer& held, int64_t count) {
    const std::string_view name = buffer_.name;
    const bool half = !is_a_ && gate_up_is_shared();
    c_.c.adapter.raise(
        {half ? &cause::half_shared : &cause::shared_outer_flag, stage::kLoad, "ValueError",
         held.tensor != nullptr
             ? fmt::format("experts_shared_outer_loras is enabled but {} {} has expert_dim={} "
                           "(expected 1).",
                           name, is_a_ ? "lora_A" : "lora_B", count)
             : fmt::format("experts_shared_outer_loras is enabled but {} {} dict has {} entries "
                           "(expected 1).",
                           name, is_a_ ? "lora_A" : "lora_B", count),
         half ? "the experts share lora_A of gate and up, but not lora_B of down"
              : "one factor an expert, where the server holds one for all of them",
         true},
        held.sources());
  }

  bool gate_up_is_shared() const {
    const int index = c_.pool.index_of("gate_up_proj_moe");
    const Staged* a = index < 0 ? nullptr : buffers_.of(index, true).tensor;
    return a != nullptr && a->shape[0] == 1;
  }

  // False where it is refused.
  bool copy_expert(const Staged& staged, int64_t expert, int64_t source_expert) {
    const Shape& shape = c_.shape_of(buffer_, is_a_);
    if (expert >= shape[0]) return refuse_expert(staged, expert, shape[0]);
    Sliced sliced =
        is_a_ ? slice_moe_a(c_.c.model, buffer_.name, staged, c_.pool.rank)
              : slice_moe_b(c_.c.model, c_.c.features, buffer_.name, staged, c_.pool.rank);
    if (!sliced.error_type.empty()) return refuse_slice(c_.c, c_.pool, sliced);
    if (source_expert >= 0) sliced.shape.erase(sliced.shape.begin());
    Write write = c_.at(buffer_, is_a_, sliced);
    write.expert = expert;
    write.source_expert = source_expert;
    return is_a_ ? copy_expert_a(shape, sliced, write) : copy_expert_b(shape, sliced, write);
  }

  // gate and up begin at rows 0 and R (before 0.5.11: at 0 and r): each is cut out of the stack and
  // checked by itself.
  bool copy_expert_a(const Shape& shape, const Sliced& sliced, Write write) {
    const int64_t r = c_.c.adapter.r;
    const int64_t apart = c_.c.features.any_rank_below_max ? c_.pool.request.max_rank : r;
    const std::vector<int64_t> each(static_cast<size_t>(buffer_.stacked), r);
    for (int64_t i = 0; i < buffer_.stacked; ++i) {
      Sliced part = sliced;
      const int64_t have = sliced.shape.empty() ? 0 : sliced.shape[0];
      part.runs[0] = {std::min(i * r, have), std::clamp<int64_t>(have - i * r, 0, r)};
      if (sliced.shape.size() == 2) part.shape[0] = part.runs[0].count;
      const int64_t first = std::min(i * apart, shape[1]);
      if (!c_.fits({std::min(first + r, shape[1]) - first, shape[2]}, part)) return false;
      write.row = first;
      const Part whole_part[] = {{static_cast<int>(i), r, 0}};
      copy_rows(c_.c.sink, part, write, whole_part, each);
    }
    return true;
  }

  bool copy_expert_b(const Shape& shape, const Sliced& sliced, Write write) {
    if (!c_.fits({shape[1], std::min(c_.c.adapter.r, shape[2])}, sliced)) return false;
    write.scaled = true;
    const bool halves = write.buffer == "gate_up_proj_moe" && c_.c.model.gated;
    const int64_t part = halves ? shape[1] / 2 : shape[1];
    const int64_t first =
        halves || write.buffer == "gate_up_proj_moe" ? c_.pool.rank.moe_tp_rank * part : 0;
    std::vector<Part> parts{{0, part, first}};
    std::vector<int64_t> whole_parts{halves ? c_.c.model.intermediate : shape[1]};
    if (halves) {
      parts.push_back({1, part, first});
      whole_parts.push_back(c_.c.model.intermediate);
    }
    if (sliced.interleaved)
      copy_interleaved(c_.c.sink, sliced, write, parts, whole_parts);
    else
      copy_rows(c_.c.sink, sliced, write, parts, whole_parts);
    return true;
  }

  bool refuse_expert(const Staged& staged, int64_t expert, int64_t experts) {
    c_.c.adapter.raise(
        {&cause::expert_out_of_range, stage::kLoad, "IndexError",
         fmt::format("index {} is out of bounds for dimension 1 with size {}", expert, experts),
         fmt::format("expert {} of a model of {}", expert, experts), true},
        staged.sources());
    return false;
  }

  const Copier& c_;
  const TempBuffers& buffers_;
  const Buffer& buffer_;
  bool is_a_;
};

}  // namespace

bool fits(const CopyContext& context, const Pool& pool, const Shape& view, const Sliced& sliced) {
  if (!sliced.error_type.empty()) return refuse_slice(context, pool, sliced);
  if (view == sliced.shape) return true;
  CpuAdapter& adapter = context.adapter;
  const Diagnosis why = cause_of_shape(adapter, *sliced.tensor, pool.request.max_rank,
                                       fmt::format("the server makes {} of it, and expects {}",
                                                   to_string(sliced.shape), to_string(view)));
  if (adapter.raised_before(why.cause, sliced.tensor->sources())) return false;
  adapter.raise({why.cause, stage::kLoad, "AssertionError",
                 fmt::format("LoRA buffer shape {} does not match weight shape {}.", py_size(view),
                             py_size(sliced.shape)),
                 why.detail, true},
                sliced.tensor->sources());
  return false;
}

bool refuse_slice(const CopyContext& context, const Pool& pool, const Sliced& sliced) {
  const Diagnosis why = cause_of_shape(
      context.adapter, *sliced.tensor, pool.request.max_rank,
      fmt::format("shape {}, which cannot be cut in gate and up", to_string(sliced.tensor->shape)));
  context.adapter.raise(
      {why.cause, stage::kLoad, sliced.error_type, sliced.error_text, why.detail, true},
      sliced.tensor->sources());
  return false;
}

Write Copier::at(const Buffer& buffer, bool is_a, const Sliced& sliced) const {
  Write out;
  out.buffer = buffer.name;
  out.layer = layer;
  out.is_a = is_a;
  out.columns = sliced.columns.count;
  out.source_column = sliced.columns.first;
  return out;
}

const Shape& Copier::shape_of(const Buffer& buffer, bool is_a) const {
  return (is_a ? buffer.a : buffer.b)[static_cast<size_t>(layer)];
}

void copy_experts(const Copier& copier, const TempBuffers& buffers, int buffer, bool is_a) {
  ExpertCopier(copier, buffers, copier.pool.buffers[static_cast<size_t>(buffer)], is_a)
      .copy(buffers.of(buffer, is_a));
}

}  // namespace moelora::sglang
