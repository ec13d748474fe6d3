#include "lib/numeric/device.h"

#include <dlfcn.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr const char* kModule = "libmoelora_cuda.so";

// Where pip puts the wheel moelora-cuda13 when it puts our commands into `folder`; looked at before
// the places of the dynamic linker.
std::vector<fs::path> package_places(const fs::path& folder) {
  std::vector<fs::path> out;
  std::error_code error;
  for (auto it = fs::directory_iterator(folder / "../lib", error);
       !error && it != fs::directory_iterator(); it.increment(error))
    if (it->path().filename().string().starts_with("python3"))
      for (const char* packages : {"site-packages", "dist-packages"})
        out.push_back(it->path() / packages / "moelora_cuda13" / kModule);
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> places(const std::string& module) {
  if (!module.empty()) return {module};
  if (const char* given = std::getenv("MOELORA_CUDA_MODULE"); given != nullptr && *given != '\0')
    return {given};
  std::error_code error;
  const fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  std::vector<std::string> out;
  if (error) return {kModule};
  std::vector<fs::path> near = package_places(folder);
  near.insert(near.begin(), {folder / kModule, folder / "../lib" / kModule});
  for (const fs::path& path : near)
    if (fs::exists(path, error)) out.push_back(path.string());
  out.emplace_back(kModule);
  return out;
}

// Stays open until the process ends: CUDA does not survive being unloaded.
void* open_module(const std::string& module) {
  std::string said;
  for (const std::string& place : places(module)) {
    if (void* handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    const char* why = dlerror();
    if (said.empty()) said = why;  // of the one that is there
  }
  throw Error("cuda", "the CUDA module cannot be opened: " + said,
              "build it with -DMOELORA_CUDA=ON, or name it in MOELORA_CUDA_MODULE");
}

const kernels::Api& module_api(const std::string& module) {
  using GetApi = const kernels::Api* (*)() noexcept;
  const auto get = reinterpret_cast<GetApi>(dlsym(open_module(module), "moelora_cuda_api"));
  if (get == nullptr) throw Error("cuda", "the CUDA module is not one of moelora's");
  const kernels::Api* api = get();
  if (api->version != kernels::kVersion)
    throw Error("cuda", fmt::format("the CUDA module has version {}, expected {}", api->version,
                                    kernels::kVersion));
  return *api;
}

std::string version(int number) {  // 13000, 13010
  return fmt::format("{}.{}", number / 1000, number % 1000 / 10);
}

}  // namespace

DeviceMemoryError::DeviceMemoryError(const kernels::Failure& failure)
    : Error("cuda",
            fmt::format("out of memory: {} bytes were asked for, {} are free", failure.bytes,
                        failure.bytes_free),
            {"use ", Option::device, " cpu, or a card that nothing else uses"}),
      bytes(failure.bytes),
      bytes_free(failure.bytes_free) {}

void check_device(kernels::Status status, const kernels::Failure& failure) {
  if (status == kernels::Status::ok) return;
  if (status == kernels::Status::out_of_memory) throw DeviceMemoryError(failure);
  throw Error("cuda", failure.text);
}

Device::Device(const std::string& module, int index) : api_(module_api(module)) {
  kernels::Failure failure;
  check_device(api_.open(index, &context_, &failure), failure);
  const kernels::Status status = api_.describe(context_, &info_, &failure);
  if (status != kernels::Status::ok) api_.close(context_);
  check_device(status, failure);
}

Device::~Device() { api_.close(context_); }

std::string Device::description() const {
  return fmt::format("{}, {:.1f} GiB, CUDA {}, cuBLAS {}.{}.{}", info_.name,
                     static_cast<double>(info_.memory) / (1 << 30), version(info_.runtime),
                     info_.cublas / 10000, info_.cublas / 100 % 100, info_.cublas % 100);
}

FoundDevice find_device(const std::string& module) {
  try {
    return {std::make_shared<Device>(module), ""};
  } catch (const std::exception& error) {
    return {nullptr, error.what()};
  }
}

FoundDevice open_device(DeviceChoice choice, const std::string& module) {
  if (choice == DeviceChoice::automatic) return find_device(module);
  if (choice == DeviceChoice::cuda) return {std::make_shared<Device>(module), ""};
  return {};
}

}  // namespace moelora
