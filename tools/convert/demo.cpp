#include "tools/convert/demo.h"

#include <algorithm>
#include <set>
#include <string_view>

#include "lib/base/error.h"
#include "lib/io/file.h"
#include "lib/io/output.h"
#include "tools/convert/embedded_demo.h"

namespace moelora {

void write_demo(const std::string& out, bool durable,
                const std::function<void(const Demo& demo)>& ready) {
  constexpr std::string_view kLast = "README.md";
  if (!is_absent(out))
    throw Error(in_file(out), "exists already", "name another folder: --demo replaces none");
  OutputFolder folder(out, {}, {false, durable});
  Demo demo;
  std::set<std::string_view> folders;
  std::string_view last_text;
  for (const auto& [name, bytes] : embedded_demo()) {
    ++demo.files;
    demo.bytes += bytes.size();
    const size_t slash = name.find('/');
    if (slash != std::string_view::npos && folders.insert(name.substr(0, slash)).second)
      folder.make_folder(std::string(name.substr(0, slash)));
    if (name == kLast)
      last_text = bytes;
    else
      folder.write_text(name, bytes);
  }
  folder.commit(std::string(kLast), last_text, [&] { ready(demo); });
}

}  // namespace moelora
