#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "kernels/status.h"

namespace moelora::kernels {

// Memory on the current device; empty, or `size` elements.
template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t size) : size_(size) {
    void* memory = nullptr;
    if (size > 0) check_memory(cudaMalloc(&memory, bytes()), bytes());
    data_ = static_cast<T*>(memory);
  }
  DeviceArray(DeviceArray&& other) noexcept { *this = std::move(other); }
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  int64_t size() const { return size_; }
  uint64_t bytes() const { return static_cast<uint64_t>(size_) * sizeof(T); }

  void clear(cudaStream_t stream) {
    if (size_ > 0) check(cudaMemsetAsync(data_, 0, bytes(), stream), "cudaMemset");
  }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

template <class T>
DeviceArray<T> zeros(int64_t size, cudaStream_t stream) {
  DeviceArray<T> out(size);
  out.clear(stream);
  return out;
}

template <class T>
void copy_in(const T* from, int64_t count, T* to, cudaStream_t stream) {
  if (count == 0) return;
  const uint64_t bytes = static_cast<uint64_t>(count) * sizeof(T);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream), "copy to the device");
}

template <class T>
DeviceArray<T> on_device(const T* from, int64_t count, cudaStream_t stream) {
  DeviceArray<T> out(count);
  copy_in(from, count, out.data(), stream);
  return out;
}

// Returns when the copy is there.
template <class T>
std::vector<T> on_host(const T* from, int64_t count, cudaStream_t stream) {
  std::vector<T> out(static_cast<size_t>(count));
  if (count == 0) return out;
  check(cudaMemcpyAsync(out.data(), from, out.size() * sizeof(T), cudaMemcpyDeviceToHost, stream),
        "copy from the device");
  check(cudaStreamSynchronize(stream), "wait for a copy");
  return out;
}

}  // namespace moelora::kernels
