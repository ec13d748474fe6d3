#include "kernels/device_math.cuh"
#include "kernels/elementwise.h"
#include "kernels/launch.cuh"

namespace moelora::kernels {
namespace {

// V values that are loaded and stored at once.
template <class T, int V>
struct alignas(sizeof(T) * V) Pack {
  T at[V];
};

template <int V, class T>
__device__ Pack<T, V> load(const T* from) {
  return *reinterpret_cast<const Pack<T, V>*>(from);
}

template <int V, class T>
__device__ void store(T* to, const Pack<T, V>& values) {
  *reinterpret_cast<Pack<T, V>*>(to) = values;
}

// base + delta + bias; delta may be null.
template <int V>
__device__ Pack<float, V> sum(const float* base, const float* delta, const float* bias) {
  Pack<float, V> out = load<V>(base);
  const Pack<float, V> b = load<V>(bias);
  if (delta != nullptr) {
    const Pack<float, V> d = load<V>(delta);
    for (int i = 0; i < V; ++i) out.at[i] += d.at[i];
  }
  for (int i = 0; i < V; ++i) out.at[i] += b.at[i];
  return out;
}

__global__ void gather_kernel(RowTables t, const uint16_t* x, int64_t pitch, bool weigh,
                              uint16_t* in, int64_t in_pitch) {
  const int64_t row = blockIdx.x;
  const int32_t pair = t.pair_of_row[row];
  if (pair < 0) return;
  const uint16_t* from = x + pair / t.top_k * pitch;
  const float weight = weigh ? t.weight[pair] : 1.0f;
  for (int64_t c = threadIdx.x * 8; c < pitch; c += blockDim.x * 8) {
    Pack<uint16_t, 8> values = load<8>(from + c);
    if (weigh)
      for (uint16_t& value : values.at) value = to_bf16(weight * from_bf16(value));
    store(in + row * in_pitch + c, values);
  }
}

__global__ void tail_kernel(RowTables t, RankTail r) {
  const int64_t row = blockIdx.x;
  const int32_t pair = t.pair_of_row[row];
  if (pair < 0) return;
  const float* rank = r.rank + (r.rank_row == nullptr ? row : r.rank_row[row]) * r.columns;
  const float* scales = r.scales + t.expert[pair] * kProjections;
  for (int64_t c = threadIdx.x; c < r.columns; c += blockDim.x) {
    const float scale = scales[c < r.second_rank ? r.first : kUp];
    r.tail[row * r.pitch + c] = to_bf16(scale * rank[c]);
  }
}

template <int V>
__global__ void activate_kernel(RowTables t, ActivationOf f, int64_t neurons, const float* bias,
                                const float* base, const float* delta, uint16_t* hidden,
                                int64_t pitch) {
  const int64_t row = blockIdx.x, width = f.gated ? 2 * neurons : neurons;
  const int32_t pair = t.pair_of_row[row];
  if (pair < 0) return;
  const int64_t up = f.gated ? neurons : 0, of_expert = t.expert[pair] * width;
  for (int64_t c = threadIdx.x * V; c < neurons; c += blockDim.x * V) {
    const auto at = [&](int64_t column) {
      const int64_t in_row = row * width + column;
      return sum<V>(base + in_row, delta == nullptr ? nullptr : delta + in_row,
                    bias + of_expert + column);
    };
    const Pack<float, V> g = at(c), u = at(up + c);
    Pack<uint16_t, V> h;
    for (int i = 0; i < V; ++i) h.at[i] = to_bf16(activated(f, g.at[i], u.at[i]));
    store(hidden + row * pitch + c, h);
  }
}

template <int V>
__global__ void combine_kernel(RowTables t, CombineRows c, int64_t width, const float* bias,
                               bool weigh, float scaling) {
  const int64_t token = blockIdx.x;
  for (int64_t column = threadIdx.x * V; column < width; column += blockDim.x * V) {
    Pack<float, V> out = {};
    for (int64_t pair = token * t.top_k; pair < (token + 1) * t.top_k; ++pair) {
      const int32_t row = c.row_of_pair[pair];
      if (row < 0) continue;
      const int64_t at = row * width + column;
      const Pack<float, V> d = sum<V>(c.base + at, c.delta == nullptr ? nullptr : c.delta + at,
                                      bias + t.expert[pair] * width + column);
      const float weight = weigh ? t.weight[pair] : 1.0f;
      for (int i = 0; i < V; ++i) out.at[i] += weight * d.at[i];
    }
    for (int i = 0; i < V; ++i) out.at[i] *= scaling;
    store(c.out + token * width + column, out);
  }
}

}  // namespace

void gather_inputs(const RowTables& t, const uint16_t* x, int64_t x_pitch, bool weigh, uint16_t* in,
                   int64_t in_pitch, cudaStream_t stream) {
  launch_rows(stream, t.rows, gather_kernel, t, x, x_pitch, weigh, in, in_pitch);
}

void place_tail(const RowTables& t, const RankTail& r, cudaStream_t stream) {
  if (r.columns > 0) launch_rows(stream, t.rows, tail_kernel, t, r);
}

void activate_rows(const RowTables& t, const ActivateRows& a, cudaStream_t stream) {
  const LayerShape& s = a.layer->shape;
  const ActivationOf f{s.activation, s.gated, s.alpha, s.limit};
  const auto kernel = s.intermediate % 4 == 0 ? activate_kernel<4> : activate_kernel<1>;
  launch_rows(stream, t.rows, kernel, t, f, s.intermediate, a.layer->inner.bias.data(), a.base,
              a.delta, a.hidden, a.pitch);
}

void combine_rows(const RowTables& t, const CombineRows& c, cudaStream_t stream) {
  const LayerShape& s = c.layer->shape;
  const auto kernel = s.width % 4 == 0 ? combine_kernel<4> : combine_kernel<1>;
  launch_rows(stream, c.tokens, kernel, t, c, s.width, c.layer->down.bias.data(), !s.weigh_input,
              s.routed_scaling);
}

}  // namespace moelora::kernels
