#include "kernels/status.h"

#include <cstdio>

namespace moelora::kernels {
namespace {

Failure made(Status status, int code, const char* what, const char* said) {
  Failure out;
  out.status = status;
  out.code = code;
  std::snprintf(out.text, sizeof out.text, "%s: %s", what, said);
  return out;
}

bool means_no_device(cudaError_t error) {
  return error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ||
         error == cudaErrorInvalidDevice || error == cudaErrorInitializationError;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // what is not fatal must not come back at the next call
  const Status status = means_no_device(error) ? Status::no_device : Status::cuda;
  throw Stop(made(status, error, what, cudaGetErrorString(error)));
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw Stop(made(Status::cublas, status, what, cublasGetStatusString(status)));
}

void stop(Status status, const char* what) { throw Stop(made(status, 0, "moelora_cuda", what)); }

void check_memory(cudaError_t error, uint64_t bytes) {
  if (error != cudaErrorMemoryAllocation) return check(error, "cudaMalloc");
  cudaGetLastError();
  size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  Failure failure = made(Status::out_of_memory, error, "cudaMalloc", cudaGetErrorString(error));
  failure.bytes = bytes;
  failure.bytes_free = free;
  throw Stop(failure);
}

void report(const std::exception* error, Failure* failure) noexcept {
  if (const auto* known = dynamic_cast<const Stop*>(error)) {
    *failure = known->failure;
    return;
  }
  const char* said = error == nullptr ? "an unknown exception" : error->what();
  *failure = made(Status::other, 0, "moelora_cuda", said);
}

}  // namespace moelora::kernels
