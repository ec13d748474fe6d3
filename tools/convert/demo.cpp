#include "tools/convert/demo.h"

#include "lib/io/output_tree.h"
#include "tools/convert/embedded_demo.h"

namespace moelora {

void write_demo(const std::string& out, bool durable,
                const std::function<void(const Demo& demo)>& ready) {
  const TreeFiles files = embedded_demo();
  Demo demo;
  for (const auto& [name, bytes] : files) {
    ++demo.files;
    demo.bytes += bytes.size();
  }
  write_tree(out, files, durable, [&] { ready(demo); });
}

}  // namespace moelora
