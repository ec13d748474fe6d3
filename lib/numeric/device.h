#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "kernels/moe_lora.h"
#include "lib/base/error.h"

namespace moelora {

// The card ran out of memory. forward_device() answers with a smaller plan; others let it pass.
struct DeviceMemoryError : Error {
  DeviceMemoryError(const kernels::Failure& failure);
  uint64_t bytes, bytes_free;
};

// A CUDA card, through the module libmoelora_cuda.so. No tool links CUDA: the module is opened when
// a device is asked for, from $MOELORA_CUDA_MODULE, else beside the executable, in ../lib from
// there, or where the dynamic linker looks. One thread at a time.
class Device {
 public:
  // Throws Error: no module, a module of another version, no card.
  explicit Device(const std::string& module = "", int index = 0);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const kernels::DeviceInfo& info() const { return info_; }
  std::string description() const;  // "NVIDIA H200, 139.8 GiB, CUDA 13.0, cuBLAS 13.1.0"

  const kernels::Api& api() const { return api_; }
  kernels::Context* context() const { return context_; }

 private:
  const kernels::Api& api_;
  kernels::Context* context_ = nullptr;
  kernels::DeviceInfo info_ = {};
};

// Where a forward runs. automatic: on a card where there is one.
enum class DeviceChoice : uint8_t { automatic, cpu, cuda };

// The first card or, in words, why there is none.
struct FoundDevice {
  std::shared_ptr<Device> device;
  std::string reason;
};
FoundDevice find_device(const std::string& module = "");  // never throws

// As chosen; null and no reason for the CPU. Throws Error when `cuda` is asked for and not there.
FoundDevice open_device(DeviceChoice choice, const std::string& module = "");

// Throws what a call of the module answered: DeviceMemoryError, else Error, unless it is ok.
void check_device(kernels::Status status, const kernels::Failure& failure);

}  // namespace moelora
