// The layer in the plainest kernels there are: what the fast path must compute, to read rather than
// to run. A block is a pair (token, choice), a thread some of its results; sums are floats, in
// order. Nothing is rounded to BF16 on the way.

#include <algorithm>

#include "kernels/batch.h"
#include "kernels/device_math.cuh"
#include "kernels/launch.cuh"

namespace moelora::kernels {
namespace {

struct Pairs {
  int64_t top_k, experts;
  const int32_t* expert;  // [pairs]
  const float* weight;    // [pairs]
};

__device__ bool left_out(const Pairs& pairs, int64_t pair) {
  return pairs.expert[pair] < 0 || pairs.expert[pair] >= pairs.experts;
}

// Rows of BF16, the same number of them for each expert.
struct Matrix {
  const uint16_t* data;
  int64_t of_expert, pitch;  // elements from one expert, one row to the next
};

__device__ float dot(const Matrix& m, int64_t expert, int64_t row, const float* in, int64_t count) {
  const uint16_t* weights = m.data + expert * m.of_expert + row * m.pitch;
  float sum = 0;
  for (int64_t c = 0; c < count; ++c) sum += from_bf16(weights[c]) * in[c];
  return sum;
}

// in = x, or weight * x
__global__ void input_kernel(Pairs pairs, const uint16_t* x, int64_t width, bool weigh, float* in) {
  const int64_t pair = blockIdx.x;
  if (left_out(pairs, pair)) return;
  for (int64_t c = threadIdx.x; c < width; c += blockDim.x) {
    const float value = from_bf16(x[pair / pairs.top_k * width + c]);
    in[pair * width + c] = weigh ? pairs.weight[pair] * value : value;
  }
}

// out = scale * W in + b; scales and bias may be null
__global__ void linear_kernel(Pairs pairs, Matrix w, const float* bias, int64_t bias_of_expert,
                              const float* scales, const float* in, int64_t columns, float* out,
                              int64_t rows) {
  const int64_t pair = blockIdx.x;
  if (left_out(pairs, pair)) return;
  const int64_t expert = pairs.expert[pair];
  const float scale = scales == nullptr ? 1.0f : scales[expert * kProjections];
  for (int64_t r = threadIdx.x; r < rows; r += blockDim.x) {
    const float sum = scale * dot(w, expert, r, in + pair * columns, columns);
    out[pair * rows + r] = bias == nullptr ? sum : sum + bias[expert * bias_of_expert + r];
  }
}

// What one projection gives for a pair: base + delta.
struct Sum {
  const float *base, *delta;
  __device__ float at(int64_t i) const { return base[i] + delta[i]; }
};

__global__ void hidden_kernel(Pairs pairs, ActivationOf f, Sum gate, Sum up, int64_t neurons,
                              float* hidden) {
  const int64_t pair = blockIdx.x;
  if (left_out(pairs, pair)) return;
  for (int64_t c = threadIdx.x; c < neurons; c += blockDim.x) {
    const int64_t i = pair * neurons + c;
    hidden[i] = activated(f, f.gated ? gate.at(i) : 0.0f, up.at(i));
  }
}

__global__ void out_kernel(Pairs pairs, Sum down, int64_t width, bool weigh, float scaling,
                           float* out) {
  const int64_t token = blockIdx.x;
  for (int64_t c = threadIdx.x; c < width; c += blockDim.x) {
    float sum = 0;
    for (int64_t pair = token * pairs.top_k; pair < (token + 1) * pairs.top_k; ++pair) {
      if (left_out(pairs, pair)) continue;
      const float value = down.at(pair * width + c);
      sum += weigh ? pairs.weight[pair] * value : value;
    }
    out[token * width + c] = scaling * sum;
  }
}

class NaiveBatch final : public Batch {
 public:
  NaiveBatch(Layer& owner, const BatchInput& input)
      : Batch(owner), tokens_(input.tokens), pairs_(input.tokens * input.top_k) {
    cudaStream_t s = stream();
    const int64_t width = layer.shape.width;
    x_ = on_device(input.x, tokens_ * width, s);
    expert_ = on_device(input.experts, pairs_, s);
    weight_ = on_device(input.weights, pairs_, s);
    in_ = zeros<float>(pairs_ * width, s);
    hidden_ = zeros<float>(pairs_ * layer.shape.intermediate, s);
    out_ = zeros<float>(tokens_ * width, s);
    for (const Projection p : {kGate, kUp, kDown}) {
      if (p == kGate && !layer.shape.gated) continue;
      of_[p].base = zeros<float>(pairs_ * layer.out_dim(p), s);
      of_[p].rank = zeros<float>(pairs_ * layer.shape.rank[p], s);
      of_[p].delta = zeros<float>(pairs_ * layer.out_dim(p), s);
    }
    table_ = {input.top_k, layer.shape.experts, expert_.data(), weight_.data()};
    layer.context.synchronize();
  }

