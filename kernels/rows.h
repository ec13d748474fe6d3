#pragma once

#include <cstdint>
#include <vector>

#include "kernels/moe_lora.h"

namespace moelora::kernels {

// How pairs (token, choice) lie as rows in the fast path's buffers, slot by slot; a slot is an
// expert. Host only.
struct RowPlan {
  struct Slot {
    int64_t expert, first_row, rows;
    int lane;
  };
  std::vector<Slot> slots;  // in order of expert

  // Path::per_expert: slots are as long as they are ("compact"). Else each has rows_each rows, the
  // rest of them padding.
  bool compact = true;
  int64_t rows_each = 0;  // of the longest slot, a multiple of 8
  int64_t rows = 0;       // of all slots
  int lanes = 1;

  std::vector<int32_t> pair_of_row;  // [rows], -1: padding
  std::vector<int32_t> row_of_pair;  // [tokens * top_k], -1: left out

  // Rows that a product with rows_each rows a slot may read: all of them, and what lies behind.
  int64_t rows_to_read() const { return compact ? rows + rows_each : rows; }
};

// Slots are the experts that were chosen; of Path::batched all of them. Pairs of an expert keep
// their order. Slots are dealt to lanes the longest first, each to the lane with least to do.
// Throws Stop(bad_argument) when there are more rows than int32 counts.
RowPlan plan_rows(const BatchInput& input, int64_t experts, const Plan& plan);

}  // namespace moelora::kernels
