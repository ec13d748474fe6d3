#pragma once

#include "kernels/batch.h"
#include "kernels/elementwise.h"
#include "kernels/grouped.h"

namespace moelora::kernels {

// The fast path: cuBLAS for every matrix product, kernels of elementwise.cu between them.
//
//   in      [rows, x | s A x]      gather_inputs, then place_tail
//   result  [rows, gate | up]      one GEMM per expert with [W | B]: base and delta at once
//   in      [rows, h | s A h]      activate_rows, then place_tail
//   result  [rows, width]          one GEMM per expert
//   out     [tokens, width]        combine_rows
//
// Inputs of GEMMs are BF16, their results float.
class FastBatch final : public Batch {
 public:
  FastBatch(Layer& owner, const BatchInput& input, const Plan& plan);
  void enqueue() override;
  void read(Stage stage, Projection projection, float* out) override;

 private:
  // One side of the layer, gate and up or down: its input, rank vectors A x and results.
  struct Linear {
    const Side* side = nullptr;
    DeviceArray<uint16_t> in;          // [rows_to_read, side->columns()]
    DeviceArray<float> rank;           // [.., side->rank], one for each row
    std::vector<int32_t> rank_of_row;  // which; empty: that of the same number
    DeviceArray<int32_t> rank_row;     // the same on the device
    DeviceArray<float> result, delta;  // [rows, side->rows]; delta only where it is kept apart
    GroupedGemm rank_product, product, delta_product;
  };
  // How the rank vectors of a side are made.
  enum class RankFrom {
    tokens,  // A shared: of each token once
    rows,    // A shared, but inputs are weighed: of each row, one GEMM
    slots,   // an A for each expert
  };
  RankFrom rank_from(const Side& side) const;
  void make_linear(const Side& side, Linear& out);
  void make_rank(Linear& l);
  void enqueue_rank(Linear& l, Projection first);
  void enqueue_product(const Linear& l);

  // Columns [first, first + count) of a buffer by rows, for reading it by pairs.
  struct Columns {
    int64_t pitch, first, count;
    const std::vector<int32_t>* row = nullptr;  // instead of the row itself
  };
  const Linear& linear_of(Projection p) const { return p == kDown ? down_ : inner_; }
  void read_rows(const std::vector<float>& rows, const Columns& columns, float* out) const;
  void read_result(Projection p, const DeviceArray<float>& from, float* out) const;
  void add_bias(Projection p, float* out) const;
  std::vector<float> floats(const DeviceArray<float>& values) const;
  std::vector<float> halves(const Linear& l) const;

  Context& context_;
  Plan plan_;
  RowPlan rows_;
  int64_t tokens_, top_k_;
  DeviceArray<uint16_t> x_;  // [tokens, padded width]
  DeviceArray<int32_t> pair_of_row_, row_of_pair_, expert_;
  DeviceArray<float> weight_, out_;
  RowTables tables_ = {};
  Linear inner_, down_;
};

}  // namespace moelora::kernels
