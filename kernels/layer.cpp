#include "kernels/layer.h"

#include <algorithm>

namespace moelora::kernels {
namespace {

void check_shape(const LayerShape& s) {
  constexpr int64_t most = int64_t{1} << 20;  // of any extent; no product of them overflows
  const bool positive = s.experts > 0 && s.width > 0 && s.intermediate > 0;
  const bool small = s.experts <= 65535 && s.width <= most && s.intermediate <= most;
  bool ranks = true;
  for (const int64_t rank : s.rank) ranks = ranks && rank >= 0 && rank <= most;
  if (!positive || !small || !ranks) stop(Status::bad_argument, "a layer of impossible sizes");
}

}  // namespace

Layer::Layer(Context& owner, const LayerShape& wanted) : context(owner), shape(wanted) {
  check_shape(shape);
  if (!shape.gated) shape.rank[kGate] = 0;
  const int64_t rows = (shape.gated ? 2 : 1) * shape.intermediate;
  const int64_t rank = shape.rank[kGate] + shape.rank[kUp];
  inner = make_side(rows, shape.width, rank, shape.shared_a);
  down = make_side(shape.width, shape.intermediate, shape.rank[kDown], false);
  scales = zeros<float>(shape.experts * kProjections, context.stream());
  const int64_t largest =
      std::max({shape.width * shape.intermediate, shape.width * std::max(rank, shape.rank[kDown]),
                shape.intermediate * std::max(rank, shape.rank[kDown])});
  staging_ = DeviceArray<uint16_t>(largest);
}

Side Layer::make_side(int64_t rows, int64_t in, int64_t rank, bool shared_a) {
  Side out;
  out.rows = rows;
  out.in = in;
  out.rank = rank;
  out.experts = shape.experts;
  out.a_experts = shared_a ? 1 : shape.experts;
  out.weights = zeros<uint16_t>(out.experts * out.weight_stride(), context.stream());
  out.a = zeros<uint16_t>(out.a_experts * out.a_stride(), context.stream());
  out.bias = zeros<float>(out.experts * rows, context.stream());
  return out;
}

int64_t Layer::first_row(Projection p) const {
  return p == kUp && shape.gated ? shape.intermediate : 0;
}

int64_t Layer::first_rank(Projection p) const { return p == kUp ? shape.rank[kGate] : 0; }

void Layer::load(int64_t expert, const ExpertData& data) {
  if (expert < 0 || expert >= shape.experts) stop(Status::bad_argument, "no such expert");
  for (const Projection p : {kGate, kUp, kDown}) {
    if (p != kGate || shape.gated) load(expert, p, data.part[p]);
  }
  float scale[kProjections];
  for (int p = 0; p < kProjections; ++p) scale[p] = data.part[p].scale;
  copy_in(scale, kProjections, scales.data() + expert * kProjections, context.stream());
  context.synchronize();
}

void Layer::load(int64_t expert, Projection p, const ExpertData::Part& part) {
  Side& side = p == kDown ? down : inner;
  const int64_t rows = out_dim(p), rank = shape.rank[p];
  uint16_t* weight =
      side.weights.data() + expert * side.weight_stride() + first_row(p) * side.columns();
  place(part.weight, rows, side.in, weight, side.columns());
  place(part.b, rows, rank, weight + side.tail() + first_rank(p), side.columns());
  if (expert < side.a_experts)
    place(part.a, rank, side.in,
          side.a.data() + expert * side.a_stride() + first_rank(p) * side.tail(), side.tail());
  float* bias = side.bias.data() + expert * side.rows + first_row(p);
  if (part.bias != nullptr) {
    copy_in(part.bias, rows, bias, context.stream());
  } else {
    const auto bytes = static_cast<size_t>(rows) * sizeof(float);
    check(cudaMemsetAsync(bias, 0, bytes, context.stream()), "cudaMemset");
  }
}

// In two steps, because a copy of many short rows out of pageable memory is slow.
void Layer::place(const uint16_t* from, int64_t rows, int64_t columns, uint16_t* to,
                  int64_t pitch) {
  if (rows == 0 || columns == 0) return;
  const auto to_pitch = static_cast<size_t>(pitch) * 2, width = static_cast<size_t>(columns) * 2;
  const auto height = static_cast<size_t>(rows);
  cudaStream_t stream = context.stream();
  if (from == nullptr) {
    check(cudaMemset2DAsync(to, to_pitch, 0, width, height, stream), "cudaMemset2D");
    return;
  }
  copy_in(from, rows * columns, staging_.data(), stream);
  check(cudaMemcpy2DAsync(to, to_pitch, staging_.data(), width, width, height,
                          cudaMemcpyDeviceToDevice, stream),
        "cudaMemcpy2D");
}

}  // namespace moelora::kernels
