#include "kernels/fast.h"

namespace moelora::kernels {

FastBatch::FastBatch(Layer& owner, const BatchInput& input, const Plan& plan)
    : Batch(owner),
      context_(owner.context),
      plan_(plan),
      rows_(plan_rows(input, owner.shape.experts, plan)),
      tokens_(input.tokens),
      top_k_(input.top_k) {
  cudaStream_t stream = context_.stream();
  const int64_t pairs = tokens_ * top_k_, width = layer.shape.width;
  context_.lane(rows_.lanes - 1);  // now, since making one is not to be recorded
  x_ = zeros<uint16_t>(tokens_ * padded(width), stream);
  if (tokens_ > 0)
    check(cudaMemcpy2DAsync(x_.data(), static_cast<size_t>(padded(width)) * 2, input.x,
                            static_cast<size_t>(width) * 2, static_cast<size_t>(width) * 2,
                            static_cast<size_t>(tokens_), cudaMemcpyHostToDevice, stream),
          "copy tokens to the device");
  pair_of_row_ = on_device(rows_.pair_of_row.data(), rows_.rows, stream);
  row_of_pair_ = on_device(rows_.row_of_pair.data(), pairs, stream);
  expert_ = on_device(input.experts, pairs, stream);
  weight_ = on_device(input.weights, pairs, stream);
  out_ = DeviceArray<float>(tokens_ * width);
  tables_ = {rows_.rows, top_k_, pair_of_row_.data(), expert_.data(), weight_.data()};
  make_linear(layer.inner, inner_);
  make_linear(layer.down, down_);
  context_.synchronize();
}

FastBatch::RankFrom FastBatch::rank_from(const Side& side) const {
  if (side.a_experts == layer.shape.experts) return RankFrom::slots;
  return layer.shape.weigh_input ? RankFrom::rows : RankFrom::tokens;
}

void FastBatch::make_linear(const Side& side, Linear& l) {
  l.side = &side;
  // Zero, so that pads between columns and rows of padding stay so.
  l.in = zeros<uint16_t>(rows_.rows_to_read() * side.columns(), context_.stream());
  l.result = DeviceArray<float>(rows_.rows * side.rows);
  make_rank(l);

  const bool apart = plan_.keep_delta && side.rank > 0;
  const Way way = plan_.path == Path::per_expert ? Way::lanes
                  : plan_.path == Path::batched  ? Way::strided
                                                 : Way::pointers;
  const auto product = [&](int64_t first, int64_t columns, DeviceArray<float>& out) {
    const Gemm g{side.rows,
                 columns,
                 side.weights.data() + first,
                 side.columns(),
                 l.in.data() + first,
                 side.columns(),
                 out.data(),
                 side.rows};
    return GroupedGemm(context_, rows_, way, g, side.weight_stride());
  };
  l.product = product(0, apart ? side.tail() : side.columns(), l.result);
  if (!apart) return;
  l.delta = DeviceArray<float>(rows_.rows * side.rows);
  l.delta_product = product(side.tail(), side.columns() - side.tail(), l.delta);
}

void FastBatch::make_rank(Linear& l) {
  const Side& side = *l.side;
  const RankFrom from = rank_from(side);
  const bool padded_slots = from == RankFrom::slots && rows_.compact;
  const auto slots = static_cast<int64_t>(rows_.slots.size());
  const int64_t count = from == RankFrom::tokens ? tokens_
                        : padded_slots           ? slots * rows_.rows_each
                                                 : rows_.rows;
  l.rank = DeviceArray<float>(count * side.rank);
  if (from == RankFrom::tokens) {
    for (const int32_t pair : rows_.pair_of_row)
      l.rank_of_row.push_back(pair < 0 ? -1 : static_cast<int32_t>(pair / top_k_));
  } else if (padded_slots) {
    for (size_t i = 0; i < rows_.slots.size(); ++i)
      for (int64_t row = 0; row < rows_.slots[i].rows; ++row)
        l.rank_of_row.push_back(static_cast<int32_t>(padded_row(rows_, i) + row));
  }
  l.rank_row = on_device(l.rank_of_row.data(), static_cast<int64_t>(l.rank_of_row.size()),
                         context_.stream());
  context_.synchronize();
  if (from != RankFrom::slots) return;
  const Gemm g{side.rank,   side.tail(),    side.a.data(), side.tail(),
               l.in.data(), side.columns(), l.rank.data(), side.rank};
  const Way way = plan_.path == Path::batched ? Way::strided : Way::pointers;
  l.rank_product = GroupedGemm(context_, rows_, way, g, side.a_stride());
}

void FastBatch::enqueue() {
  cudaStream_t stream = context_.stream();
  gather_inputs(tables_, x_.data(), padded(layer.shape.width), layer.shape.weigh_input,
                inner_.in.data(), layer.inner.columns(), stream);
  enqueue_rank(inner_, kGate);
  enqueue_product(inner_);
  activate_rows(
      tables_,
      {&layer, inner_.result.data(), inner_.delta.data(), down_.in.data(), layer.down.columns()},
      stream);
  enqueue_rank(down_, kDown);
  enqueue_product(down_);
  combine_rows(
      tables_,
      {&layer, tokens_, row_of_pair_.data(), down_.result.data(), down_.delta.data(), out_.data()},
      stream);
}

// `first`: the projection of rank column 0.
void FastBatch::enqueue_rank(Linear& l, Projection first) {
  const Side& side = *l.side;
  if (side.rank == 0) return;
  const RankFrom from = rank_from(side);
  if (from == RankFrom::slots) {
    l.rank_product.enqueue();
  } else {
    const bool tokens = from == RankFrom::tokens;
    const Gemm g{side.rank,
                 side.tail(),
                 side.a.data(),
                 side.tail(),
                 tokens ? x_.data() : l.in.data(),
                 tokens ? side.tail() : side.columns(),
                 l.rank.data(),
                 side.rank};
    gemm(context_.lane(0), g, tokens ? tokens_ : rows_.rows);
  }
  const int64_t second = first == kGate ? layer.shape.rank[kGate] : side.rank;
  auto* const tail = l.in.size() == 0 ? nullptr : l.in.data() + side.tail();  // no rows at all
  place_tail(tables_,
             {l.rank.data(), l.rank_row.data(), side.rank, layer.scales.data(), first, second, tail,
              side.columns()},
             context_.stream());
}

void FastBatch::enqueue_product(const Linear& l) {
  l.product.enqueue();
  if (l.delta.size() > 0) l.delta_product.enqueue();
}

std::unique_ptr<Batch> make_fast_batch(Layer& layer, const BatchInput& input, const Plan& plan) {
  return std::make_unique<FastBatch>(layer, input, plan);
}

}  // namespace moelora::kernels
