#pragma once

#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <exception>

#include "kernels/moe_lora.h"

namespace moelora::kernels {

// The one exception inside the module; guarded() turns it into a Status.
struct Stop : std::exception {
  explicit Stop(const Failure& f) : failure(f) {}
  const char* what() const noexcept override { return failure.text; }
  Failure failure;
};

// Throw a Stop that says `what` was being done unless the call went well.
void check(cudaError_t error, const char* what);
void check(cublasStatus_t status, const char* what);
[[noreturn]] void stop(Status status, const char* what);

// For cudaMalloc: a Stop of out_of_memory names `bytes` and what the card has left.
void check_memory(cudaError_t error, uint64_t bytes);

// The border: runs `work`; whatever is thrown becomes the Failure and its Status. `failure` may be
// null.
void report(const std::exception* error, Failure* failure) noexcept;

template <class Work>
Status guarded(Failure* failure, Work&& work) noexcept {
  Failure ignored;
  Failure* out = failure == nullptr ? &ignored : failure;
  *out = Failure{};
  try {
    work();
  } catch (const std::exception& error) {
    report(&error, out);
  } catch (...) {
    report(nullptr, out);
  }
  return out->status;
}

}  // namespace moelora::kernels
