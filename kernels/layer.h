#pragma once

#include "kernels/context.h"

namespace moelora::kernels {

// The least multiple of 8 that is not below n: 16 bytes of BF16, what tensor cores want a row to
// begin at.
constexpr int64_t padded(int64_t n) { return (n + 7) / 8 * 8; }

// The weights of one side of the layer, gate and up ("inner") or down, of all experts. LoRA's B
// lies in the same rows as the base weight, to its right, so that one GEMM over [x | s A x] gives
// base and delta:
//
//              <-- in, padded -->  <-- rank, padded -->
//   gate rows        Wg              Bg      0
//   up rows          Wu              0       Bu
struct Side {
  int64_t rows = 0;       // of weights and bias
  int64_t in = 0;         // columns of the base weight
  int64_t rank = 0;       // of all its projections together
  int64_t experts = 0;    // that have weights
  int64_t a_experts = 0;  // that have an A: 1 where it is shared

  int64_t tail() const { return padded(in); }                // where B's columns begin
  int64_t columns() const { return tail() + padded(rank); }  // pitch of weights and of inputs
  int64_t weight_stride() const { return rows * columns(); }
  int64_t a_stride() const { return rank * tail(); }

  DeviceArray<uint16_t> weights;  // [experts, rows, columns()]
  DeviceArray<uint16_t> a;        // [a_experts, rank, tail()]
  DeviceArray<float> bias;        // [experts, rows]
};

struct Layer {
  Layer(Context& context, const LayerShape& shape);
  void load(int64_t expert, const ExpertData& data);

  const Side& side_of(Projection p) const { return p == kDown ? down : inner; }
  int64_t first_row(Projection p) const;   // of p's rows in its side
  int64_t first_rank(Projection p) const;  // of p's rank columns in its side
  int64_t out_dim(Projection p) const { return p == kDown ? shape.width : shape.intermediate; }

  Context& context;
  LayerShape shape;
  Side inner, down;
  DeviceArray<float> scales;  // [experts, kProjections]

 private:
  Side make_side(int64_t rows, int64_t in, int64_t rank, bool shared_a);
  void load(int64_t expert, Projection p, const ExpertData::Part& part);
  void place(const uint16_t* from, int64_t rows, int64_t columns, uint16_t* to, int64_t pitch);

  DeviceArray<uint16_t> staging_;
};

}  // namespace moelora::kernels
