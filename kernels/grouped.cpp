#include "kernels/grouped.h"

namespace moelora::kernels {

GroupedGemm::GroupedGemm(Context& context, const RowPlan& plan, Way way, const Gemm& first,
                         int64_t weight_of_expert)
    : context_(&context),
      plan_(&plan),
      way_(way),
      first_(first),
      weight_of_expert_(weight_of_expert) {
  if (way == Way::pointers) fill_pointers();
}

void GroupedGemm::fill_pointers() {
  const size_t count = plan_->slots.size();
  std::vector<const void*> pointers(3 * count);
  for (size_t i = 0; i < count; ++i) {
    const RowPlan::Slot& slot = plan_->slots[i];
    pointers[i] = first_.weight + slot.expert * weight_of_expert_;
    pointers[count + i] = first_.in + slot.first_row * first_.in_pitch;
    pointers[2 * count + i] = first_.out + padded_row(*plan_, i) * first_.out_pitch;
  }
  cudaStream_t stream = context_->stream();
  pointers_ = on_device(pointers.data(), static_cast<int64_t>(pointers.size()), stream);
  context_->synchronize();
}

void GroupedGemm::enqueue() const {
  const auto count = static_cast<int64_t>(plan_->slots.size());
  if (way_ == Way::strided)
    return gemm_strided(context_->lane(0), first_, plan_->rows_each, count,
                        {weight_of_expert_, plan_->rows_each * first_.in_pitch,
                         plan_->rows_each * first_.out_pitch});
  if (way_ == Way::pointers)
    return gemm_pointers(context_->lane(0), first_, plan_->rows_each, count, pointers_.data());
  context_->fork(plan_->lanes);
  for (const RowPlan::Slot& slot : plan_->slots) {
    Gemm one = first_;
    one.weight += slot.expert * weight_of_expert_;
    one.in += slot.first_row * first_.in_pitch;
    one.out += slot.first_row * first_.out_pitch;
    gemm(context_->lane(slot.lane), one, slot.rows);
  }
  context_->join(plan_->lanes);
}

}  // namespace moelora::kernels
