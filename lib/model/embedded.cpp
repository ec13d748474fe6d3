#include "lib/model/embedded.h"

#include <algorithm>

#include "lib/model/embedded_families.h"
#include "lib/model/model_builder.h"

namespace moelora {

const std::vector<Family>& embedded_families() {
  static const std::vector<Family> families = [] {
    std::vector<Family> out;
    for (const EmbeddedFile& file : embedded_family_files()) {
      const std::string where = "schemas/models/" + file.name + ".json";
      out.push_back(parse_family(parse_json(file.text, where), where));
    }
    std::sort(out.begin(), out.end(),
              [](const Family& a, const Family& b) { return a.name < b.name; });
    return out;
  }();
  return families;
}

}  // namespace moelora
