#pragma once

#include <memory>
#include <vector>

#include "kernels/memory.h"

namespace moelora::kernels {

// A stream with a cuBLAS handle and workspace of its own: what makes cuBLAS give the same bits each
// time although several streams are busy.
class Lane {
 public:
  Lane();
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  cudaStream_t stream() const { return stream_; }
  cublasHandle_t blas() const { return blas_; }
  cudaEvent_t done() const { return done_; }

 private:
  void release() noexcept;
  cudaStream_t stream_ = nullptr;
  cublasHandle_t blas_ = nullptr;
  cudaEvent_t done_ = nullptr;
  DeviceArray<std::byte> workspace_;
};

}  // namespace moelora::kernels

namespace moelora::kernels {

// A card in use. Lane 0 is the one everything starts and ends on.
struct Context {
  explicit Context(int device);

  Lane& lane(int index);  // made when first asked for
  cudaStream_t stream() { return lane(0).stream(); }

  void fork(int lanes);  // lanes 1 .. lanes - 1 wait for lane 0
  void join(int lanes);  // lane 0 waits for them
  void synchronize() { check(cudaStreamSynchronize(stream()), "wait for the device"); }

  DeviceInfo describe();
  void use() const { check(cudaSetDevice(device_), "cudaSetDevice"); }

 private:
  int device_;
  std::vector<std::unique_ptr<Lane>> lanes_;
};

}  // namespace moelora::kernels
