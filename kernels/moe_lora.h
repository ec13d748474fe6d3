#pragma once

#include <cstdint>

// The CUDA side of the reference forward: the layer of lib/numeric/moe_layer.h on one card. Built
// as the module libmoelora_cuda.so, which lib/numeric/device.cpp opens at run time and asks for
// moelora_cuda_api(). Only std types cross this line, nothing throws across it, and every function
// answers with a Status; whatever CUDA or cuBLAS said is in the Failure. Handles belong to their
// maker and end before it does: Batch before Layer before Context. A Context and what was made from
// it are used by one thread at a time.
namespace moelora::kernels {

inline constexpr uint32_t kVersion = 1;  // of this file; a module of another version is not used

enum class Status : int32_t { ok, bad_argument, no_device, out_of_memory, cuda, cublas, other };

struct Failure {
  Status status = Status::ok;
  int32_t code = 0;         // of CUDA or cuBLAS
  uint64_t bytes = 0;       // out_of_memory: what was asked for
  uint64_t bytes_free = 0;  // out_of_memory: what the card had left
  char text[232] = {};      // what was being done, and what the library said
};

struct DeviceInfo {
  char name[128];
  int32_t major, minor, multiprocessors;
  int32_t driver, runtime, cublas;  // versions, as those libraries number them
  uint64_t memory, memory_free;     // bytes
};

enum class Activation : int32_t { silu, gelu, gelu_tanh, relu2, gpt_oss_swiglu };

// Numbered alike everywhere: gate, up, down.
enum Projection : int32_t { kGate, kUp, kDown, kProjections };

struct LayerShape {
  int64_t experts;  // held here; may be some of the layer's only
  int64_t width, intermediate;
  int64_t rank[kProjections];  // 0: no LoRA on this projection
  bool gated;                  // otherwise nothing of gate is looked at
  bool shared_a;               // gate and up each have one A for all experts
  bool weigh_input;            // router weights multiply x, not the sum
  Activation activation;
  float alpha, limit;  // infinity: no limit
  float routed_scaling;
};

// One expert's host arrays, row-major; matrices are BF16 bits. Null is zeros.
struct ExpertData {
  struct Part {
    const uint16_t* weight;  // [out, in]
    const float* bias;       // [out]
    const uint16_t* a;       // [rank, in]; with shared_a, that of expert 0 is everyone's
    const uint16_t* b;       // [out, rank]
    float scale;
  };
  Part part[kProjections];
};

// Tokens and the experts they chose; host arrays. An expert outside [0, experts) is left out.
struct BatchInput {
  int64_t tokens, top_k;
  const uint16_t* x;       // [tokens, width], BF16 bits
  const int32_t* experts;  // [tokens, top_k]
  const float* weights;    // [tokens, top_k]
};

enum class Path : int32_t {
  naive,       // one thread a result, sums in float in order: the specification (naive.cu)
  per_expert,  // cuBLAS, a GEMM for each expert that was chosen, side by side on several streams
  gathered,    // cuBLAS, one batch of the experts that were chosen, each padded to the longest
  batched,     // cuBLAS, one strided batch of all experts, each padded to the longest
};

struct Plan {
  Path path = Path::per_expert;
  int32_t streams = 8;      // of per_expert, at most kMaxStreams
  bool graph = false;       // record the work once, replay it on each run
  bool keep_delta = false;  // base and delta apart, for read(); otherwise one GEMM gives their sum
};
inline constexpr int32_t kMaxStreams = 16;

// What read() copies to the host, as float; rows are pairs t * top_k + k, zero where left out.
enum class Stage : int32_t {
  input,   // [pairs, width]
  base,    // [pairs, out] of a projection, bias included; without keep_delta base + delta
  rank,    // [pairs, rank] of a projection: A x, not scaled
  delta,   // [pairs, out] of a projection; needs keep_delta
  hidden,  // [pairs, intermediate]
  out,     // [tokens, width]
};

struct Context;
struct Layer;
struct Batch;

struct Api {
  uint32_t version;

  Status (*open)(int32_t device, Context** out, Failure* failure) noexcept;
  void (*close)(Context* context) noexcept;
  Status (*describe)(Context* context, DeviceInfo* out, Failure* failure) noexcept;

  // Takes the memory of a layer's weights, all zero.
  Status (*layer_create)(Context* context, const LayerShape* shape, Layer** out,
                         Failure* failure) noexcept;
  // Sets one expert; the arrays may go when it returns. May be called again.
  Status (*layer_load)(Layer* layer, int64_t expert, const ExpertData* data,
                       Failure* failure) noexcept;
  void (*layer_destroy)(Layer* layer) noexcept;

  // Takes the memory of a batch's intermediate results and copies the input.
  Status (*batch_create)(Layer* layer, const BatchInput* input, const Plan* plan, Batch** out,
                         Failure* failure) noexcept;
  Status (*batch_run)(Batch* batch, Failure* failure) noexcept;  // returns when it is done
  Status (*batch_read)(Batch* batch, Stage stage, Projection projection, float* out,
                       Failure* failure) noexcept;
  // Runs `warmup + count` times, the `batches` in turn; the last `count` runs' microseconds on the
  // device, each between two events.
  Status (*batch_time)(Batch* const* batches, int32_t batch_count, int32_t warmup, int32_t count,
                       float* microseconds, Failure* failure) noexcept;
  void (*batch_destroy)(Batch* batch) noexcept;
};

}  // namespace moelora::kernels

// Never null.
extern "C" const moelora::kernels::Api* moelora_cuda_api() noexcept;