  void enqueue() override {
    const LayerShape& s = layer.shape;
    launch_rows(stream(), pairs_, input_kernel, table_, x_.data(), s.width, s.weigh_input,
                in_.data());
    if (s.gated) project(kGate, in_);
    project(kUp, in_);
    const ActivationOf f{s.activation, s.gated, s.alpha, s.limit};
    launch_rows(stream(), pairs_, hidden_kernel, table_, f, sum_of(kGate), sum_of(kUp),
                s.intermediate, hidden_.data());
    project(kDown, hidden_);
    launch_rows(stream(), tokens_, out_kernel, table_, sum_of(kDown), s.width, !s.weigh_input,
                s.routed_scaling, out_.data());
  }

  void read(Stage stage, Projection p, float* out) override {
    const auto copy = [&](const DeviceArray<float>& from) {
      const std::vector<float> values = on_host(from.data(), from.size(), stream());
      std::copy(values.begin(), values.end(), out);
    };
    switch (stage) {
      case Stage::input:
        return copy(in_);
      case Stage::base:
        return copy(of_[p].base);
      case Stage::rank:
        return copy(of_[p].rank);
      case Stage::delta:
        return copy(of_[p].delta);
      case Stage::hidden:
        return copy(hidden_);
      case Stage::out:
        return copy(out_);
    }
  }

 private:
  struct Results {
    DeviceArray<float> base, rank, delta;
  };

  cudaStream_t stream() const { return layer.context.stream(); }
  Sum sum_of(Projection p) const { return {of_[p].base.data(), of_[p].delta.data()}; }

  // base = W in + b, rank = A in, delta = s B rank
  void project(Projection p, const DeviceArray<float>& in) {
    const Side& side = layer.side_of(p);
    const int64_t rank = layer.shape.rank[p], rows = layer.out_dim(p);
    const uint16_t* w = side.weights.data() + layer.first_row(p) * side.columns();
    const uint16_t* b = w + side.tail() + layer.first_rank(p);
    const uint16_t* a = side.a.data() + layer.first_rank(p) * side.tail();
    const int64_t a_of_expert = side.a_experts == 1 ? 0 : side.a_stride();
    const float* none = nullptr;
    launch_rows(stream(), pairs_, linear_kernel, table_,
                Matrix{w, side.weight_stride(), side.columns()},
                side.bias.data() + layer.first_row(p), side.rows, none, in.data(), side.in,
                of_[p].base.data(), rows);
    if (rank == 0) return;
    launch_rows(stream(), pairs_, linear_kernel, table_, Matrix{a, a_of_expert, side.tail()}, none,
                0, none, in.data(), side.in, of_[p].rank.data(), rank);
    launch_rows(stream(), pairs_, linear_kernel, table_,
                Matrix{b, side.weight_stride(), side.columns()}, none, 0, layer.scales.data() + p,
                of_[p].rank.data(), rank, of_[p].delta.data(), rows);
  }

  int64_t tokens_, pairs_;
  DeviceArray<uint16_t> x_;
  DeviceArray<int32_t> expert_;
  DeviceArray<float> weight_, in_, hidden_, out_;
  Results of_[kProjections];
  Pairs table_ = {};
};

}  // namespace

std::unique_ptr<Batch> make_naive_batch(Layer& layer, const BatchInput& input) {
  return std::make_unique<NaiveBatch>(layer, input);
}

}  // namespace moelora::kernels
