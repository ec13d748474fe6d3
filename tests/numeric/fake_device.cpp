#include "tests/numeric/fake_device.h"

#include <filesystem>

namespace moelora::test {

std::string fake_module() {
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
  const std::filesystem::path module = self.parent_path() / "libmoelora_cuda_fake.so";
  return std::filesystem::exists(module) ? module.string() : "";
}

}  // namespace moelora::test
