#pragma once

#include "kernels/layer.h"

namespace moelora::kernels {

// The stages of the fast path that are not matrix products. Rows and pairs as in rows.h; rows of
// padding are left alone.

struct RowTables {
  int64_t rows, top_k;
  const int32_t* pair_of_row;  // [rows]
  const int32_t* expert;       // [pairs]
  const float* weight;         // [pairs]
};

// in[row] = x of the row's token, times its router weight where `weigh`; pitches in elements.
void gather_inputs(const RowTables& t, const uint16_t* x, int64_t x_pitch, bool weigh, uint16_t* in,
                   int64_t in_pitch, cudaStream_t stream);

// tail[row] = scale of the expert and projection * rank vector, as BF16. Columns before
// `second_rank` are projection `first`'s, the rest up's.
struct RankTail {
  const float* rank;        // [.., columns]
  const int32_t* rank_row;  // [rows]: which of them is a row's; null: that of the same number
  int64_t columns;
  const float* scales;  // [experts, kProjections]
  Projection first;
  int64_t second_rank;
  uint16_t* tail;
  int64_t pitch;
};
void place_tail(const RowTables& t, const RankTail& r, cudaStream_t stream);

// hidden[row] as BF16, from gate and up sums: base (+ delta, where there is one) + bias.
struct ActivateRows {
  const Layer* layer;
  const float* base;   // [rows, inner.rows]
  const float* delta;  // the same, or null
  uint16_t* hidden;
  int64_t pitch;
};
void activate_rows(const RowTables& t, const ActivateRows& a, cudaStream_t stream);

// out[token] = routed_scaling * sum over its choices in order of weight * (base (+ delta) + bias).
struct CombineRows {
  const Layer* layer;
  int64_t tokens;
  const int32_t* row_of_pair;  // [pairs]
  const float* base;           // [rows, width]
  const float* delta;          // the same, or null
  float* out;                  // [tokens, width]
};
void combine_rows(const RowTables& t, const CombineRows& c, cudaStream_t stream);

}  // namespace moelora::kernels
