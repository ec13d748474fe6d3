#include "lib/io/folder_listing.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {

namespace fs = std::filesystem;

std::string join_path(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::vector<std::string> files_in(const std::string& folder) {
  std::error_code fault, ignored;
  std::vector<std::string> out;
  for (auto it = fs::directory_iterator(folder, fault); !fault && it != fs::directory_iterator();
       it.increment(fault))
    if (!it->is_directory(ignored)) out.push_back(it->path().filename().string());
  if (fault) throw Error(in_file(folder), "cannot list the folder: " + fault.message());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return std::any_of(endings.begin(), endings.end(),
                       [&](std::string_view ending) { return name.ends_with(ending); });
  });
  return out;
}

std::string list_some(const std::vector<std::string>& names) {
  constexpr size_t kSome = 5;
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(names.size(), kSome); ++i) shown.push_back(printable(names[i]));
  const std::string rest =
      names.size() > kSome ? fmt::format(" and {} more", names.size() - kSome) : "";
  return fmt::format("{}{}", fmt::join(shown, ", "), rest);
}

}  // namespace moelora
