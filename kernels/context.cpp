#include "kernels/context.h"

#include <cstdio>

namespace moelora::kernels {
namespace {

constexpr int64_t kWorkspace = int64_t{32} << 20;  // what cuBLAS recommends for sm_90

}  // namespace

Lane::Lane() : workspace_(kWorkspace) {
  try {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "make a stream");
    check(cudaEventCreateWithFlags(&done_, cudaEventDisableTiming), "make an event");
    check(cublasCreate(&blas_), "cublasCreate");
    check(cublasSetStream(blas_, stream_), "cublasSetStream");  // resets the workspace: goes first
    check(cublasSetWorkspace(blas_, workspace_.data(), workspace_.bytes()), "cublasSetWorkspace");
  } catch (...) {
    release();
    throw;
  }
}

Lane::~Lane() { release(); }

void Lane::release() noexcept {
  if (blas_ != nullptr) cublasDestroy(blas_);
  if (done_ != nullptr) cudaEventDestroy(done_);
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

Context::Context(int device) : device_(device) {
  int count = 0;
  check(cudaGetDeviceCount(&count), "look for a CUDA device");
  if (device < 0 || device >= count) stop(Status::no_device, "there is no device of this number");
  use();
  lane(0);
}

Lane& Context::lane(int index) {
  while (static_cast<int>(lanes_.size()) <= index) lanes_.push_back(std::make_unique<Lane>());
  return *lanes_[static_cast<size_t>(index)];
}

void Context::fork(int lanes) {
  if (lanes <= 1) return;
  check(cudaEventRecord(lane(0).done(), stream()), "record an event");
  for (int i = 1; i < lanes; ++i)
    check(cudaStreamWaitEvent(lane(i).stream(), lane(0).done(), 0), "wait for an event");
}

void Context::join(int lanes) {
  for (int i = 1; i < lanes; ++i) {
    check(cudaEventRecord(lane(i).done(), lane(i).stream()), "record an event");
    check(cudaStreamWaitEvent(stream(), lane(i).done(), 0), "wait for an event");
  }
}

DeviceInfo Context::describe() {
  DeviceInfo out = {};
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, device_), "cudaGetDeviceProperties");
  std::snprintf(out.name, sizeof out.name, "%.127s", properties.name);
  out.major = properties.major;
  out.minor = properties.minor;
  out.multiprocessors = properties.multiProcessorCount;
  check(cudaDriverGetVersion(&out.driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&out.runtime), "cudaRuntimeGetVersion");
  check(cublasGetVersion(lane(0).blas(), &out.cublas), "cublasGetVersion");
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  out.memory = total;
  out.memory_free = free;
  return out;
}

}  // namespace moelora::kernels
