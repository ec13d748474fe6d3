#include <algorithm>
#include <bit>

#include "kernels/fast.h"

namespace moelora::kernels {

void FastBatch::read(Stage stage, Projection p, float* out) {
  const Linear& l = linear_of(p);
  switch (stage) {
    case Stage::input:
      return read_rows(halves(inner_), {layer.inner.columns(), 0, layer.shape.width}, out);
    case Stage::hidden:
      return read_rows(halves(down_), {layer.down.columns(), 0, layer.shape.intermediate}, out);
    case Stage::rank:
      return read_rows(floats(l.rank),
                       {l.side->rank, layer.first_rank(p), layer.shape.rank[p],
                        l.rank_of_row.empty() ? nullptr : &l.rank_of_row},
                       out);
    case Stage::base:
      read_result(p, l.result, out);
      return add_bias(p, out);
    case Stage::delta:
      if (l.delta.size() > 0) return read_result(p, l.delta, out);
      if (l.side->rank > 0) stop(Status::bad_argument, "base and delta were not kept apart");
      std::fill(out, out + tokens_ * top_k_ * layer.out_dim(p), 0.0f);
      return;
    case Stage::out:
      const std::vector<float> values = floats(out_);
      std::copy(values.begin(), values.end(), out);
      return;
  }
}

void FastBatch::read_result(Projection p, const DeviceArray<float>& from, float* out) const {
  const Side& side = layer.side_of(p);
  read_rows(floats(from), {side.rows, layer.first_row(p), layer.out_dim(p)}, out);
}

void FastBatch::read_rows(const std::vector<float>& rows, const Columns& c, float* out) const {
  for (size_t pair = 0; pair < rows_.row_of_pair.size(); ++pair) {
    int64_t row = rows_.row_of_pair[pair];
    float* to = out + static_cast<int64_t>(pair) * c.count;
    std::fill(to, to + c.count, 0.0f);
    if (row < 0) continue;
    if (c.row != nullptr) row = (*c.row)[static_cast<size_t>(row)];
    const float* from = rows.data() + row * c.pitch + c.first;
    std::copy(from, from + c.count, to);
  }
}

// As the kernels do: to the product's float.
void FastBatch::add_bias(Projection p, float* out) const {
  const Side& side = layer.side_of(p);
  const std::vector<float> bias = floats(side.bias);
  const std::vector<int32_t> expert = on_host(expert_.data(), expert_.size(), context_.stream());
  const int64_t columns = layer.out_dim(p);
  for (size_t pair = 0; pair < expert.size(); ++pair) {
    if (rows_.row_of_pair[pair] < 0) continue;
    const float* from = bias.data() + expert[pair] * side.rows + layer.first_row(p);
    float* to = out + static_cast<int64_t>(pair) * columns;
    for (int64_t c = 0; c < columns; ++c) to[c] += from[c];
  }
}

std::vector<float> FastBatch::floats(const DeviceArray<float>& values) const {
  return on_host(values.data(), values.size(), context_.stream());
}

std::vector<float> FastBatch::halves(const Linear& l) const {
  const std::vector<uint16_t> bits = on_host(l.in.data(), l.in.size(), context_.stream());
  std::vector<float> out(bits.size());
  for (size_t i = 0; i < bits.size(); ++i)
    out[i] = std::bit_cast<float>(static_cast<uint32_t>(bits[i]) << 16);
  return out;
}

}  // namespace moelora::kernels
