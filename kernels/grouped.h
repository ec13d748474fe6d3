#pragma once

#include "kernels/gemm.h"
#include "kernels/rows.h"

namespace moelora::kernels {

// How the products of all slots are done.
enum class Way {
  lanes,     // each by itself, side by side on several lanes
  strided,   // one batch, rows_each rows a slot, weights and rows at regular distances
  pointers,  // one batch, rows_each rows a slot, each slot's arrays by address
};

// out[slot] = in[slot] · weight[expert of the slot]^T for every slot of a plan.
class GroupedGemm {
 public:
  GroupedGemm() = default;
  // `first`: of expert 0 and row 0; weights of expert e begin e * weight_of_expert further. With
  // pointers over compact slots, the results lie rows_each rows a slot (rank_row()), and
  // plan.rows_to_read() rows of input are read. Refers to `context` and `plan`.
  GroupedGemm(Context& context, const RowPlan& plan, Way way, const Gemm& first,
              int64_t weight_of_expert);
  void enqueue() const;

 private:
  void fill_pointers();

  Context* context_ = nullptr;
  const RowPlan* plan_ = nullptr;
  Way way_ = Way::lanes;
  Gemm first_ = {};
  int64_t weight_of_expert_ = 0;
  DeviceArray<const void*> pointers_;  // weights, inputs, results: a third each
};

// Where a slot's results begin when they lie rows_each rows a slot.
inline int64_t padded_row(const RowPlan& plan, size_t slot) {
  return static_cast<int64_t>(slot) * plan.rows_each;
}

}  // namespace moelora::kernels
