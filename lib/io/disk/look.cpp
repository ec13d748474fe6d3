#include "lib/io/disk/look.h"

#include <filesystem>
#include <system_error>

#include "lib/io/file.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

fs::file_type type_of(const std::string& path) {
  std::error_code fault;
  const fs::file_type type = fs::status(path, fault).type();
  if (fault && is_machines(fault.value()))
    throw MachineError(in_file(path), "cannot be looked at: " + system_text(fault.value()));
  return type;
}

}  // namespace

bool is_folder(const std::string& path) { return type_of(path) == fs::file_type::directory; }
bool is_regular_file(const std::string& path) { return type_of(path) == fs::file_type::regular; }

bool is_there(const std::string& path) {
  const fs::file_type type = type_of(path);
  return type != fs::file_type::not_found && type != fs::file_type::none;
}

}  // namespace moelora
