#include "kernels/batch.h"

namespace moelora::kernels {

Batch::~Batch() {
  if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
}

void Batch::launch() {
  if (graph_ == nullptr) return enqueue();
  check(cudaGraphLaunch(graph_, layer.context.stream()), "cudaGraphLaunch");
}

void Batch::record() {
  if (graph_ != nullptr) return;
  Context& context = layer.context;
  enqueue();  // first as it is: what libraries load on first use must not happen while recording
  context.synchronize();
  check(cudaStreamBeginCapture(context.stream(), cudaStreamCaptureModeThreadLocal),
        "begin to record");
  cudaGraph_t graph = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(context.stream(), &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    cudaGetLastError();
    throw;
  }
  check(cudaStreamEndCapture(context.stream(), &graph), "end recording");
  const cudaError_t made = cudaGraphInstantiate(&graph_, graph, 0);
  cudaGraphDestroy(graph);
  check(made, "cudaGraphInstantiate");
}

void check_input(const BatchInput& input) {
  constexpr int64_t most = int64_t{1} << 31;
  const bool sizes =
      input.tokens >= 0 && input.tokens < most && input.top_k > 0 && input.top_k <= 65535;
  const bool there = input.tokens == 0 ||
                     (input.x != nullptr && input.experts != nullptr && input.weights != nullptr);
  if (!sizes || !there) stop(Status::bad_argument, "a batch of impossible sizes");
}

}  // namespace moelora::kernels
